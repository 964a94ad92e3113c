"""Dictionaries of other tools among the sweep's own: error against size, and against l0."""

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import style


def draw(table: pd.DataFrame, fits: dict) -> Figure:
    """x: n_latents, and measured l0; y: fvu on the same held-out set; log-log. Dots: the sweep's runs, by their tokens; stars:
    fits["others"], which `saescale evaluate` measured."""
    figure, axes = style.panels(2, 9.6, 4.2)
    own, others = table[table["state"] == "done"], fits["others"]
    values = pd.concat([own["fvu"], pd.Series([o["metrics"]["fvu"] for o in others], dtype=float)])
    for ax, x in zip(axes, ("n_latents", "l0"), strict=True):
        shown = ax.scatter(own[x], own["fvu"], c=own["n_tokens"], norm="log", cmap="viridis", s=22, zorder=2)
        for i, other in enumerate(others):
            at = other["n_latents"] if x == "n_latents" else other["metrics"]["l0"]
            ax.plot(at, other["metrics"]["fvu"], "*", color=style.LAW, markersize=12, markeredgecolor="white", zorder=3)
            ax.annotate(other["name"], (at, other["metrics"]["fvu"]), xytext=(7, 5 - 11 * (i % 2)), textcoords="offset points",
                        fontsize=8)
        ax.set_xscale("log")
        style.log_y(ax, values.to_numpy(float))
    sizes = {int(n) for n in own["n_latents"]} | {o["n_latents"] for o in others}
    style.size_ticks(axes[0].xaxis, sorted(sizes))
    axes[0].set(xlabel="dictionary size, n_latents", ylabel="fraction of variance unexplained")
    axes[1].set(xlabel="$L_0$, active latents per held-out token")
    if len(own):
        figure.colorbar(shown, ax=axes, label="training tokens of the sweep's runs")
    return figure
