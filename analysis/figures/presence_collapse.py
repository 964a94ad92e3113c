"""The collapsed curve: presence against frequency times alive latents, trained and untrained."""

from textwrap import wrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import concept_points as cp
from analysis.figures import style
from analysis.presence_data import Scored, prepare

PANELS = (("trained", "Trained dictionaries"), ("untrained", "Untrained dictionaries (control)"))


def draw(concepts: pd.DataFrame, presence_fit: dict) -> Figure:
    """Two panels on one axis. The orange line is the one curve that q = 1 allows, fitted to the trained dictionaries and drawn
    in both; the grey one, right, is the untrained dictionaries' own."""
    figure, panels = style.panels(2, 10.0, 5.6)
    scored = prepare(concepts)
    colours = style.ladder([row["n_latents"] for row in presence_fit["sizes"] if row["trained"]])
    for ax, (kind, title) in zip(panels, PANELS, strict=True):
        _panel(ax, scored, presence_fit, kind, colours)
        ax.set_title(title)
        ax.set_xlabel(r"$f \times$ n_alive (occurrences per token × latents)")
    panels[0].set_ylabel(cp.presence_axis(presence_fit))
    panels[1].sharex(panels[0])
    for ax in panels:
        ax.axvline(1.0, color=style.QUIET, linewidth=0.8, linestyle=":", zorder=1)
        cp.axes(ax)
    return figure


def _panel(ax: Axes, scored: Scored, fit: dict, kind: str, colours: dict) -> None:
    rows = [row for row in fit["sizes"] if row["dictionary"] == kind and row["n_alive"] > 0]
    handles = []
    for row in rows:
        colour = colours.get(row["n_latents"], style.QUIET)
        cp.points(ax, cp.shares(scored, fit["tau"], row), row, colour, row["n_alive"])
        cp.curve(ax, fit, row, colour, by_alive=True)
        line, _, marker = cp.STROKES[kind]
        handles.append(Line2D([], [], color=colour, linestyle=line, marker=marker, markersize=4, label=f"{row['n_latents']:,}"))
    if not rows:
        style.nothing_yet(ax, "not scored")
        return
    handles += _shared(ax, fit, "trained", style.LAW, "-")
    if kind != "trained":
        handles += _shared(ax, fit, kind, style.INK, "--")
    cp.legend(ax, handles, _words(fit["joint"][kind]), 3)


def _shared(ax: Axes, fit: dict, kind: str, colour: str, line: str) -> list[Line2D]:
    joint = fit["joint"][kind]
    if joint["q"] is None:
        return []
    alive = [row["n_alive"] for row in fit["sizes"] if row["dictionary"] == kind and row["n_alive"] > 0]
    u = np.geomspace(fit["f_min"] * min(alive), fit["f_max"] * max(alive), 200)
    ax.plot(u, cp.logistic(joint["q1_intercept"], joint["q1_slope"], u), color=colour, linestyle=line, linewidth=1.6, zorder=4)
    return [Line2D([], [], color=colour, linestyle=line, linewidth=1.6, label=f"one, {kind}")]


def _words(joint: dict) -> str:
    if joint["q"] is None:
        return "\n".join(wrap(f"no exponent: {joint['reason']}", 48))
    words = rf"$f_{{50}} \propto$ n_alive$^{{-q}}$, $q$ = {cp.with_interval(joint['q'], joint['q_interval'])}"
    if joint["collapse_share"] is not None:
        words += f"\none curve keeps {joint['collapse_share']:.0%} of what sizes explain"
    own = joint["collapse_clustered"]
    return words + (f"\na curve for each size: {cp.probability(own['p'])}" if own["df"] else "")
