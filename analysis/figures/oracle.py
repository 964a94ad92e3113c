"""The law of presence beside the truth of synthetic features, and the loss beside the allocation model."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import concept_points as cp
from analysis.figures import style

LOOKS = {"cosine": ("o", style.LAW, 0.97), "activity": ("s", style.FLOOR, 1.03)}
NAMES = {"cosine": "known directions", "activity": "labeller of real models"}


def draw(table, fits: dict) -> Figure:  # noqa: ARG001 (every figure of a sweep has these inputs)
    """Left: the 50 % frequency by both labellings with 95 % intervals, and the rate of the n_alive-th feature, which an ideal
    dictionary has. Right: features held and held-out loss against size, measured and by the allocation model, each set to agree
    at the smallest size, because only slopes are foretold."""
    block = fits["oracle"]
    figure, (left, right) = style.panels(2, 11.5, 4.6)
    _fifty(left, block)
    _loss(right, block["loss"])
    return figure


def _fifty(ax: Axes, block: dict) -> None:
    rows = block["sizes"]
    n = np.array([row["n_alive"] for row in rows])
    words = f"rate of the n_alive-th feature: $q$ = {block['q']['generator']:.2f}" if block["q"]["generator"] else "generator"
    ax.plot(n, [row["ideal"] for row in rows], color=style.INK, linewidth=1.4, label=words, zorder=2)
    held = {"color": style.INK, "markersize": 6, "label": "rate at the rank of what is held", "zorder": 3}
    ax.plot(n, [row["held"] for row in rows], "x", **held)
    for name, (marker, colour, dodge) in LOOKS.items():
        known = [row for row in rows if row[name] is not None]
        y = np.array([row[name] for row in known])
        ends = np.array([[value if end is None else end for end in row[f"{name}_interval"]]
                         for row, value in zip(known, y, strict=True)]).reshape(-1, 2)  # fmt: skip
        q = block["q"][name]
        words = NAMES[name] + ("" if q["q"] is None else f": $q$ = {cp.with_interval(q['q'], q['q_interval'])}")
        x = [row["n_alive"] * dodge for row in known]
        ax.errorbar(x, y, yerr=np.maximum(np.abs(ends.T - y), 0), fmt=marker, color=colour, markersize=5, capsize=3, label=words,
                    markerfacecolor="white", zorder=4)  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="alive latents", ylabel="$f_{50}$ (firings per token)")
    style.size_ticks(ax.xaxis, sorted({round(value) for value in n}))
    ax.set_title("The 50 % frequency against the truth")
    ax.legend(loc="best")


def _loss(ax: Axes, loss: dict | None) -> None:
    ax.set(xlabel="n_latents", title="Features held and loss, measured and modelled")
    if loss is None or loss["measured"] is None:
        style.nothing_yet(ax, "no table of losses" if loss is None else loss["reason"])
        return
    sizes = np.array(loss["sizes"])
    for name, values, model, colour in (("features held: exponent", loss["n_present"], loss["model_discovered"], style.LAW),
                                        ("fvu: exponent", loss["fvu"], loss["model_loss"], style.FLOOR)):  # fmt: skip
        key = "discovered" if "held" in name else "loss"
        y = np.array(values) / values[0]
        modelled = np.array(model) / model[0]
        ax.plot(sizes, y, "o-", color=colour, markersize=5, label=f"{name} {loss['measured'][key]:.3f}")
        words = f"model: {loss['model'][key]:.3f} (limit {loss['limit'][key]:.3f})"
        ax.plot(sizes, modelled, "--", color=colour, linewidth=1.2, label=words)
    if loss.get("with_k"):
        left = np.array(loss["with_k"]["fvu"])
        ax.plot(sizes, left / left[0], ":", color=style.FLOOR, linewidth=1.4,
                label=f"model, {loss['with_k']['k']} latents per token: {loss['with_k']['loss']:.3f}")  # fmt: skip
    ax.set(xscale="log", yscale="log", ylabel="relative to the smallest size")
    style.size_ticks(ax.xaxis, loss["sizes"])
    ax.legend(loc="best")
