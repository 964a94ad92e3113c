"""How often latents fire, by dictionary size and kind: frequency histograms and the share that never does."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import law_points, style
from analysis.firing import chosen, differ, most_shared


def draw(table: pd.DataFrame, fits: dict) -> Figure:
    """Left: share of latents per frequency bin, one curve per size, or per kind at one size. Right: dead share against size.

    The right panel is made of the record's runs and what the table says of them, so older records, whose histograms are of all
    kinds together, show kinds there too.
    """
    record = fits.get("firing") or {}
    runs = _runs(table, record)
    kinds = style.looks([*runs["kind"], *(size["kind"] for size in record.get("sizes", []) if "kind" in size)])
    figure, axes = style.panels(2, 11.6 if len(kinds) > 1 else 10.2, 4.2)
    axes[0].set_xscale("log")
    axes[0].set_xlabel("firing frequency on held-out tokens")
    axes[0].set_ylabel("share of all latents per bin")
    axes[1].set_xscale("log")
    axes[1].set_xlabel("dictionary size n_latents")
    axes[1].set_ylabel("share of latents that never fired")
    if not record.get("sizes"):
        for ax in axes:
            law_points.blank(ax, "no run has recorded how often its latents fire")
        return figure
    _histograms(axes[0], record, kinds, pooled="wanted_l0" not in record and differ(runs))
    _dead(axes[1], runs, kinds, record["n_held_out_tokens"])
    return figure


def _runs(table: pd.DataFrame, record: dict) -> pd.DataFrame:
    """The done rows of the table of which the record has the dead share, with it."""
    dead = {run["run_id"]: run["dead_share"] for run in record.get("runs", []) if "run_id" in run}
    rows = table[(table["state"] == "done") & table["run_id"].isin(dead)]
    return rows.assign(dead_share=rows["run_id"].map(dead))


def _histograms(ax: Axes, record: dict, kinds: dict, pooled: bool) -> None:
    sizes, edges = record["sizes"], np.array(record["edges"])
    if len(kinds) > 1 and "wanted_l0" in record:
        n = most_shared(pd.DataFrame(sizes), "n_latents")
        for size in (s for s in sizes if s["n_latents"] == n):
            ax.stairs(size["share"], edges, color=kinds[size["kind"]][0], linewidth=1.4)
        ax.set_title(f"n_latents = {n:,}, {_wanted(record['wanted_l0'])}")
        return
    colours = style.ladder([s["n_latents"] for s in sizes])
    for size in sizes:
        ax.stairs(size["share"], edges, color=colours[size["n_latents"]], linewidth=1.4, label=f"{size['n_latents']:,}")
    ax.legend(title="n_latents", alignment="left", loc="upper left")
    if pooled:
        ax.set_title("all kinds and settings of a size pooled")
    elif "wanted_l0" in record:
        ax.set_title(_wanted(record["wanted_l0"]))


def _dead(ax: Axes, runs: pd.DataFrame, kinds: dict, tokens: int) -> None:
    """Lines through the means of the runs that stand for their sizes. Dots: those runs, or all where they differ in nothing."""
    shown, l0 = chosen(runs)
    if shown.empty:
        law_points.blank(ax, "the fits name no run of this table: fit again")
        return
    sizes = sorted(int(n) for n in shown["n_latents"].unique())
    compared = differ(runs)
    runs = shown if compared else runs
    if len(kinds) > 1:
        for kind, group in shown.groupby("kind"):
            colour, marker = kinds[kind]
            _dots(ax, group, color=colour, alpha=0.35)
            _means(ax, group, color=colour, marker=marker, markersize=5, linewidth=1.3, zorder=3)
        style.legend_of_kinds(ax, kinds)
    else:
        _dots(ax, runs, color=style.QUIET)
        ax.plot(sizes, shown.groupby("n_latents")["dead_share"].mean(), color=style.INK, linewidth=1.2, zorder=3)
        for n, colour in style.ladder(sizes).items():
            _means(ax, shown[shown["n_latents"] == n], color=colour, marker="o", linestyle="none", markersize=6, zorder=4)
    top = max(0.1, 1.1 * runs["dead_share"].max())
    ax.set_ylim(-0.025 * top if compared else -0.004, top)
    style.size_ticks(ax.xaxis, sizes)
    ax.tick_params(axis="x", labelrotation=30)
    words = f"{_wanted(l0)}; lines: means; dots: runs" if compared else "line: longest horizon; dots: all runs"
    ax.set_title(f"{words}; over {tokens:,} tokens")


def _dots(ax: Axes, runs: pd.DataFrame, **look) -> None:  # noqa: ANN003
    (dots,) = ax.plot(runs["n_latents"], runs["dead_share"], "o", markersize=3.5, zorder=2, **look)
    style.of_runs(dots, runs["run_id"].tolist())


def _means(ax: Axes, runs: pd.DataFrame, **look) -> None:  # noqa: ANN003
    cells = runs.groupby("n_latents")
    mean = cells["dead_share"].mean()
    (line,) = ax.plot(mean.index, mean, **look)
    style.of_runs(line, cells["run_id"].agg(list))


def _wanted(l0: float | None) -> str:
    return "no wanted $L_0$" if l0 is None else f"wanted $L_0$ {l0:g}"
