"""The concept figure: how often a concept of a given frequency has a latent, per dictionary size, beside the controls."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import concept_points as cp
from analysis.figures import style
from analysis.presence_data import Scored, prepare


def draw(concepts: pd.DataFrame, presence_fit: dict) -> Figure:
    """Two panels: trained dictionaries, and their controls (untrained, raw neurons, permuted labels) on the same axes.

    `concepts` is concepts.parquet, `presence_fit` what analysis.presence.fit_presence made of it. Points are shares of
    concepts in bins of frequency with 95 % Wilson intervals, curves the logistic fit of each size, drawn only where
    concepts were sampled; a ring marks the 50 % frequency with its interval, where it lies inside that range.
    """
    figure, (left, right) = style.panels(2, 10.0, 5.6)
    scored = prepare(concepts)
    colours = style.ladder([row["n_latents"] for row in presence_fit["sizes"] if row["trained"]])
    _panel(left, scored, presence_fit, ("trained",), colours)
    _panel(right, scored, presence_fit, ("untrained", "neurons", "permuted"), colours)
    left.set_title("Trained dictionaries")
    right.set_title("Controls: untrained, raw neurons, permuted labels")
    left.set_ylabel(cp.presence_axis(presence_fit))
    title = "n_latents (alive): $f_{50}$, where half of the concepts have a latent"
    cp.legend(left, _size_handles(presence_fit, colours), title, 2)
    if controls := _control_handles(presence_fit, colours):
        cp.legend(right, controls, "untrained n_latents: $f_{50}$ trained / $f_{50}$ untrained", 2)
    right.sharex(left)
    for ax in (left, right):
        cp.axes(ax)
    return figure


def _panel(ax: Axes, scored: Scored, fit: dict, kinds: tuple[str, ...], colours: dict) -> None:
    rows = [row for row in fit["sizes"] if row["dictionary"] in kinds]
    for place, row in enumerate(rows):
        colour = _colour(row, colours)
        dodge = 1.05 ** (place - (len(rows) - 1) / 2)
        if row["dictionary"] != "permuted":
            cp.points(ax, cp.shares(scored, fit["tau"], row), row, colour, dodge)
        cp.curve(ax, fit, row, colour, by_alive=False)
        _fifty(ax, fit, row, colour)
    if not rows:
        style.nothing_yet(ax, "not scored")
    ax.set_xlabel(cp.FREQUENCY)


def _colour(row: dict, colours: dict) -> tuple | str:
    own = {"neurons": cp.NEURONS, "permuted": style.QUIET}
    return own.get(row["dictionary"]) or colours.get(row["n_latents"], style.QUIET)


def _fifty(ax: Axes, fit: dict, row: dict, colour: tuple | str) -> None:
    """Ring at the 50 % frequency; its interval stops at the sampled range where it goes beyond."""
    if row["f50"] is None:
        return
    ends = zip(row["f50_interval"], (fit["f_min"], fit["f_max"]), strict=True)
    low, high = (edge if end is None else end for end, edge in ends)
    ax.plot([low, high], [0.5, 0.5], color=colour, linewidth=3.5, alpha=0.45, solid_capstyle="butt", zorder=4)
    ring = {"markerfacecolor": "white", "markeredgecolor": colour, "markeredgewidth": 1.6}
    ax.plot(row["f50"], 0.5, "o", markersize=8, zorder=5, **ring)


def _size_handles(fit: dict, colours: dict) -> list[Line2D]:
    handles = []
    for row in fit["sizes"]:
        if row["trained"]:
            label = f"{row['n_latents']:,} ({row['n_alive']:,.0f}): {cp.known_fifty(row)}"
            handles.append(Line2D([], [], color=colours[row["n_latents"]], marker="o", markersize=4, label=label))
    return handles


def _control_handles(fit: dict, colours: dict) -> list[Line2D]:
    handles = []
    for row in fit["ratios"]:
        relation = {"<=": "≤ ", ">=": "≥ ", "=": ""}.get(row["relation"])
        value = "not known" if relation is None else f"{relation}{row['ratio']:.2f}"
        label = f"{row['n_latents']:,}: {value}"
        handles.append(_handle("untrained", colours[row["n_latents"]], label))
    for row in fit["sizes"]:
        if row["dictionary"] == "neurons":
            handles.append(_handle("neurons", cp.NEURONS, f"{row['n_latents']:,} raw neurons: $f_{{50}}$ {cp.known_fifty(row)}"))
    permuted = [row["present_share"] for row in fit["sizes"] if row["dictionary"] == "permuted"]
    if permuted:
        words = f"permuted labels: {np.nanmax(permuted):.2g} present at most"
        handles.append(_handle("permuted", style.QUIET, words))
    return handles


def _handle(kind: str, colour: tuple | str, label: str) -> Line2D:
    line, width, marker = cp.STROKES[kind]
    return Line2D([], [], color=colour, linestyle=line, linewidth=width, marker=marker, markersize=4, label=label,
                  markerfacecolor="white")  # fmt: skip
