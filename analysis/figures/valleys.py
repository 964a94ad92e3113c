"""Iso-FLOP valleys of any table: the polynomial through each budget's sizes, its vertex, hollow when not resolved."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import law_points, style
from analysis.valleys import BRACKETED

MOST = 14


def draw(table: pd.DataFrame, fits: dict) -> Figure:
    """x: size N (log), y: loss (log); one colour per budget, at most 14 of them, those with most sizes first."""
    figure, (ax,) = style.panels(1, 8.2, 4.9)
    ax.set_xscale("log")
    ax.set_xlabel(law_points.name(table, "N"))
    ax.set_ylabel("held-out objective / held-out variance" if "state" in table else "loss")
    record = fits.get("isoflop") or {}
    budgets = [b for b in record.get("budgets", []) if b["n_sizes"] >= 3]
    if not budgets:
        law_points.blank(ax, law_points.reason(fits, "isoflop"))
        return figure
    shown = sorted(sorted(budgets, key=lambda b: (b["status"] != BRACKETED, -b["n_sizes"]))[:MOST], key=lambda b: b["flops"])
    style.log_y(ax, np.array([p["loss"] for b in shown for p in b["points"]]))
    colours = style.ladder([b["flops"] for b in shown], "plasma")
    handles = [_budget(ax, b, record["conventions"], colours[b["flops"]]) for b in shown]
    star = {"marker": "*", "linestyle": "none", "markersize": 12, "color": "0.4", "markeredgecolor": "white"}
    if any(b["status"] == BRACKETED for b in shown):
        handles += [Line2D([], [], linestyle="none"), Line2D([], [], **star, label="minimum, 95 %")]
    if len(budgets) > len(shown):
        handles.append(Line2D([], [], linestyle="none", label=f"{len(budgets) - len(shown)} more not shown"))
    style.legend_right(ax, handles, "budget $C$ (FLOPs)")
    return figure


def _budget(ax: Axes, budget: dict, used: dict, colour: tuple) -> Line2D:
    good = budget["status"] == BRACKETED
    n = np.array([p["N"] for p in budget["points"]])
    loss = np.array([p["loss"] for p in budget["points"]])
    face = colour if good else "white"
    ax.plot(n, loss, "o", color=colour, markerfacecolor=face, markersize=4.5, zorder=4)
    if good:
        x, y = np.log(n), np.log(loss) if used["scale"] == "ln_loss" else loss
        curve = np.polynomial.Polynomial.fit(x, y, used["degree"])
        fine = np.linspace(x.min(), x.max(), 80)
        value = curve(fine)
        ax.plot(np.exp(fine), np.exp(value) if used["scale"] == "ln_loss" else value, color=colour, linewidth=1.5, zorder=3)
        if limits := style.bounds(budget["N"]):
            ax.plot(limits, [budget["loss"]] * 2, color=style.INK, linewidth=1.4, zorder=5)
        ax.plot(budget["N"]["estimate"], budget["loss"], "*", color=colour, markeredgecolor=style.INK, markeredgewidth=0.7,
                markersize=12, zorder=6)  # fmt: skip
    label = style.power_of_ten(budget["flops"]) + ("" if good else "  not resolved")
    stroke = "-" if good and math.isfinite(budget["flops"]) else "none"
    return Line2D([], [], color=colour, marker="o", markerfacecolor=face, linestyle=stroke, label=label)
