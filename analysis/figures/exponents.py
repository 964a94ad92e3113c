"""Forest of the exponent of the best size: one line per estimator, so that one sees what the answer depends on."""

import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import law_points, style

COLOURS = {"surface": style.LAW, "iso-FLOP": style.FLOOR, "frontier": style.INK}
MARKERS = {"surface": "o", "iso-FLOP": "s", "frontier": "D"}


def draw(table: pd.DataFrame, fits: dict) -> Figure:  # noqa: ARG001 (all sweep figures share one signature)
    """x: a of N* ~ C^a with its 95 % interval; rows: estimators; hollow where a law was rejected."""
    records = fits.get("exponents")
    known = [r for r in records if r["estimate"] is not None] if isinstance(records, list) else []
    figure, (ax,) = style.panels(1, 8.2, 1.6 + 0.32 * max(len(records or []), 4))
    ax.set_xlabel("exponent $a$ of the best size, $N^* \\propto C^{\\,a}$")
    ax.set_ylabel("estimator")
    if not known:
        law_points.blank(ax, law_points.reason(fits, "exponents") if isinstance(records, dict) else "no estimator can speak yet")
        return figure
    for i, record in enumerate(records):
        _line(ax, len(records) - 1 - i, record)
    ax.set_yticks(range(len(records)), [f"{r['group']}: {r['name']}" for r in reversed(records)])
    ax.set_ylim(-0.7, len(records) - 0.3)
    ax.grid(axis="y", visible=False)
    ax.axvline(0.5, color=style.QUIET, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    ends = [v for r in known for v in (r["estimate"], r["lo"], r["hi"]) if v is not None]
    room = 0.06 * (max(ends) - min(ends) or 0.1)
    ax.set_xlim(min(ends) - room, max(ends) + 6 * room)
    return figure


def _line(ax: Axes, at: int, record: dict) -> None:
    colour = COLOURS[record["group"]]
    if record["estimate"] is None:
        where = {"transform": ax.get_yaxis_transform(), "va": "center", "color": style.QUIET, "fontsize": 8}
        ax.text(0.01, at, f"- ({textwrap.shorten(record['note'], 70, placeholder=' ...')})", **where)
        return
    if limits := style.bounds(record):
        ax.plot(limits, [at, at], color=colour, linewidth=2, alpha=0.75, zorder=2)
    face = "white" if record["note"] else colour
    ax.plot(record["estimate"], at, MARKERS[record["group"]], color=colour, markerfacecolor=face, markersize=6, zorder=3)
    right = record["hi"] if record["hi"] is not None else record["estimate"]
    note = f"  {record['estimate']:.3f}" + (f"  ({record['note']})" if record["note"] else "")
    ax.text(right, at, note, va="center", fontsize=8, color=style.INK)
