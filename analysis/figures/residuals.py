"""Residuals of a fitted surface against each axis: a law that bends the wrong way shows here first."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import law_points, style


def draw(table: pd.DataFrame, fits: dict) -> Figure:
    """Panels: N, D, C (log). y: ln loss of the row minus that of the law, 0.01 is about 1 %."""
    figure, axes = style.panels(3, 11.4, 3.9)
    for ax, column in zip(axes, ("N", "D", "C"), strict=True):
        ax.set_xscale("log")
        ax.set_xlabel(law_points.name(table, column))
    axes[0].set_ylabel("ln loss: seen minus law")
    for ax in axes[1:]:
        ax.set_ylabel("residual")
    fit = law_points.stored(fits, "surface", "fit")
    if fit is None:
        law_points.blank(axes[1], law_points.reason(fits, "surface"), width=34)
        return figure
    rows = law_points.points(table)
    reach = 1.15 * np.abs(fit.residuals).max()
    limit = fit.objective["delta"]
    colours = style.ladder(list(np.unique(rows["N"])))
    for ax, column in zip(axes, ("N", "D", "C"), strict=True):
        ax.set_ylim(-reach, reach)
        ax.axhline(0, color=style.INK, linewidth=0.8)
        if limit and limit < reach:
            ax.axhspan(-limit, limit, color=style.QUIET, alpha=0.15, linewidth=0, zorder=0)
        x = rows[column].to_numpy(float)
        dots = ax.scatter(x, fit.residuals, c=[colours[n] for n in rows["N"]], s=14, zorder=3)
        style.of_runs(dots, rows.get("run_id", []))
        _trend(ax, x, fit.residuals)
    shaded = f"; grey: within Huber's threshold ({fit.objective['inside_share']:.0%})" if limit and limit < reach else ""
    axes[0].set_title(f"{fit.law.name}, rms {fit.rms:.2g}{shaded}")
    return figure


def _trend(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """A running median over a fifth of the points, where there are enough for one."""
    if len(x) < 15:
        return
    order, width = np.argsort(x, kind="stable"), max(5, len(x) // 5)
    at = np.arange(0, len(x) - width + 1)
    middle = [np.median(y[order[i : i + width]]) for i in at]
    where = [np.exp(np.log(x[order[i : i + width]]).mean()) for i in at]
    ax.plot(where, middle, color=style.LAW, linewidth=1.5, zorder=4)
