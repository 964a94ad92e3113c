"""A sweep in a notebook: its table, its laws and its figures from the store, by the sweep's name.

A sweep launched with overrides goes by the name of its folder in the store, `NAME+hash`.
"""

import io
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis import figures
from analysis.disk import read_json
from analysis.tables import build_table


def table(sweep: str, store: str | Path = "runs") -> pd.DataFrame:
    """One row per planned run, as `saescale collect` writes it, read from the records as they are now."""
    return build_table(_of_sweep(sweep, store, "plan.json", "launch"), Path(store))


def fits(sweep: str, store: str | Path = "runs") -> dict:
    """The laws `saescale fit SWEEP` wrote, with their intervals."""
    return _of_sweep(sweep, store, "fits.json", "fit")


def figure(name: str, sweep: str, store: str | Path = "runs") -> Figure:
    """A figure of a sweep, by its name among those of analysis.figures that draw (table, fits).

    A notebook shows it; `.savefig(path)` keeps it.
    """
    drawn = figures.draw(name, table(sweep, store), fits(sweep, store))
    drawn._repr_png_ = lambda: _png(drawn)  # what a notebook asks for: without pyplot it does not know figures
    return drawn


def _png(drawn: Figure) -> bytes:
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _folder(sweep: str, store: str | Path) -> Path:
    known = sorted(p.parent.name for p in Path(store).glob("*/plan.json"))
    if sweep not in known:
        raise ValueError(f"{store} has no sweep {sweep!r}: it has {', '.join(known) or 'none'}. Give the name of one, or "
                         "store=FOLDER.")
    return Path(store) / sweep


def _of_sweep(sweep: str, store: str | Path, name: str, verb: str) -> dict:
    path = _folder(sweep, store) / name
    if not path.is_file():
        raise ValueError(f"{path} is not there. Run `saescale {verb} {sweep}` first.")
    return read_json(path)
