"""The best learning rate along a ladder of compute budgets."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import style


def draw(table: pd.DataFrame, fits: dict) -> Figure:  # noqa: ARG001 (all sweep figures share one signature)
    """Left: loss against rate, one colour per budget, a star at the parabola's vertex. Right: those against compute."""
    figure, (left, right) = style.panels(2, 10.4)
    block = fits["learning_rate"]["ladder"]
    rungs = block["rungs"]
    colours = style.ladder([rung["C"] for rung in rungs])
    for rung in rungs:
        lr, loss = np.array(rung["points"]).T
        words = f"{style.power_of_ten(rung['C'])}, n = {rung['N']:,.0f}"
        left.plot(lr, loss, "o-", color=colours[rung["C"]], markersize=4, linewidth=1.3, label=words)
        best = rung["lr"]
        left.axvline(best["estimate"], ymin=0, ymax=0.05, color=colours[rung["C"]], linewidth=2.2)
        if limits := style.bounds(best):
            right.plot([rung["C"]] * 2, limits, color=colours[rung["C"]], linewidth=1.4)  # they need not hold the estimate
        right.plot(rung["C"], best["estimate"], "*", markersize=10, color=colours[rung["C"]])
    c = np.array([rung["C"] for rung in rungs])
    centre, level = np.log(c).mean(), np.mean([np.log(rung["lr"]["estimate"]) for rung in rungs])
    label = f"C^r, r = {style.range_text(block['exponent'], 3)}"
    right.plot(c, np.exp(level + block["exponent"]["estimate"] * (np.log(c) - centre)), color=style.LAW, label=label)
    for ax in (left, right):
        ax.set_xscale("log")
    style.log_y(left, np.array([y for rung in rungs for _, y in rung["points"]]))
    style.log_y(right, np.array([rung["lr"]["estimate"] for rung in rungs]))
    left.set(xlabel="learning rate", ylabel="held-out objective / held-out variance")
    right.set(xlabel=style.X_COMPUTE, ylabel="best learning rate")
    left.set_ylim(top=left.get_ylim()[1] * 1.45)  # room for the legend
    left.legend(title="compute (FLOPs), size", loc="upper center", ncols=2)
    right.legend()
    return figure
