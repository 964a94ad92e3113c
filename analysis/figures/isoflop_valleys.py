"""Iso-FLOP valleys: loss against dictionary size at each compute budget, with the fitted minimum."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.figures.loss_vs_compute import y_label
from analysis.valleys import BRACKETED


def draw(table: pd.DataFrame, fits: dict) -> Figure:
    """x: n_latents, y: the law's y; log-log; one colour per budget (FLOPs)."""
    figure, (ax,) = style.panels(1, 7.8, 4.9)
    y = fits["axes"]["y"]
    rows = table[(table["state"] == "done") & table["target_flops"].notna() & (table[y] > 0)]
    ax.set_xscale("log")
    style.log_y(ax, rows[y].to_numpy(float))
    ax.set_xlabel("dictionary size n_latents")
    ax.set_ylabel(y_label(fits))
    if rows.empty:
        style.nothing_yet(ax, "no finished runs yet")
        return figure
    budgets = [b for b in fits["budgets"] if b["points"]]
    colours = style.ladder([b["target_flops"] for b in budgets], "plasma")
    handles = [_valley(ax, rows, budget, colours[budget["target_flops"]], y) for budget in budgets]
    style.size_ticks(ax.xaxis, sorted({int(n) for n in rows["n_latents"]}))
    lowest = min([b["y_opt"]["estimate"] for b in budgets if b["y_opt"]], default=np.inf)
    ax.set_ylim(min(ax.get_ylim()[0], lowest / 1.15), ax.get_ylim()[1])
    star = {"marker": "*", "linestyle": "none", "markersize": 12, "color": "0.4", "markeredgecolor": "white"}
    if optima := [b["n_opt"] for b in budgets if b["n_opt"]]:
        label = "minimum" + style.over_seeds(optima)
        handles += [Line2D([], [], linestyle="none"), Line2D([], [], **star, label=label)]
    style.legend_right(ax, handles, "budget $C$ (dense FLOPs)")
    return figure


def _valley(ax: Axes, rows: pd.DataFrame, budget: dict, colour: tuple, y: str) -> Line2D:
    seeds = rows[rows["target_flops"] == budget["target_flops"]]
    n = [point["n_latents"] for point in budget["points"]]
    mean = [point["y"] for point in budget["points"]]
    good = budget["status"] == BRACKETED
    face = colour if good else "white"
    ax.plot(n, mean, color=colour, linewidth=0.9, linestyle="-" if good else ":", zorder=2)
    (dots,) = ax.plot(seeds["n_latents"], seeds[y], "o", color=colour, markersize=2.2, alpha=0.7, zorder=3)
    style.of_runs(dots, seeds["run_id"])
    (means,) = ax.plot(n, mean, "o", color=colour, markerfacecolor=face, markersize=5.5, zorder=4)
    style.of_runs(means, [list(seeds.loc[seeds["n_latents"] == size, "run_id"]) for size in n])
    label = style.power_of_ten(budget["target_flops"]) + ("" if good else "  not bracketed")
    if good:
        _minimum(ax, n, mean, budget, colour)
    return Line2D([], [], color=colour, marker="o", markerfacecolor=face, linestyle="-" if good else ":", label=label)


def _minimum(ax: Axes, n: list[int], mean: list[float], budget: dict, colour: tuple) -> None:
    """The parabola over its three points, its vertex, and the interval of the vertex."""
    best = int(np.argmin(mean))
    x, z = np.log(n[best - 1 : best + 2]), np.log(mean[best - 1 : best + 2])
    fine = np.linspace(x[0], x[2], 60)
    ax.plot(np.exp(fine), np.exp(np.polyval(np.polyfit(x - x[1], z, 2), fine - x[1])), color=colour, linewidth=2.6, alpha=0.5)
    at, low = budget["n_opt"]["estimate"], budget["y_opt"]["estimate"]
    if limits := style.bounds(budget["n_opt"]):
        ax.plot(limits, [low, low], color=style.INK, linewidth=1.4, zorder=5)
    ax.plot(at, low, "*", color=colour, markeredgecolor=style.INK, markeredgewidth=0.7, markersize=13, zorder=6)
