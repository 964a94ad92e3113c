"""Loss against learning rate, one panel per horizon, and the best rate that the joint law gives."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.figures import law_points, style
from analysis.forecast import learning_rate
from analysis.result import FitResult

MOST_PANELS = 4


def draw(table: pd.DataFrame, fits: dict) -> Figure:  # noqa: ARG001 (all sweep figures share one signature)
    """x: learning rate, y: loss, log-log; one colour per size; a tick at the law's best rate, a ring at a best on the edge."""
    record = fits.get("learning_rate") or {}
    if "points" not in record:
        figure, (ax,) = style.panels(1, 6, 3.6)
        ax.set_xscale("log")
        ax.set_xlabel("learning rate")
        ax.set_ylabel("loss")
        law_points.blank(ax, law_points.reason(fits, "learning_rate"))
        return figure
    points = pd.DataFrame(record["points"])
    sizes = points.groupby("D")["N"].nunique()
    horizons = sorted(sizes.index[sizes == sizes.max()])  # where sizes can be compared
    shown = [horizons[round(i)] for i in np.linspace(0, len(horizons) - 1, min(len(horizons), MOST_PANELS))]
    figure, axes = style.panels(len(shown), 3.3 * len(shown) + 1.4, 4.0)
    fit = FitResult.from_dict(record["fit"])
    colours = style.ladder(list(points["N"].unique()))
    edges = {(e["N"], e["D"]) for e in record["edges"]}
    for ax, d in zip(axes, shown, strict=True):
        ax.set_xscale("log")
        style.log_y(ax, points["loss"].to_numpy(float))
        ax.set_xlabel("learning rate")
        ax.set_title(f"{style.short(d)} tokens")
        for n, part in points[points["D"] == d].groupby("N"):
            _size(ax, part.sort_values("lr"), colours[n], (n, d) in edges)
            _best(ax, fit, n, d, colours[n])
        _rate_ticks(ax, points["lr"].to_numpy(float))
    axes[0].set_ylabel("held-out loss; ticks: best rate of the law")
    for ax in axes[1:]:
        ax.set_ylabel("")
        ax.set_yticklabels([])
    handles = [h for h in axes[0].get_lines() if not h.get_label().startswith("_")]
    style.legend_right(axes[-1], handles, "n_latents")
    return figure


def _size(ax: Axes, part: pd.DataFrame, colour: tuple, at_edge: bool) -> None:
    ax.plot(part["lr"], part["loss"], "o-", color=colour, markersize=4, linewidth=1.3, label=f"{part['N'].iloc[0]:,.0f}")
    if at_edge:
        best = part.loc[part["loss"].idxmin()]
        ax.plot(best["lr"], best["loss"], "o", markersize=10, markerfacecolor="none", color=colour)


def _rate_ticks(ax: Axes, rates: np.ndarray) -> None:
    """About five of the rates that were tried, written out."""
    tried = np.unique(rates)
    shown = tried[:: max(1, -(-len(tried) // 5))]
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    ax.set_xlim(tried.min() / 1.35, tried.max() * 1.35)


def _best(ax: Axes, fit: FitResult, n: float, d: float, colour: tuple) -> None:
    rate = learning_rate(fit, {"N": n, "D": d})["estimate"]
    if rate is not None:
        ax.axvline(rate, ymin=0, ymax=0.05, color=colour, linewidth=2.2)
