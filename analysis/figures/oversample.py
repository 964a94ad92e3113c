"""Presence of the same words in two training mixes that show them unequally often."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style

LOOKS = {"trained": (style.LAW, "o"), "untrained": (style.FLOOR, "s")}


def draw(found: dict) -> Figure:
    """`found` is oversample.json of benchmarks.oversample. Left: shares present at the first threshold; right: rho."""
    figure, (left, right) = style.panels(2, 11.0, 4.4)
    _shares(left, [row for row in found["shares"] if row["tau"] == found["taus"][0]])
    _rho(right, found["rho"], found["taus"])
    return figure


def _shares(ax: Axes, rows: list[dict]) -> None:
    rows = [row for row in rows if row["n_words"]]
    for at, row in enumerate(rows):
        colour, marker = LOOKS[row["dictionary"]]
        ax.plot([at, at], [row["rare"], row["frequent"]], color=colour, linewidth=1.2, zorder=2)
        ax.plot(at, row["rare"], marker, color=colour, markerfacecolor="white", markersize=6, zorder=3)
        ax.plot(at, row["frequent"], marker, color=colour, markersize=6, zorder=3)
        low, high = row["difference_interval"]
        ax.annotate(f"{row['difference']:+.0%} [{low:+.0%}, {high:+.0%}]", (at, max(row["rare"], row["frequent"])), ha="center",
                    xytext=(0, 9), textcoords="offset points", fontsize=8)  # fmt: skip
    ax.set_xticks(range(len(rows)), [f"{row['dictionary']}\n{row['n_words']} {row['words']} words" for row in rows])
    ax.set(ylabel="share present", title="Hollow: in the mix that shows them less; filled: more", xlim=(-0.6, len(rows) - 0.4))
    ax.set_ylim(0, max([0.1, *(max(row["frequent"], row["rare"]) for row in rows)]) * 1.25)


def _rho(ax: Axes, rows: list[dict], taus: list[float]) -> None:
    ax.axhline(1, color=style.INK, linewidth=1, linestyle=":")
    ax.axhline(0, color=style.QUIET, linewidth=1, linestyle=":")
    for kind, (colour, marker) in LOOKS.items():
        here = [row for row in rows if row["dictionary"] == kind and row["rho"] is not None]
        x = np.array([sorted(taus).index(row["tau"]) for row in here]) + (0.08 if kind == "untrained" else -0.08)
        y = np.array([row["rho"] for row in here])
        ends = np.array([row["rho_interval"] for row in here]).reshape(-1, 2)
        ax.errorbar(x, y, yerr=np.abs(ends.T - y), fmt=marker, color=colour, capsize=3, markersize=6, markerfacecolor="white",
                    label=kind)  # fmt: skip
    ax.set_xticks(range(len(taus)), [f"F1 >= {tau:g}" for tau in sorted(taus)])
    ax.set(ylabel=r"$\rho$ = within-word / between-word slope", title="Follows the mix (1) or something else (0)")
    ax.legend(loc="best")
