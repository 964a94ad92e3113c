"""What the figures of fitted laws share: the points they are drawn on, and the fit as it was stored."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures import style
from analysis.result import FitResult
from analysis.sweep_points import sweep_points

NAMES = {"N": "size N", "D": "tokens D", "C": "training compute C (FLOPs)"}
SWEEP_NAMES = {"N": "dictionary size n_latents", "D": "training tokens", "C": style.X_COMPUTE}


def points(table: pd.DataFrame) -> pd.DataFrame:
    """N, D, C, loss: a sweep's finished runs, or a table of points as it is."""
    return sweep_points(table) if "state" in table else table


def name(table: pd.DataFrame, column: str) -> str:
    return (SWEEP_NAMES if "state" in table else NAMES).get(column, column)


def stored(fits: dict, *path: str) -> FitResult | None:
    """The fit at fits[path[0]][path[1]]..., or None where there is none."""
    for key in path:
        fits = fits.get(key) if isinstance(fits, dict) else None
        if fits is None:
            return None
    return FitResult.from_dict(fits)


def reason(fits: dict, block: str) -> str:
    """Why a block has no numbers."""
    found = fits.get(block)
    return found.get("reason", "not fitted yet") if isinstance(found, dict) else "not fitted yet"


def blank(ax: Axes, words: str, width: int = 60) -> None:
    """A panel that says why it is empty, in lines of so many letters."""
    import textwrap

    style.nothing_yet(ax, "\n".join(textwrap.wrap(words, width)))


def groups(values: np.ndarray, most: int = 12) -> np.ndarray:
    """int [point]: sizes as they are when few, else in `most` bins of equal count, for the colours of a figure."""
    levels = np.unique(values)
    if len(levels) <= most:
        return np.searchsorted(levels, values)
    edges = np.quantile(values, np.linspace(0, 1, most + 1)[1:-1])
    return np.searchsorted(edges, values, side="right")

