"""The 50 % frequency against alive latents with 1 / n_alive, and the exponent under every definition of presence."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import concept_points as cp
from analysis.figures import style

COLOURS = {"trained": style.LAW, "untrained": style.FLOOR}


def draw(concepts: pd.DataFrame, presence_fit: dict) -> Figure:  # noqa: ARG001 (every concept figure has these inputs)
    """Left: f50 of every size with its 95 % interval, trained and untrained, arrows where it is only a bound, the joint law of
    each, and 1 / n_alive. Right: q with its interval under each definition and choice, and 1."""
    figure, (left, right) = style.panels(2, 13.0, 4.8)
    for kind in COLOURS:
        _sizes(left, presence_fit, kind)
        _law(left, presence_fit, kind)
    _inverse(left, presence_fit)
    left.set(xscale="log", yscale="log", xlabel="alive latents", ylabel="$f_{50}$ (occurrences per token)")
    alive = sorted({round(row["n_alive"]) for row in presence_fit["sizes"] if row["trained"]})
    style.size_ticks(left.xaxis, alive)
    left.set_title("Frequency at which half of the concepts have a latent")
    left.legend(loc="best")
    _forest(right, presence_fit)
    return figure


def _rows(fit: dict, kind: str) -> list[dict]:
    return [row for row in fit["sizes"] if row["dictionary"] == kind and row["n_alive"] > 0]


def _sizes(ax: Axes, fit: dict, kind: str) -> None:
    marker, colour = cp.STROKES[kind][2], COLOURS[kind]
    known = [row for row in _rows(fit, kind) if row["f50"] is not None]
    ends = [[edge if end is None else end for end, edge in zip(row["f50_interval"], (fit["f_min"], fit["f_max"]), strict=True)]
            for row in known]  # fmt: skip
    if known:
        y = np.array([row["f50"] for row in known])
        reach = np.maximum(np.abs(np.array(ends).T - y), 0)
        marks = {"fmt": marker, "markersize": 6, "markerfacecolor": colour if kind == "trained" else "white"}
        words = f"{kind}, score ≥ {fit['tau']:g}"
        ax.errorbar([row["n_alive"] for row in known], y, yerr=reach, color=colour, capsize=3, zorder=4, label=words, **marks)
    for row in _rows(fit, kind):
        if row["bound"] is not None:
            arrow = "^" if row["status"].startswith(">") else "v"
            ax.plot(row["n_alive"], row["bound"], arrow, color=colour, markersize=8, markerfacecolor="white", zorder=4)


def _law(ax: Axes, fit: dict, kind: str) -> None:
    joint, rows = fit["joint"].get(kind, {"q": None}), _rows(fit, kind)
    if joint["q"] is None:
        return
    n = np.geomspace(min(row["n_alive"] for row in rows), max(row["n_alive"] for row in rows), 50)
    f50 = np.exp(-(joint["intercept"] + joint["slope_n"] * np.log(n)) / joint["slope_f"])
    words = f"{kind}: $q$ = {cp.with_interval(joint['q'], joint['q_interval'])}"
    ax.plot(n, f50, color=COLOURS[kind], linestyle=cp.STROKES[kind][0], linewidth=1.5, label=words, zorder=3)


def _inverse(ax: Axes, fit: dict) -> None:
    alive = [row["n_alive"] for kind in COLOURS for row in _rows(fit, kind)]
    if alive:
        n = np.array([min(alive), max(alive)])
        ax.plot(n, 1 / n, color=style.INK, linewidth=1.0, linestyle=":", label="1 / n_alive", zorder=2)


def _forest(ax: Axes, fit: dict) -> None:
    """One line per definition, trained and untrained beside each other; what gave no exponent says so."""
    rows = [{"what": "joint law, bootstrap", **fit["joint"]["trained"],
             **{f"untrained_{k}": fit["joint"].get("untrained", {}).get(k) for k in ("q", "q_interval")}}]  # fmt: skip
    if fit["f50_law"]["g"] is not None:
        rows.append({"what": "separate fits, then a line", "q": fit["f50_law"]["g"], "q_interval": fit["f50_law"]["g_interval"]})
    rows += fit["sensitivity"]
    if fit["lapse"]["q"] is not None:
        rows.append({**fit["lapse"], "what": f"with a ceiling ({1 - fit['lapse']['lapse']:.2f})"})
    for place, row in enumerate(rows):
        for prefix, kind, up in (("", "trained", 0.0), ("untrained_", "untrained", 0.25)):
            q, ends = row.get(f"{prefix}q"), row.get(f"{prefix}q_interval")
            if q is not None:
                _one(ax, place + up, q, ends, kind)
        if row.get("q") is None:
            ax.text(1.0, place, " no exponent", va="center", fontsize=7.5, color=style.QUIET)
    ax.axvline(1.0, color=style.INK, linewidth=1.0, linestyle=":", zorder=1)
    ax.set_yticks(range(len(rows)), [row["what"] for row in rows], fontsize=8)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel("exponent $q$ of $f_{50}$ ~ n_alive$^{-q}$")
    ax.set_title("The exponent by definition (hollow: untrained)")


def _one(ax: Axes, y: float, q: float, ends: list, kind: str) -> None:
    face = COLOURS[kind] if kind == "trained" else "white"
    ax.plot(q, y, cp.STROKES[kind][2], color=COLOURS[kind], markerfacecolor=face, markersize=5, zorder=3)
    if ends[0] is not None and ends[1] is not None:
        ax.plot(ends, [y, y], color=COLOURS[kind], linewidth=1.2, zorder=2)
