"""Kinds of SAE at equal compute: counted as a dense SAE's, and as the kernels executed it."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from analysis import frontiers
from analysis.figures import style

LABELS = {"flops_dense": style.X_COMPUTE, "flops_measured": "FLOPs the kernels executed"}


def draw(table: pd.DataFrame, fits: dict) -> Figure:
    """Loss against either count: all runs faint, the frontier of each kind as a line through means over seeds."""
    figure, axes = style.panels(2, 11.2)
    y, rows = fits["equal_compute"]["y"], table[table["state"] == "done"]
    compared = frontiers.compared(table, y)
    looks = style.looks(rows["kind"])
    for ax, cost in zip(axes, frontiers.COSTS, strict=True):
        for kind, group in rows.groupby("kind"):
            colour, marker = looks[kind]
            style.of_runs(ax.scatter(group[cost], group[y], s=5, color=colour, alpha=0.25, lw=0), group["run_id"].tolist())
            c, values = frontiers.frontier(compared[compared["kind"] == kind], cost, y)
            ax.plot(np.exp(c), np.exp(values), color=colour, marker=marker, ms=4.5, lw=1.3)
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set(xlabel=LABELS[cost], ylabel="fraction of variance unexplained")
        style.log_y(ax, rows[y].to_numpy(float))
    style.legend_of_kinds(axes[-1], looks)
    return figure
