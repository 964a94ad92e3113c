"""A figure's interactive twin: what was drawn, read back from its axes as plain data that the report's script draws again.

So nothing is written twice: a figure made of lines, markers, bands, steps and texts is interactive as it is. Points that are runs
say so by `style.of_runs`; hovering then names the run. A figure of anything else (an image, say) stays a picture.
"""

from itertools import count

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.figures.mathtext import pieces, plain

MARKERS = {"o": "circle", "s": "rect", "D": "rectRot", "d": "rectRot", "^": "triangle", "v": "triangle", "*": "star"}
MARKERS |= {"X": "crossRot", "x": "crossRot", "P": "cross", "+": "cross", ".": "circle", "<": "triangle", ">": "triangle"}
TURNED = {"v": 180, "<": 270, ">": 90}
DASHES = {"-": [], "--": [6, 4], ":": [2, 3], "-.": [6, 3, 2, 3]}
PX = 96 / 72  # matplotlib's points in a browser's pixels


class NotPlain(Exception):
    """Something was drawn that has no interactive form."""


def describe(figure: Figure) -> dict | None:
    """{"columns", "aspect", "panels"}: each panel its axes, series, texts and legend. None where a picture has to do.

    Call it after the figure was saved: ticks and limits are then those of the picture.
    """
    figure.draw_without_rendering()
    axes = [ax for ax in figure.axes if ax.get_visible()]
    try:
        panels = [_panel(ax) for ax in axes]
    except NotPlain:
        return None
    columns = max((ax.get_subplotspec().get_gridspec().ncols for ax in axes if ax.get_subplotspec()), default=1)
    width, height = figure.get_size_inches()
    rows = -(-len(axes) // columns)
    _shared_ticks(panels)
    _link_legends(panels)
    return {"columns": columns, "aspect": round(float(width / columns / (height / rows)), 3), "panels": panels}


def run_ids(described: dict | None) -> list[str]:
    """The runs whose points a plot shows, each once, sorted."""
    panels = described["panels"] if described else []
    return sorted({run for panel in panels for series in panel["series"] for group in series.get("runs", []) for run in group})


def _panel(ax: Axes) -> dict:
    if ax.images or ax.tables or ax.child_axes or ax.name != "rectilinear":
        raise NotPlain
    series = [s for line in ax.lines for s in _line(ax, line)]
    series += [s for collection in ax.collections for s in _collection(ax, collection)]
    series += [s for patch in ax.patches for s in _patch(ax, patch)]
    texts = [_text(ax, text) for text in ax.texts if text.get_text().strip()]
    title = ax.get_title(loc="left") or ax.get_title()
    return {"title": pieces(title), "x": _axis(ax.xaxis), "y": _axis(ax.yaxis), "series": [s for s in series if s["x"]],
            "texts": texts, "legend": _legend(ax.get_legend())}


def _axis(axis) -> dict:
    low, high = sorted(map(float, axis.get_view_interval()))
    located = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=False)
    ticks = [[_short(at), plain(label.get_text())] for at, label in located if low <= at <= high]
    about = {"label": pieces(axis.get_label_text()), "log": axis.get_scale() == "log", "limits": [low, high], "ticks": ticks}
    return about | ({"reverse": True} if axis.get_inverted() else {})


def _line(ax: Axes, line: Line2D) -> list[dict]:
    points = np.column_stack([line.get_xdata(orig=False), line.get_ydata(orig=False)]).astype(float)
    drawn = line.get_linestyle() in DASHES and line.get_linewidth() > 0
    marker = MARKERS.get(line.get_marker())
    if not line.get_visible() or not len(points) or not (drawn or marker):
        return []
    look = _look(line.get_color() if drawn else line.get_markeredgecolor(), line.get_alpha())
    if drawn:
        look |= {"line": line.get_linewidth() * PX, "dash": DASHES[line.get_linestyle()]}
    if marker:
        look |= {"marker": marker, "size": round(line.get_markersize() * PX / 2, 2), "face": _hex(line.get_markerfacecolor())}
        look |= {"turned": TURNED[line.get_marker()]} if line.get_marker() in TURNED else {}
    points = points if line.get_transform() == ax.transData else _in_data(ax, line.get_transform(), points)
    return [_series(points, look, line, getattr(line, "runs", []))]


def _collection(ax: Axes, found: Collection) -> list[dict]:
    if isinstance(found, LineCollection):
        look = _look(found.get_colors()[0], found.get_alpha()) | {"line": float(found.get_linewidths()[0]) * PX, "dash": []}
        broken = [row for segment in found.get_segments() for row in (*segment, [np.nan, np.nan])]
        return [_series(np.array(broken), look, found)] if broken else []
    if isinstance(found, PathCollection):
        return _scattered(found)
    if isinstance(found, PolyCollection):
        look = _look(found.get_facecolor()[0], found.get_alpha()) | {"fill": True}
        return [_series(_in_data(ax, found.get_transform(), path.vertices), look, found) for path in found.get_paths()]
    raise NotPlain


def _scattered(found: PathCollection) -> list[dict]:
    """One series per colour of a scatter."""
    points, faces, edges = np.asarray(found.get_offsets(), float), found.get_facecolors(), found.get_edgecolors()
    colours = faces if len(faces) else edges
    colours = np.broadcast_to(colours, (len(points), 4)) if len(colours) in (1, len(points)) else None
    if colours is None:
        raise NotPlain
    size = float(np.sqrt(found.get_sizes()[0])) * PX / 2
    runs, out = getattr(found, "runs", []), []
    for colour in np.unique(colours, axis=0):
        of_colour = np.flatnonzero((colours == colour).all(axis=1))
        look = _look(colour, None) | {"marker": "circle", "size": round(size, 2), "face": _hex(colour) if len(faces) else "none"}
        out.append(_series(points[of_colour], look, found, [runs[i] for i in of_colour] if runs else []))
    return out


