"""How often latents fire, by dictionary size: frequency histograms and the share that never does."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import law_points, style


def draw(table: pd.DataFrame, fits: dict) -> Figure:  # noqa: ARG001 (all sweep figures share one signature)
    """Left: share of latents per frequency bin, one curve per size at its longest horizon. Right: dead share against size."""
    figure, axes = style.panels(2, 10.2, 4.2)
    record = fits.get("firing") or {}
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
    sizes = record["sizes"]
    colours = style.ladder([s["n_latents"] for s in sizes])
    edges = np.array(record["edges"])
    for size in sizes:
        axes[0].stairs(size["share"], edges, color=colours[size["n_latents"]], linewidth=1.4, label=f"{size['n_latents']:,}")
    axes[0].legend(title="n_latents", alignment="left", loc="upper left")
    _dead(axes[1], record, colours)
    return figure


def _dead(ax: Axes, record: dict, colours: dict) -> None:
    """Every run as a dot, a line through the longest horizon of each size."""
    runs, sizes = record["runs"], record["sizes"]
    spot = {"color": style.QUIET, "markersize": 3.5, "zorder": 2}
    (dots,) = ax.plot([r["n_latents"] for r in runs], [r["dead_share"] for r in runs], "o", **spot)
    style.of_runs(dots, [r["run_id"] for r in runs if "run_id" in r])
    ax.plot([s["n_latents"] for s in sizes], [s["dead_share"] for s in sizes], color=style.INK, linewidth=1.2, zorder=3)
    for size in sizes:
        ax.plot(size["n_latents"], size["dead_share"], "o", color=colours[size["n_latents"]], markersize=6, zorder=4)
    ax.set_ylim(-0.004, max(0.1, 1.1 * max(r["dead_share"] for r in runs)))
    style.size_ticks(ax.xaxis, [s["n_latents"] for s in sizes])
    ax.tick_params(axis="x", labelrotation=30)
    ax.set_title(f"line: longest horizon; dots: all runs; over {record['n_held_out_tokens']:,} tokens")
