"""Loss against compute: one curve per dictionary size, the frontier of optima, the fitted law."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.sweep_points import at_best_rate


def draw(table: pd.DataFrame, fits: dict) -> Figure:
    """x: flops_dense of each run (FLOPs), y: the law's y (see `fits["axes"]`); log-log."""
    figure, (ax,) = style.panels(1, 8.2, 4.9)
    y = fits["axes"]["y"]
    rows = table[(table["state"] == "done") & table["target_flops"].notna() & (table[y] > 0)]
    ax.set_xscale("log")
    style.log_y(ax, rows[y].to_numpy(float))
    ax.set_xlabel(style.X_COMPUTE)
    ax.set_ylabel(y_label(fits))
    if rows.empty:
        style.nothing_yet(ax, "no finished runs yet")
        return figure
    handles = size_curves(ax, rows, y, y)
    low, high = rows["flops_dense"].min(), rows["flops_dense"].max()
    ax.set_xlim(low / 1.6, high * 1.6)
    handles += [Line2D([], [], linestyle="none")] + _frontier(ax, fits)
    style.legend_right(ax, handles, "dictionary size\nn_latents")
    return figure


def y_label(fits: dict) -> str:
    """The y axis in words, with the name it has in the table."""
    words = {"objective": "held-out objective / held-out variance", "delta_ce": "increase of LM loss (nats per token)"}
    words["fvu"] = "fraction of variance unexplained"
    name = fits["axes"]["y"]
    topk = name == "objective" and (fits["recipe"] or {}).get("kind") == "topk"
    return words.get(name, name) + (" (= FVU for topk)" if topk else "")


def size_curves(ax: Axes, rows: pd.DataFrame, y: str, loss: str) -> list[Line2D]:
    """One line per n_latents through the mean over seeds at the learning rate with the lowest `loss`, small dots for all runs;
    gives legend handles."""
    colours = style.ladder([int(n) for n in rows["n_latents"]])
    handles = []
    for n, colour in colours.items():
        of_size = rows[rows["n_latents"] == n]
        mean = at_best_rate(of_size[of_size[loss] > 0], loss, ["target_flops"]).groupby("target_flops")[["flops_dense", y]].mean()
        ax.plot(mean["flops_dense"], mean[y], color=colour, linewidth=1.4, zorder=2)
        (dots,) = ax.plot(of_size["flops_dense"], of_size[y], "o", color=colour, markersize=2.6, zorder=3)
        style.of_runs(dots, of_size["run_id"])
        handles.append(Line2D([], [], color=colour, marker="o", markersize=3, label=f"{n:,}"))
    return handles


def _frontier(ax: Axes, fits: dict) -> list[Line2D]:
    """Optima (filled), best runs of unbracketed budgets (hollow), laws with bands; gives legend handles."""
    optima = [b for b in fits["budgets"] if b["y_opt"]]
    others = [b for b in fits["budgets"] if not b["y_opt"] and b["points"]]
    spot = {"marker": "D", "linestyle": "none", "color": style.INK, "markersize": 5.5, "zorder": 6}
    hollow = {**spot, "markerfacecolor": "white"}
    ax.plot([b["flops_dense"] for b in optima], [b["y_opt"]["estimate"] for b in optima], **spot)
    ax.plot([b["flops_dense"] for b in others], [b["best_sampled"]["y"] for b in others], **hollow)
    handles = [Line2D([], [], **spot, label="fitted minimum")] if optima else []
    if others:
        handles.append(Line2D([], [], **hollow, label="best run, not bracketed"))
    loss, floor = fits["laws"]["loss"], fits["laws"]["loss_floor"]
    if loss:
        label = r"$L^* \propto C^{-a}$" + f"\n$a$ = {style.range_text(loss['exponent'], 3)}"
        style.band(ax, loss, style.LAW, label)
        handles.append(Line2D([], [], color=style.LAW, linewidth=1.6, label=label))
    if floor and floor["status"] != "not_converged":
        label = r"$L^* = E + A\,C^{-a}$" + ("" if floor["identified"] else "  (E not identified)")
        label += f"\n$a$ = {style.range_text(floor['exponent'], 3)}\n$E$ = {style.range_text(floor['floor'], 3)}"
        ax.plot(
            floor["band"]["flops_dense"],
            floor["band"]["estimate"],
            color=style.FLOOR,
            linewidth=1.4,
            linestyle=(0, (4, 2)),
            zorder=4,
        )
        handles.append(Line2D([], [], color=style.FLOOR, linewidth=1.4, linestyle=(0, (4, 2)), label=label))
    _room(ax, fits)
    return handles


def _room(ax: Axes, fits: dict) -> None:
    """Keep the frontier inside the panel."""
    low, high = ax.get_ylim()
    seen = [b["y_opt"]["estimate"] for b in fits["budgets"] if b["y_opt"]]
    ax.set_ylim(min([low, *(np.array(seen) / 1.15)]), high)
