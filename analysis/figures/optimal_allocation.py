"""Optimal dictionary size and training tokens against compute, with fitted power laws."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style


def draw(table: pd.DataFrame, fits: dict) -> Figure:  # noqa: ARG001 (all sweep figures share one signature)
    """Two panels, log-log: n_latents and n_tokens at the minimum of each budget against its flops_dense (FLOPs)."""
    figure, axes = style.panels(2, 9.6, 4.4)
    panels = (
        ("n_latents", "n_opt", "optimal dictionary size n_latents", r"$n^* \propto C^{\,p}$,  $p$"),
        ("n_tokens", "tokens_opt", "optimal training tokens $T$", r"$T^* \propto C^{\,q}$,  $q$"),
    )
    for ax, (name, key, label, words) in zip(axes, panels, strict=True):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel(style.X_COMPUTE)
        ax.set_ylabel(label)
        _panel(ax, fits, name, key, words)
    axes[0].set_title("Size")
    axes[1].set_title("Tokens, from $T = C / 12\\,d\\,n$")
    return figure


def _panel(ax: Axes, fits: dict, name: str, key: str, words: str) -> None:
    optima = [b for b in fits["budgets"] if b[key]]
    others = [b for b in fits["budgets"] if not b[key] and b["points"]]
    if not optima and not others:
        style.nothing_yet(ax, "no finished runs yet")
        return
    handles = []
    if law := fits["laws"][name]:
        label = f"{words} = {style.range_text(law['exponent'])}"
        style.band(ax, law, style.LAW, label)
        handles.append(Line2D([], [], color=style.LAW, linewidth=1.6, label=label))
    spot = {"marker": "o", "linestyle": "none", "color": style.INK, "markersize": 5, "zorder": 6}
    for budget in optima:
        if limits := style.bounds(budget[key]):
            ax.plot([budget["flops_dense"]] * 2, limits, color=style.INK, linewidth=1.2, marker="_", markersize=7, zorder=5)
        ax.plot(budget["flops_dense"], budget[key]["estimate"], **spot)
    if optima:
        label = "minimum of a bracketed valley" + style.over_seeds([b[key] for b in optima])
        handles.append(Line2D([], [], **spot, label=label))
    if others:
        hollow = {**spot, "markerfacecolor": "white"}
        ax.plot([b["flops_dense"] for b in others], [b["best_sampled"][name] for b in others], **hollow)
        handles.append(Line2D([], [], **hollow, label="best sampled, not bracketed (not fitted)"))
    ax.legend(handles=handles, loc="upper left")
    if not law:
        ax.text(0.97, 0.04, "no exponent: fewer than 3 budgets bracketed", transform=ax.transAxes, ha="right", color=style.QUIET)
    ax.set_ylim(ax.get_ylim()[0], ax.get_ylim()[1] * 2.2)  # room for the legend above the line
    style.count_ticks(ax)
