"""How trained dictionaries divide their latents over features that are spheres, beside the best division."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style

REGIMES = ((style.LAW, "o"), (style.FLOOR, "s"))


def draw(found: dict) -> Figure:
    """`found` is manifolds.json of benchmarks.manifolds. Left: features with a latent against size; middle: held-out fvu; points
    are seeds at the longest horizon all sizes have, dashed lines the best division. Right: latents per feature against its rate,
    in the largest dictionary of the steeper corpus, by horizon."""
    figure, (left, middle, right) = style.panels(3, 15.0, 4.4)
    horizon = max(block["n_tokens"] for block in found["exponents"])
    regimes = [block for block in reversed(found["exponents"]) if block["n_tokens"] == horizon]
    for look, block in zip(REGIMES, regimes, strict=False):
        for ax, name in ((left, "discovered"), (middle, "fvu")):
            _against_size(ax, found["runs"], block, name, look)
    left.set(title="Features with a latent", ylabel="features")
    middle.set(title="Held-out loss", ylabel="fvu")
    for ax in (left, middle):
        ax.set(xscale="log", yscale="log", xlabel="n_latents")
        style.size_ticks(ax.xaxis, found["exponents"][0]["sizes"])
        ax.legend(loc="best")
    style.count_ticks(left)
    _spent(right, found["latents"])
    return figure


def _against_size(ax: Axes, runs: list[dict], block: dict, name: str, look: tuple[str, str]) -> None:
    here = [run for run in runs if run["zipf_exponent"] == block["zipf_exponent"] and run["n_tokens"] == block["n_tokens"]]
    low, high = block[name]["interval"]
    words = rf"$\alpha$ = {block['alpha']:g}: exponent {block[name]['measured']:.2f} [{low:.2f}, {high:.2f}]"
    ax.plot([run["n_latents"] for run in here], [run[name] for run in here], look[1], color=look[0], markersize=5,
            markerfacecolor="white", label=words)  # fmt: skip
    best = {run["n_latents"]: run[f"{name}_best"] for run in here}
    ax.plot(sorted(best), [best[n] for n in sorted(best)], "--", color=look[0], linewidth=1.3,
            label=f"best division: {block[name]['best']:.2f}")  # fmt: skip


def _spent(ax: Axes, latents: list[dict]) -> None:
    steepest = max(row["zipf_exponent"] for row in latents)
    largest = max(row["n_latents"] for row in latents if row["zipf_exponent"] == steepest)
    shown = [row for row in latents if row["zipf_exponent"] == steepest and row["n_latents"] == largest]
    colours = style.ladder([row["n_tokens"] for row in shown])
    for row in shown:
        spent = np.array(row["measured"])
        on = spent > 0
        ax.plot(np.array(row["rates"])[on], spent[on], "o", color=colours[row["n_tokens"]], markersize=4,
                label=f"{style.short(row['n_tokens'])} tokens")  # fmt: skip
    best = np.array(shown[0]["best"])
    ax.plot(np.array(shown[0]["rates"])[best > 0], best[best > 0], "--", color=style.INK, linewidth=1.3, label="best division")
    ax.set(xscale="log", yscale="log", xlabel="rate of the feature (per token)", ylabel="latents (mean of seeds)",
           title=f"Latents per feature, n_latents = {largest}")  # fmt: skip
    ax.legend(loc="best")
