"""How much of a list a dictionary holds, against its size."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import concept_points as cp
from analysis.figures import style

MOST = 10  # categories drawn: the closed ones first, then those with most concepts


def draw(concepts: pd.DataFrame, presence_fit: dict) -> Figure:  # noqa: ARG001 (every concept figure has these inputs)
    """Left: share of each category's scored concepts that a trained dictionary holds, with 95 % Wilson intervals, against its
    latents. Right: the same, untrained. Solid: a closed list, with all its members; dashed: an open one."""
    figure, (left, right) = style.panels(2, 10.5, 4.6)
    rows = sorted(presence_fit["completeness"], key=lambda row: (not row["closed"], -row["n_concepts"]))[:MOST]
    colours = style.ladder(list(range(len(rows))), "turbo")
    for i, row in enumerate(rows):
        _trained(left, row, colours[i], 1.02 ** (i - len(rows) / 2))
        _untrained(right, row, colours[i])
    left.set_ylabel(f"share of the concepts present (score ≥ {presence_fit['tau']:g})")
    left.set_title("Trained dictionaries")
    right.set_title("Untrained dictionaries (control)")
    sizes = sorted({here["n_latents"] for row in rows for here in row["rows"]})
    for ax in (left, right):
        ax.set_xscale("log")
        style.size_ticks(ax.xaxis, sizes)
        ax.set_xlabel("n_latents")
        ax.set_ylim(-0.03, 1.03)
    style.legend_right(right, left.get_legend_handles_labels()[0], "category: concepts scored / in the list")
    return figure


def _trained(ax: Axes, row: dict, colour: tuple, dodge: float) -> None:
    here = [r for r in row["rows"] if r["share"] is not None]
    x, y = [r["n_latents"] * dodge for r in here], [r["share"] for r in here]
    reach = [[max(0.0, r["share"] - r["interval"][0]) for r in here], [max(0.0, r["interval"][1] - r["share"]) for r in here]]
    names = f" / {row['n_names']}" if row["n_names"] else ""
    words = f"{row['category']}: {row['n_concepts']}{names}{', closed' if row['closed'] else ''}"
    line = cp.STROKES["trained" if row["closed"] else "untrained"][0]
    ax.errorbar(x, y, yerr=reach, color=colour, linestyle=line, marker="o", markersize=4, elinewidth=0.8, label=words)


def _untrained(ax: Axes, row: dict, colour: tuple) -> None:
    here = [r for r in row["rows"] if r["untrained"] is not None]
    if not here:
        style.nothing_yet(ax, "not scored")
        return
    line = cp.STROKES["trained" if row["closed"] else "untrained"][0]
    marks = {"marker": "s", "markersize": 4, "markerfacecolor": "white"}
    ax.plot([r["n_latents"] for r in here], [r["untrained"] for r in here], color=colour, linestyle=line, **marks)
