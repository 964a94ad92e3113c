"""Kinds of SAE beside each other: quality against l0 at one size, and against size at one l0."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.frontiers import wanted_l0
from analysis.size_and_k import longest
from analysis.sweep_points import at_best_rate

MEASURES = {"fvu": "fraction of variance unexplained", "delta_ce": "increase of LM loss (nats per token)"}
MARKERS = "osD^vPX*"
COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7")  # Okabe and Ito: distinct to all eyes


def draw(table: pd.DataFrame, fits: dict) -> Figure:  # noqa: ARG001 (all sweep figures share one signature)
    """Rows: fvu, delta_ce. Left, x: measured l0 at the size with the most wanted l0s. Right, x: n_latents at the wanted l0 with
    the most sizes. Log-log; one line per kind through the means over seeds at the best learning rate, bars from the least to the
    largest of them."""
    figure = Figure(figsize=(10.5, 7.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    rows = table[table["state"] == "done"].copy()
    rows["wanted_l0"] = wanted_l0(rows)
    kinds = enumerate(sorted(rows["kind"].unique()))
    looks = {kind: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, kind in kinds}
    size, l0 = most(rows, "n_latents", "wanted_l0"), most(rows, "wanted_l0", "n_latents")
    same = longest(rows)
    for row, (measure, label) in zip(axes, MEASURES.items(), strict=True):
        lines(row[0], same[same["n_latents"] == size], "l0", measure, looks)
        lines(row[1], same[same["wanted_l0"] == l0], "n_latents", measure, looks)
        row[0].set(xlabel=f"$L_0$, active latents per held-out token (n_latents = {size or 0:,.0f})", ylabel=label)
        row[1].set(xlabel=f"n_latents ({_matched(same, l0)})", ylabel=label)
    handles = [Line2D([], [], color=c, marker=m, markersize=5, label=kind) for kind, (c, m) in looks.items()]
    style.legend_right(axes[0][1], handles, "kind of SAE")
    return figure


def most(rows: pd.DataFrame, of: str, varied: str) -> float | None:
    """The value of column `of` under which `varied` and kinds take the most values; the smaller of equals."""
    known = rows.dropna(subset=[of, varied]).drop_duplicates([of, varied, "kind"])
    counts = known.groupby(of).size().sort_index()
    return None if counts.empty else float(counts.idxmax())


def lines(ax: Axes, rows: pd.DataFrame, x: str, y: str, looks: dict) -> None:
    rows = at_best_rate(rows[(rows[x] > 0) & (rows[y] > 0)], y, ["kind", "n_latents", "wanted_l0"])
    ax.set_xscale("log")
    if rows.empty:
        style.nothing_yet(ax, "not measured yet")
        return
    for kind, group in rows.groupby("kind"):
        colour, marker = looks[kind]
        cells = group.groupby(["n_latents", "wanted_l0"], dropna=False)
        mean = cells[[x, y]].mean().assign(runs=cells["run_id"].agg(list)).reset_index(drop=True).sort_values(x)
        (line,) = ax.plot(mean[x], mean[y], color=colour, marker=marker, markersize=4.5, linewidth=1.3)
        ax.vlines(cells[x].mean(), cells[y].min(), cells[y].max(), color=colour, linewidth=2.5, alpha=0.4)
        style.of_runs(line, mean["runs"])
    style.log_y(ax, rows[y].to_numpy(float))
    if x == "n_latents":
        style.size_ticks(ax.xaxis, sorted(int(n) for n in rows[x].unique()))
    else:
        low, high = ax.get_xlim()
        style.size_ticks(ax.xaxis, [v for v in 2 ** np.arange(16) if low <= v <= high])


def _matched(rows: pd.DataFrame, l0: float | None) -> str:
    """Which l0, and how far the measured ones are from it."""
    if l0 is None:
        return "no common $L_0$ yet"
    found = rows.loc[rows["wanted_l0"] == l0, "l0"] / l0
    return f"$L_0$ {found.min() * l0:.0f} to {found.max() * l0:.0f}, wanted {l0:g}"
