"""The best size against compute by all three estimates, over the vertices of the valleys."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import law_points, style

LOOKS = {"parametric": (style.LAW, "-"), "isoflop": (style.FLOOR, (0, (5, 2))), "frontier": (style.INK, (0, (1, 1.6)))}
WORDS = {"parametric": "surface", "isoflop": "iso-FLOP", "frontier": "frontier"}


def draw(table: pd.DataFrame, fits: dict) -> Figure:
    """x: compute, y: best N (left) and D (right), log-log; vertices filled where resolved, else the lowest run, hollow."""
    figure, axes = style.panels(2, 9.8, 4.4)
    found = fits.get("allocation") or {}
    for ax, column in zip(axes, ("N", "D"), strict=True):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel(law_points.name(table, "C"))
        ax.set_ylabel("best " + law_points.name(table, column))
        budgets = (fits.get("isoflop") or {}).get("budgets") or []
        if "estimates" not in found and not budgets:
            law_points.blank(ax, law_points.reason(fits, "allocation"))
            continue
        handles = _lines(ax, found, budgets, column) if "estimates" in found else []
        handles += _vertices(ax, budgets, column)
        ax.set_ylim(ax.get_ylim()[0], ax.get_ylim()[1] * (ax.get_ylim()[1] / ax.get_ylim()[0]) ** 0.35)
        ax.legend(handles=handles, loc="upper left")
        style.count_ticks(ax)
    return figure


def _lines(ax: Axes, found: dict, budgets: list[dict], column: str) -> list[Line2D]:
    """Each method's power law, through its prediction at the target, drawn over the budgets and up to the target."""
    handles, key = [], "a" if column == "N" else "b"
    low = min([b["flops"] for b in budgets], default=found["flops"] / 1e3)
    x = np.geomspace(low / 1.5, found["flops"], 50)
    for method, one in found["estimates"].items():
        if key not in one:
            handles.append(Line2D([], [], linestyle="none", label=f"{WORDS[method]}: no estimate"))
            continue
        colour, stroke = LOOKS[method]
        at = one[column]
        y = at["estimate"] * (x / found["flops"]) ** one[key]["estimate"]
        ax.plot(x, y, color=colour, linestyle=stroke, linewidth=1.5, zorder=3)
        if limits := style.bounds(at):
            shift = {"parametric": 1.0, "isoflop": 1.09, "frontier": 1.18}[method]
            ax.plot([found["flops"] * shift] * 2, limits, color=colour, linewidth=2.2, alpha=0.8, solid_capstyle="butt", zorder=3)
        label = f"{WORDS[method]}, ${key}$ = {style.range_text(one[key])}"
        handles.append(Line2D([], [], color=colour, linestyle=stroke, linewidth=1.5, label=label))
    return handles


def _vertices(ax: Axes, budgets: list[dict], column: str) -> list[Line2D]:
    spot = {"marker": "o", "linestyle": "none", "color": style.INK, "markersize": 5, "zorder": 6}
    good, other = [b for b in budgets if b[column]], [b for b in budgets if not b[column]]
    for budget in good:
        limits = style.bounds(budget[column])
        if limits and all(map(math.isfinite, limits)):
            ax.plot([budget["flops"]] * 2, limits, color=style.INK, linewidth=1.1, zorder=5)
    ax.plot([b["flops"] for b in good], [b[column]["estimate"] for b in good], **spot)
    handles = [Line2D([], [], **spot, label="minimum of a resolved valley")] if good else []
    if other:
        ax.plot([b["flops"] for b in other], [b["lowest_sampled"][column] for b in other], **spot | {"markerfacecolor": "white"})
        handles.append(Line2D([], [], **spot | {"markerfacecolor": "white"}, label="lowest run, not resolved"))
    return handles
