"""Kinds of SAE beside each other: quality against l0 at one size, and against size at one l0."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.frontiers import wanted_l0
from analysis.size_and_k import longest, most
from analysis.sweep_points import at_best_rate

MEASURES = {"fvu": "fraction of variance unexplained", "delta_ce": "increase of LM loss (nats per token)"}


def draw(table: pd.DataFrame, fits: dict) -> Figure:  # noqa: ARG001 (all sweep figures share one signature)
    """Rows: fvu, delta_ce. Left, x: measured l0 at the size with the most wanted l0s. Right, x: n_latents at the wanted l0 with
    the most sizes. Log-log; one line per kind through the means over seeds at the best learning rate, bars from the least to the
    largest of them."""
    figure = Figure(figsize=(10.5, 7.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    rows = table[table["state"] == "done"].copy()
    rows["wanted_l0"] = wanted_l0(rows)
    looks = style.looks(rows["kind"])
    size, l0 = most(rows, "n_latents", "wanted_l0"), most(rows, "wanted_l0", "n_latents")
    same = longest(rows)
    for row, (measure, label) in zip(axes, MEASURES.items(), strict=True):
        lines(row[0], same[same["n_latents"] == size], "l0", measure, looks)
        lines(row[1], same[same["wanted_l0"] == l0], "n_latents", measure, looks)
        row[0].set(xlabel=f"$L_0$, active latents per held-out token (n_latents = {size or 0:,.0f})", ylabel=label)
        row[1].set(xlabel=f"n_latents ({_matched(same, l0)})", ylabel=label)
    style.legend_of_kinds(axes[0][1], looks)
    return figure


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
