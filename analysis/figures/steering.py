"""What clamping a concept's latent does to the probability of its name, by scale and by size of dictionary."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style

ARMS = {
    "trained": ("its latent", style.LAW, "-", "o"),
    "other": ("another concept's latent", style.FLOOR, "--", "s"),
    "random": ("random direction", style.QUIET, ":", "D"),
    "untrained": ("its latent, untrained", style.INK, "-.", "^"),
}


def draw(steering: dict) -> Figure:
    """`steering` is steering.json. Left: mean change of the name's log-probability against the scale at the largest dictionary,
    one line per arm. Right: the change at the positive scale that was best on the other half of the places, against n_latents;
    bars are two standard errors over concepts."""
    figure, axes = style.panels(2, 10.6, 4.2)
    sizes = sorted({row["n_latents"] for row in steering["rows"]})
    largest = [row for row in steering["rows"] if row["n_latents"] == sizes[-1]]
    scales = np.array(steering["scales"])
    for i, (arm, (_, colour, dash, marker)) in enumerate(ARMS.items()):
        curves = np.array([(np.array(r["first"]) + np.array(r["second"])) / 2 for r in largest if r["arm"] == arm])
        axes[0].plot(scales, curves.mean(0), color=colour, linestyle=dash, marker=marker, markersize=4, linewidth=1.4)
        means, bars = zip(*(_over_concepts(steering, n, arm) for n in sizes), strict=True)
        look = {"color": colour, "linestyle": dash, "marker": marker, "linewidth": 1.4}
        beside = np.array(sizes) * 1.04 ** (i - 1.5)  # so that bars do not hide each other
        axes[1].errorbar(beside, means, bars, markersize=4.5, capsize=2, **look)
    _label(axes, steering, sizes)
    return figure


def chosen_effect(row: dict, scales: np.ndarray) -> float:
    """Change of log-probability at the positive scale that is best on one half of the places, measured on the other half; the
    mean of both ways round. Taking the best scale and its effect from the same places would favour whatever is noisiest."""
    positive = np.flatnonzero(scales > 0)
    first, second = (np.array(row[half])[positive] for half in ("first", "second"))
    return float((second[first.argmax()] + first[second.argmax()]) / 2)


def _over_concepts(steering: dict, n_latents: int, arm: str) -> tuple[float, float]:
    """(mean, two standard errors) of the chosen effect over concepts, each the mean of its seeds where there are several."""
    scales, rows = np.array(steering["scales"]), [r for r in steering["rows"] if (r["n_latents"], r["arm"]) == (n_latents, arm)]
    found = np.array([np.mean(r["by_seed"]) if "by_seed" in r else chosen_effect(r, scales) for r in rows])
    return float(found.mean()), float(2 * found.std(ddof=1) / len(found) ** 0.5) if len(found) > 1 else 0.0


def _label(axes: list[Axes], steering: dict, sizes: list[int]) -> None:
    n = len(steering["concepts"])
    for ax in axes:
        ax.axhline(0, color=style.INK, linewidth=0.7, zorder=1)
    axes[0].set(xlabel="clamped to this multiple of the latent's maximum", ylabel="change of log-probability (nats)",
                title=f"name of the concept, {n} concepts, n_latents {sizes[-1]:,}")
    axes[1].set_xscale("log")
    style.size_ticks(axes[1].xaxis, sizes)
    axes[1].set(xlabel="n_latents", ylabel="change at the best positive multiple (nats)", title="by size of dictionary")
    handles = [Line2D([], [], color=c, linestyle=d, marker=m, markersize=4, label=label) for label, c, d, m in ARMS.values()]
    style.legend_right(axes[1], handles, "clamped")
