"""A fitted surface over its points: loss against tokens, one colour per size, the largest budget held out."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import law_points, style


def draw(table: pd.DataFrame, fits: dict) -> Figure:
    """x: tokens D, y: loss, log-log. Filled points were fitted, hollow ones (the largest budget) predicted."""
    figure, (ax,) = style.panels(1, 8.2, 4.9)
    ax.set_xscale("log")
    ax.set_xlabel(law_points.name(table, "D"))
    ax.set_ylabel("loss")
    fit = law_points.stored(fits, "surface", "below", "fit") or law_points.stored(fits, "surface", "fit")
    if fit is None:
        law_points.blank(ax, law_points.reason(fits, "surface"))
        return figure
    rows = law_points.points(table)
    below = fits["surface"].get("below")
    held = rows["C"].to_numpy(float) >= below["cut"] if below else np.zeros(len(rows), bool)
    which = law_points.groups(rows["N"].to_numpy(float))
    style.log_y(ax, rows["loss"].to_numpy(float))
    ax.set_ylabel(f"{law_points.name(table, 'loss')}" if "state" not in table else "held-out objective / held-out variance")
    colours = style.ladder(list(np.unique(which)))
    handles = [_size(ax, fit, rows[which == g], held[which == g], colours[g]) for g in np.unique(which)]
    spot = {"marker": "o", "linestyle": "none", "color": style.INK, "markersize": 4.5}
    handles += [Line2D([], [], linestyle="none"), Line2D([], [], **spot, label="fitted")]
    if held.any():
        handles.append(Line2D([], [], **spot, markerfacecolor="white", label="held out, predicted"))
    handles.append(Line2D([], [], color=style.INK, linewidth=1.4, label=f"{fit.law.name}, 95 % band"))
    style.legend_right(ax, handles, "size N" if "state" not in table else "dictionary size\nn_latents")
    return figure


def _size(ax: Axes, fit, rows: pd.DataFrame, held: np.ndarray, colour: tuple) -> Line2D:
    """One size, or one bin of sizes at its geometric mean."""
    n = float(np.exp(np.log(rows["N"]).mean()))
    fine = np.geomspace(rows["D"].min() / 1.25, rows["D"].max() * 1.25, 60)
    curve = fit.predict({"N": np.full(60, n), "D": fine})
    ax.plot(fine, curve["estimate"], color=colour, linewidth=1.4, zorder=2)
    if np.isfinite(curve["curve_lo"]).all():
        ax.fill_between(fine, curve["curve_lo"], curve["curve_hi"], color=colour, alpha=0.18, linewidth=0, zorder=1)
    for part, face in ((rows[~held], colour), (rows[held], "white")):
        (dots,) = ax.plot(part["D"], part["loss"], "o", color=colour, markerfacecolor=face, markersize=4.5, zorder=3)
        style.of_runs(dots, part.get("run_id", []))
    low, high = rows["N"].min(), rows["N"].max()
    label = style.short(n) if high < 1.01 * low else f"{style.short(low)} to {style.short(high)}"
    return Line2D([], [], color=colour, linewidth=1.4, marker="o", markersize=3.5, label=label)
