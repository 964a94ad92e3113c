"""L(n, k): the loss by dictionary size and by the number of active latents, and other kinds at the same l0."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.frontiers import wanted_l0
from analysis.result import FitResult
from analysis.size_and_k import longest
from analysis.sweep_points import at_best_rate


def draw(table: pd.DataFrame, fits: dict) -> Figure:
    """Left: loss against n_latents, one colour per k, the fitted surface as lines. Right: the kinds beside each other at every
    l0 that several were trained for."""
    figure, (left, right) = style.panels(2, 11.2)
    rows = longest(table[table["state"] == "done"]).copy()
    rows["wanted_l0"] = wanted_l0(rows)
    rows = at_best_rate(rows[rows["fvu"] > 0], "fvu", ["kind", "n_latents", "wanted_l0"])
    block = fits["size_by_k"]
    _surface(left, rows[rows["kind"] == block["kind"]], block)
    _kinds(right, rows)
    for ax in (left, right):
        ax.set_xscale("log")
        ax.set(xlabel="n_latents", ylabel="fraction of variance unexplained")
        style.log_y(ax, rows["fvu"].to_numpy(float))
        style.size_ticks(ax.xaxis, sorted(int(n) for n in rows["n_latents"].unique()))
    return figure


def _surface(ax, rows: pd.DataFrame, block: dict) -> None:  # noqa: ANN001
    colours = style.ladder(list(rows["wanted_l0"]))
    fit = FitResult.from_dict(block["fit"])
    sizes = np.geomspace(rows["n_latents"].min(), rows["n_latents"].max(), 40)
    for k, group in rows.groupby("wanted_l0"):
        points = ax.scatter(group["n_latents"], group["fvu"], s=16, color=colours[k], zorder=3)
        style.of_runs(points, group["run_id"].tolist())
        law = fit.predict({"N": sizes, "K": np.full(len(sizes), group["l0"].mean())})
        ax.plot(sizes, law["estimate"], color=colours[k], lw=1.2)
    ax.set_title(f"{block['kind']}: points and the law {block['law']}")
    style.legend_right(ax, [Line2D([], [], color=c, marker="o", ms=4, label=f"{k:g}") for k, c in colours.items()], "k")


def _kinds(ax, rows: pd.DataFrame) -> None:  # noqa: ANN001
    shared = [l0 for l0, group in rows.groupby("wanted_l0") if group["kind"].nunique() > 1]
    looks = style.looks(rows.loc[rows["wanted_l0"].isin(shared), "kind"])
    for l0, style_of in zip(shared, ("-", "--", ":", "-.") * 4, strict=False):
        for kind, group in rows[rows["wanted_l0"] == l0].groupby("kind"):
            cells = group.groupby("n_latents")["fvu"]
            colour, marker = looks[kind]
            ax.plot(cells.mean().index, cells.mean(), style_of, color=colour, marker=marker, ms=4.5, lw=1.3)
            ax.vlines(cells.mean().index, cells.min(), cells.max(), color=colour, lw=2.5, alpha=0.4)
    if not shared:
        style.nothing_yet(ax, "one kind only")
    ax.set_title("kinds at the same $L_0$: " + ", ".join(f"{l0:g}" for l0 in shared))
    style.legend_of_kinds(ax, looks)
