"""What the concept figures share: binned shares with intervals, logistic curves, rings, axes, legends."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

from analysis.figures import style
from analysis.presence_checks import present_share, wilson
from analysis.presence_data import Scored

POINTS = 7  # bins of equal numbers of concepts
FREQUENCY = "concept frequency $f$ (occurrences per token)"
NEURONS = "#b06a00"
# kind -> how its curves and points are drawn: line, width, marker
STROKES = {"trained": ("-", 1.8, "o"), "untrained": ("--", 1.2, "s"), "neurons": ("-.", 1.4, "^"), "permuted": (":", 1.2, "v")}


def presence_axis(fit: dict) -> str:
    return f"P(concept has a latent, score ≥ {fit['tau']:g})"


def axes(ax: Axes) -> None:
    """Log frequency, probability from 0 to 1, a line at one half."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 60 * low else (1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(-0.03, 1.03)
    ax.axhline(0.5, color=style.QUIET, linewidth=0.8, linestyle=":", zorder=1)


def legend(ax: Axes, handles: list[Line2D], title: str, columns: int) -> None:
    """Below the panel, where it hides no data."""
    ax.legend(handles=handles, title=title, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.15))


def shares(scored: Scored, tau: float, row: dict) -> np.ndarray:
    """[bin, 4]: frequency (geometric mean), share present, and the ends of its 95 % Wilson interval.

    Seeds of one size are averaged per concept first: they are not more concepts.
    """
    present = present_share(scored, tau, row["dictionary"], row["n_latents"])
    seen = ~np.isnan(present)
    present, ln_f = present[seen], scored.ln_f[seen]
    out = []
    for inside in np.array_split(np.argsort(ln_f, kind="stable"), POINTS):
        if len(inside):
            share = float(present[inside].mean())
            out.append([np.exp(ln_f[inside].mean()), share, *wilson(share, len(inside))])
    return np.array(out)


def points(ax: Axes, binned: np.ndarray, row: dict, colour: tuple | str, factor: float) -> None:
    x, share, low, high = binned.T
    reach = np.maximum([share - low, high - share], 0)
    marker = {"fmt": STROKES[row["dictionary"]][2]} | ({} if row["trained"] else {"markerfacecolor": "white"})
    ax.errorbar(x * factor, share, yerr=reach, color=colour, markersize=4, elinewidth=0.8, zorder=3, **marker)


def curve(ax: Axes, fit: dict, row: dict, colour: tuple | str, by_alive: bool) -> None:
    """The logistic fit of one size, only where concepts were sampled."""
    f = np.geomspace(fit["f_min"], fit["f_max"], 200)
    line, width, _ = STROKES[row["dictionary"]]
    p = logistic(row["intercept"], row["slope"], f)
    ax.plot(f * row["n_alive"] if by_alive else f, p, color=colour, zorder=2, linestyle=line, linewidth=width)


def logistic(intercept: float, slope: float, x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(intercept + slope * np.log(x), -500, 500)))


def known_fifty(row: dict) -> str:
    """f50, or the bound that is all one knows of it."""
    if row["f50"] is None and row["bound"] is None:
        return row["status"]
    if row["f50"] is None:
        return f"{row['status'][0]} {two_digits(row['bound'])}"
    return two_digits(row["f50"])


def two_digits(value: float) -> str:
    return style.power_of_ten(float(f"{value:.1e}"))


def with_interval(value: float, ends: list, digits: int = 2) -> str:
    """0.95 [0.90, 1.01]."""
    low, high = ends
    return f"{value:.{digits}f}" + ("" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]")


def probability(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
