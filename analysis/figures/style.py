"""The look all figures share: fonts, colours, axes, saving. No pyplot, no display."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from analysis.disk import write_aside

INK, LAW, FLOOR, QUIET = "#1a1a1a", "#c8500a", "#0a62a8", "#8a8a8a"  # black, vermilion, blue: distinct to all eyes
KIND_COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7")  # Okabe and Ito: told apart by all
KIND_MARKERS = "osD^vPX*"
X_COMPUTE = r"training compute $C = 12\,d\,n\,T$ (dense FLOPs)"
RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.solid_capstyle": "round",
    "savefig.facecolor": "white",
    "svg.hashsalt": "saescale",
    "svg.fonttype": "path",
}


@contextmanager
def house() -> Iterator[None]:
    """Draw under the house settings, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


def panels(columns: int, width: float, height: float = 4.3) -> tuple[Figure, list[Axes]]:
    """A figure with `columns` panels beside each other."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(np.atleast_1d(figure.subplots(1, columns)))


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """name.svg and name.png (200 dpi), each written aside and renamed, with no date or version inside."""
    paths = []
    with house():
        for suffix, options in ((".svg", {"metadata": {"Date": None}}), (".png", {"metadata": {"Software": None}, "dpi": 200})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix[1:], **options)
            paths.append(write_aside(folder / f"{name}{suffix}", buffer.getvalue()))
    return paths[0], paths[1]


def of_runs(artist, run_ids) -> None:
    """Say which run each point of a line or scatter is, or which runs it is the mean of: the report names them to who points at
    it. `run_ids` holds one id, or a list of ids, per point."""
    artist.runs = [[run_id] if isinstance(run_id, str) else [*run_id] for run_id in run_ids]


def ladder(values: list, name: str = "viridis") -> dict:
    """value -> colour along a sequential map without its palest end, in rising order."""
    ordered, end = sorted(set(values)), 0.9 if name == "viridis" else 0.82
    return {value: colormaps[name](end * i / max(len(ordered) - 1, 1)) for i, value in enumerate(ordered)}


def looks(kinds: Iterable[str]) -> dict[str, tuple[str, str]]:
    """kind of SAE -> (colour, marker), by its place in their alphabet."""
    ordered = enumerate(sorted(set(kinds)))
    return {kind: (KIND_COLOURS[i % len(KIND_COLOURS)], KIND_MARKERS[i % len(KIND_MARKERS)]) for i, kind in ordered}


def legend_of_kinds(ax: Axes, looks: dict) -> None:
    """What colour and marker each kind has, beside the panel."""
    handles = [Line2D([], [], color=colour, marker=marker, markersize=5, label=kind) for kind, (colour, marker) in looks.items()]
    legend_right(ax, handles, "kind of SAE")


def log_y(ax: Axes, values: np.ndarray) -> None:
    """Log scale with plain decimals at 1, 1.5, 2, 3, 5, 7 per decade, thinned when several decades are shown."""
    ax.set_yscale("log")
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return
    low, high = values.min() / 1.12, values.max() * 1.12
    ax.set_ylim(low, high)
    decades = np.log10(high / low)
    steps = (1, 1.5, 2, 3, 4, 5, 7) if decades < 1 else (1, 2, 3, 5) if decades < 2 else (1,)
    ticks = [s * 10.0**e for e in range(-12, 13) for s in steps if low <= s * 10.0**e <= high]
    if len(ticks) < 4:
        ticks = [t for t in MaxNLocator(6).tick_values(low, high) if low <= t <= high]
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def size_ticks(ax_axis, sizes: list[int]) -> None:
    """Ticks at dictionary sizes that were trained, written out: those with room for their label on a log axis."""
    shown: list[int] = []
    for size in sizes:
        if not shown or np.log(size / shown[-1]) >= np.log(sizes[-1] / sizes[0]) / 10:
            shown.append(size)
    ax_axis.set_major_locator(FixedLocator(shown))
    ax_axis.set_minor_locator(NullLocator())
    ax_axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value):,}"))


def count_ticks(ax: Axes) -> None:
    """A log y axis of counts, ticks at 1, 2, 5 per decade written out: 500, 20,000, 2M, 50B."""
    low, high = ax.get_ylim()
    steps = (1, 2, 5) if high / low < 1e3 else (1,)
    ticks = [s * 10**e for e in range(16) for s in steps if low <= s * 10**e <= high]
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: short(v)))


def short(value: float) -> str:
    """2,048; 57.3M; 1.3B; 6.4e+22."""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if size <= value < 1e15:
            return f"{value / size:.3g}{suffix}"
    return f"{value:,.0f}" if value < 1e6 else f"{value:.2g}"


def power_of_ten(value: float) -> str:
    """2.5e10 as mathtext: 2.5 x 10^10."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return rf"{float(mantissa):g}$\times 10^{{{int(exponent)}}}$"


def legend_right(ax: Axes, handles: list, title: str) -> None:
    """A legend beside the panel, where it hides no data."""
    ax.legend(handles=handles, title=title, loc="upper left", bbox_to_anchor=(1.01, 1.0), alignment="left")


def nothing_yet(ax: Axes, words: str) -> None:
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color=QUIET)


def bounds(record: dict | None) -> tuple[float, float] | None:
    """(lo, hi) of a bounded value of fits.json, or None when there is no interval."""
    return None if record is None or record["lo"] is None or record["hi"] is None else (record["lo"], record["hi"])


def over_seeds(records: list[dict]) -> str:
    """What a legend adds to the optima it shows: whose intervals are drawn, if any is (one seed has none)."""
    return ", 95 % over seeds" if any(bounds(record) for record in records) else ""


def band(ax: Axes, law: dict, colour: str, label: str, dashed: bool = False) -> None:
    """A fitted law with its 95 % band; the band is left out where it has no interval."""
    curve = law["band"]
    x = np.array(curve["flops_dense"])
    low, high = (np.array(curve[side], float) for side in ("lo", "hi"))
    ax.plot(x, curve["estimate"], color=colour, linewidth=1.6, linestyle="--" if dashed else "-", label=label, zorder=4)
    if np.isfinite(low).all():
        ax.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0, zorder=1)


def range_text(record: dict, digits: int = 2) -> str:
    """'0.49 [0.47, 0.52]'; without the brackets when there is no interval."""
    limits = bounds(record)
    text = f"{record['estimate']:.{digits}f}"
    return text if limits is None else f"{text} [{limits[0]:.{digits}f}, {limits[1]:.{digits}f}]"
