"""Which concepts of a category have a latent, each at its frequency, for every dictionary size."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

from analysis.figures import concept_points as cp
from analysis.figures import style
from analysis.presence_checks import present_share
from analysis.presence_data import Scored, prepare

MOST = 8  # categories drawn, those with most concepts
JITTER = 0.17
NAMED = 40  # a category of at most so many concepts has room for its names
ABSENT = "#c9c9c9"


def draw(concepts: pd.DataFrame, presence_fit: dict) -> Figure:
    """One panel per category, one strip per size: a dot is a concept at its frequency, filled where it is present, a pale one
    where it is absent. A grey strip below each trained one is the untrained dictionary of that size. The tick on a strip is
    1 / n_alive."""
    scored = prepare(concepts)
    counts = scored.concepts["category"].value_counts()
    shown = list(counts.index[:MOST])
    sizes = scored.sizes("trained")
    columns = 2 if len(shown) > 1 else 1
    rows = -(-len(shown) // columns)
    figure, _ = style.panels(1, 6.2 * columns, 0.9 + rows * (1.0 + 0.5 * len(sizes)))
    figure.clear()
    panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True)).ravel()
    for ax, name in zip(panels, shown, strict=False):
        _panel(ax, scored, presence_fit, name, sizes)
    for ax in panels[len(shown) :]:
        ax.set_visible(False)
    for ax in panels[max(0, len(shown) - columns) : len(shown)]:
        ax.set_xlabel(cp.FREQUENCY)
        ax.tick_params(labelbottom=True)
    left_out = "" if len(counts) <= MOST else f"; {len(counts) - MOST} smaller categories not drawn"
    figure.legend(handles=_handles(), loc="outside upper center", ncols=4,
                  title=f"a concept is present at a score of {presence_fit['tau']:g} or more{left_out}")  # fmt: skip
    return figure


def _panel(ax: Axes, scored: Scored, fit: dict, category: str, sizes: list[int]) -> None:
    inside = (scored.concepts["category"] == category).to_numpy()
    f = np.exp(scored.ln_f[inside])
    jitter = JITTER * np.resize([-1.0, 0.0, 1.0, -0.5, 0.5], len(f))
    colours = style.ladder(sizes)
    for place, n in enumerate(sizes):
        for kind, offset, colour, size in (("trained", 0.0, colours[n], 16), ("untrained", -0.45, style.QUIET, 6)):
            if len(scored.members(kind, n)):
                here = present_share(scored, fit["tau"], kind, n)[inside]
                y = place + offset + jitter * (1.0 if kind == "trained" else 0.4)
                _dots(ax, f, y, here, (colour, size))
        alive = np.mean(scored.dictionaries["n_alive"].to_numpy()[scored.members("trained", n)])
        if alive > 0:
            ax.plot([1 / alive] * 2, [place - 0.3, place + 0.3], color=style.LAW, linewidth=1.6, zorder=4)
    if len(f) <= NAMED:
        _names(ax, scored.concepts["concept"].to_numpy()[inside], f, len(sizes))
    ax.set_xscale("log")
    ax.set_xlim(fit["f_min"] / 1.4, fit["f_max"] * 1.4)
    ax.xaxis.set_major_locator(LogLocator())
    ax.xaxis.set_major_formatter(LogFormatterSciNotation())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(range(len(sizes)), [f"{n:,}" for n in sizes])
    ax.set_ylim(-0.8, len(sizes) - 0.4 + (0.9 if len(f) <= NAMED else 0))
    ax.grid(False, axis="y")
    ax.set_ylabel("n_latents")
    ax.set_title(f"{category} ({len(f)} concepts)")


def _dots(ax: Axes, f: np.ndarray, y: np.ndarray, here: np.ndarray, look: tuple) -> None:
    colour, size = look
    present, absent = here >= 0.5, here < 0.5
    ax.scatter(f[absent], y[absent], s=size, facecolors="none", edgecolors=ABSENT, linewidths=0.7, zorder=2)
    ax.scatter(f[present], y[present], s=size, color=[colour], linewidths=0, zorder=3)


def _names(ax: Axes, names: np.ndarray, f: np.ndarray, top: int) -> None:
    """Above the strips, upright, as many as fit without touching."""
    last = 0.0
    for name, at in sorted(zip(names, f, strict=True), key=lambda pair: pair[1]):
        if at > last * 1.13:
            ax.text(at, top - 0.45, name, rotation=90, fontsize=6, ha="center", va="bottom", color=style.INK)
            last = at


def _handles() -> list[Line2D]:
    dot = {"linestyle": "", "marker": "o"}
    return [
        Line2D([], [], color=style.ladder([0, 1])[0], markersize=5, label="present, trained", **dot),
        Line2D([], [], color=style.QUIET, markersize=3, label="present, untrained (small, below)", **dot),
        Line2D([], [], color=ABSENT, markersize=5, markerfacecolor="white", label="absent", **dot),
        Line2D([], [], color=style.LAW, linewidth=1.6, label="1 / n_alive"),
    ]