def _patch(ax: Axes, patch: Patch) -> list[dict]:
    """Steps as a line, spans and bars as filled shapes."""
    path = patch.get_path()
    vertices = _in_data(ax, patch.get_transform(), path.vertices)
    if patch.get_fill():
        return [_series(vertices, _look(patch.get_facecolor(), patch.get_alpha()) | {"fill": True}, patch)]
    stroke = {"line": patch.get_linewidth() * PX, "dash": []}
    return [_series(vertices, _look(patch.get_edgecolor(), patch.get_alpha()) | stroke, patch)]


def _look(colour, alpha: float | None) -> dict:
    rgba = to_rgba(colour)
    return {"colour": to_hex(rgba), "alpha": round(float(rgba[3] if alpha is None else alpha), 3), "line": 0}


def _series(points: np.ndarray, look: dict, artist, runs: list[list[str]] | tuple = ()) -> dict:
    """The points as drawn, and the runs behind each where there are any; None breaks a line."""
    known = np.isfinite(points).all(axis=1)
    out = look | {"z": artist.get_zorder()}
    for name, column in (("x", 0), ("y", 1)):
        out[name] = [_short(value) if ok else None for value, ok in zip(points[:, column], known, strict=True)]
    label = str(artist.get_label())
    if runs:
        assert len(runs) == len(points), f"{len(runs)} runs named for {len(points)} points"
        out["runs"] = runs
    return out | ({} if label.startswith("_") else {"name": plain(label)})


def _text(ax: Axes, text) -> dict:
    at = np.array([text.get_position()], float)
    at = at[0] if text.get_transform() == ax.transData else _in_data(ax, text.get_transform(), at)[0]
    return {"x": _short(at[0]), "y": _short(at[1]), "words": plain(text.get_text()), "colour": _hex(text.get_color()),
            "side": text.get_horizontalalignment(), "height": text.get_verticalalignment(), "turn": float(text.get_rotation())}


def _in_data(ax: Axes, transform, points: np.ndarray) -> np.ndarray:
    """Points given in a transform of their own (a share of the axes, say) in data coordinates."""
    return ax.transData.inverted().transform(transform.transform(np.asarray(points, float)))


def _legend(legend: Legend | None) -> dict | None:
    if legend is None:
        return None
    entries = []
    for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
        label = text.get_text()
        if label and not label.startswith("_"):
            entries.append({"label": pieces(label)} | _key(handle))
    return {"title": pieces(legend.get_title().get_text()), "entries": entries}


def _key(handle) -> dict:
    if isinstance(handle, LineCollection):  # what stands for an error bar
        return _look(handle.get_colors()[0], None) | {"line": 1.5, "dash": []}
    if not isinstance(handle, Line2D):
        return _look(handle.get_facecolor() if isinstance(handle, Patch) else handle.get_facecolor()[0], None) | {"fill": True}
    drawn, marker = handle.get_linestyle() in DASHES, MARKERS.get(handle.get_marker())
    look = _look(handle.get_color(), None) | {"line": handle.get_linewidth() if drawn else 0}
    look |= {"dash": DASHES[handle.get_linestyle()]} if drawn else {}
    return look | ({"marker": marker, "face": _hex(handle.get_markerfacecolor())} if marker else {})


def _link_legends(panels: list[dict]) -> None:
    """Give every series the legend entry it stands under ("keys"), by its look; a figure's only legend speaks for all panels."""
    with_legend = [panel for panel in panels if panel["legend"]]
    number = count()
    for panel in with_legend:
        for entry in panel["legend"]["entries"]:
            entry["key"] = next(number)
        spoken_for = panels if len(with_legend) == 1 else [panel]
        for series in (s for p in spoken_for for s in p["series"]):
            series["keys"] = _keys_of(series, panel["legend"]["entries"])


def _keys_of(series: dict, entries: list[dict]) -> list[int]:
    same = [entry for entry in entries if entry["colour"] == series["colour"]]
    exact = [e for e in same if all(e.get(part) == series.get(part) for part in ("marker", "face", "dash"))]
    near = [e for e in same if e.get("marker") and (e.get("marker"), e.get("face")) == (series.get("marker"), series.get("face"))]
    near = near or [e for e in same if not series.get("marker") and e.get("dash", []) == series.get("dash", [])]
    return [entry["key"] for entry in (exact or near or same)[:1]]


def _shared_ticks(panels: list[dict]) -> None:
    """A panel that leaves its numbers or its label to a neighbour gets them back: on a phone panels stand below each other."""
    for axis in ("x", "y"):
        told = next((panel[axis] for panel in panels if any(label for _, label in panel[axis]["ticks"])), None)
        for panel in panels:
            if told and not any(label for _, label in panel[axis]["ticks"]) and panel[axis]["log"] == told["log"]:
                panel[axis] |= {"ticks": told["ticks"]}
            if told and not panel[axis]["label"] and panel[axis]["limits"] == told["limits"]:
                panel[axis] |= {"label": told["label"]}


def _hex(colour) -> str:
    rgba = to_rgba(colour)
    return "none" if rgba[3] == 0 else to_hex(rgba)


def _short(value: float) -> float:
    return float(f"{value:.6g}")
