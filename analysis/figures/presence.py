"""The concept figure: how often a concept of a given frequency has a latent, per dictionary size, against the null."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

from analysis.figures import style

POINTS = 7  # bins of equal numbers of concepts
Z = 1.96


def draw(concepts: dict, presence_fit: dict) -> Figure:
    """Three panels: trained dictionaries, the same untrained, and all of them against f * n_alive.

    `concepts` is concepts.json, `presence_fit` what analysis.presence.fit_presence made of it. Points are shares of
    concepts in bins of frequency with 95 % Wilson intervals, curves the logistic fit of each size, drawn only where
    concepts were sampled; a ring marks the 50 % frequency with its interval, where it lies inside that range.
    """
    figure, (left, middle, right) = style.panels(3, 13.0, 5.6)
    colours = style.ladder([row["n_latents"] for row in presence_fit["sizes"]])
    for ax, trained in ((left, True), (middle, False)):
        rows = [row for row in presence_fit["sizes"] if row["trained"] == trained]
        for place, row in enumerate(rows):
            colour = colours[row["n_latents"]]
            dodge = 1.05 ** (place - (len(rows) - 1) / 2)
            _points(ax, _shares(concepts, presence_fit["tau"], row), row, colour, dodge)
            _curve(ax, presence_fit, row, colour, by_alive=False)
            _fifty(ax, presence_fit, row, colour)
        if not rows:
            style.nothing_yet(ax, "not scored")
        ax.set_xlabel("concept frequency $f$ (occurrences per token)")
    left.set_title("Trained dictionaries")
    middle.set_title("Untrained dictionaries (null)")
    left.set_ylabel(f"P(concept has a latent, F1 ≥ {presence_fit['tau']:g})")
    title = "n_latents (alive): $f_{50}$, where half of the concepts have a latent"
    _legend(left, _size_handles(presence_fit, colours), title, 2)
    if ratios := _ratio_handles(presence_fit, colours):
        _legend(middle, ratios, "n_latents: $f_{50}$ trained / $f_{50}$ untrained", 3)
    _collapse(right, concepts, presence_fit, colours)
    middle.sharex(left)
    for ax in (left, middle, right):
        _axes(ax)
    return figure


def _axes(ax: Axes) -> None:
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 60 * low else (1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(-0.03, 1.03)
    ax.axhline(0.5, color=style.QUIET, linewidth=0.8, linestyle=":", zorder=1)


def _legend(ax: Axes, handles: list[Line2D], title: str, columns: int) -> None:
    """Below the panel, where it hides no data."""
    ax.legend(handles=handles, title=title, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.15))


def _shares(concepts: dict, tau: float, row: dict) -> np.ndarray:
    """[bin, 4]: frequency (geometric mean), share present, and the ends of its 95 % Wilson interval.

    Seeds of one size are averaged per concept first: they are not more concepts.
    """
    members = [
        i for i, d in enumerate(concepts["dictionaries"])
        if d["trained"] == row["trained"] and d["n_latents"] == row["n_latents"]
    ]  # fmt: skip
    scores = np.array(concepts["scores"], dtype=np.float64)[members]
    scored = ~np.isnan(scores).any(axis=0)
    present = (scores[:, scored] >= tau).mean(axis=0)
    ln_f = np.log([c["frequency"] for c in concepts["concepts"]])[scored]
    out = []
    for inside in np.array_split(np.argsort(ln_f, kind="stable"), POINTS):
        n = len(inside)
        if n:
            share = present[inside].mean()
            centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
            reach = Z / (1 + Z**2 / n) * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
            out.append([np.exp(ln_f[inside].mean()), share, centre - reach, centre + reach])
    return np.array(out)


def _points(ax: Axes, shares: np.ndarray, row: dict, colour: tuple, factor: float) -> None:
    x, share, low, high = shares.T
    reach = np.maximum([share - low, high - share], 0)
    marker = {"fmt": "o"} if row["trained"] else {"fmt": "s", "markerfacecolor": "white"}
    ax.errorbar(x * factor, share, yerr=reach, color=colour, markersize=4, elinewidth=0.8, zorder=3, **marker)


def _curve(ax: Axes, fit: dict, row: dict, colour: tuple | str, by_alive: bool) -> None:
    f = np.geomspace(fit["f_min"], fit["f_max"], 200)
    stroke = {"linestyle": "-", "linewidth": 1.8} if row["trained"] else {"linestyle": "--", "linewidth": 1.2}
    p = _logistic(row["intercept"], row["slope"], f)
    ax.plot(f * row["n_alive"] if by_alive else f, p, color=colour, zorder=2, **stroke)


def _logistic(intercept: float, slope: float, x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(intercept + slope * np.log(x), -500, 500)))


def _fifty(ax: Axes, fit: dict, row: dict, colour: tuple) -> None:
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
            label = f"{row['n_latents']:,} ({row['n_alive']:,.0f}): {_known_fifty(row)}"
            handles.append(Line2D([], [], color=colours[row["n_latents"]], marker="o", markersize=4, label=label))
    return handles


def _known_fifty(row: dict) -> str:
    if row["f50"] is None and row["bound"] is None:
        return row["status"]
    if row["f50"] is None:
        return f"{row['status'][0]} {_two_digits(row['bound'])}"
    return _two_digits(row["f50"])


def _two_digits(value: float) -> str:
    return style.power_of_ten(float(f"{value:.1e}"))


def _ratio_handles(fit: dict, colours: dict) -> list[Line2D]:
    handles = []
    for row in fit["ratios"]:
        relation = {"<=": "≤ ", ">=": "≥ ", "=": ""}.get(row["relation"])
        value = "not known" if relation is None else f"{relation}{row['ratio']:.2f}"
        stroke = {"linestyle": "--", "marker": "s", "markersize": 4, "markerfacecolor": "white"}
        label = f"{row['n_latents']:,}: {value}"
        handles.append(Line2D([], [], color=colours[row["n_latents"]], label=label, **stroke))
    return handles


def _collapse(ax: Axes, concepts: dict, fit: dict, colours: dict) -> None:
    """Both kinds against f * n_alive, with the one curve that q = 1 allows."""
    for row in fit["sizes"]:
        colour = colours[row["n_latents"]] if row["trained"] else style.QUIET
        _curve(ax, fit, row, colour, by_alive=True)
        if row["trained"]:
            _points(ax, _shares(concepts, fit["tau"], row), row, colour, row["n_alive"])
    joint = fit["joint"]["trained"]
    handles = [
        Line2D([], [], color=style.INK, linewidth=1.8, marker="o", markersize=4, label="trained, one colour per size"),
        Line2D([], [], color=style.QUIET, linestyle="--", label="untrained, fits only"),
    ]
    if joint["q"] is not None:
        alive = [row["n_alive"] for row in fit["sizes"] if row["trained"]]
        u = np.geomspace(fit["f_min"] * min(alive), fit["f_max"] * max(alive), 200)
        ax.plot(u, _logistic(joint["q1_intercept"], joint["q1_slope"], u), color=style.LAW, linewidth=1.4, zorder=4)
        handles.append(Line2D([], [], color=style.LAW, linewidth=1.4, label="one curve for all sizes ($q$ = 1)"))
    _legend(ax, handles, _q_text(joint), 1)
    ax.set_title("Both against frequency × alive latents")
    ax.set_xlabel(r"$f \times$ n_alive (occurrences per token × latents)")


def _q_text(joint: dict) -> str:
    if joint["q"] is None:
        return f"no exponent: {joint['reason']}"
    low, high = joint["q_interval"]
    return rf"trained: $f_{{50}} \propto$ n_alive$^{{-q}}$, $q$ = {joint['q']:.2f} [{low:.2f}, {high:.2f}]"
