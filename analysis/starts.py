"""Where the search begins: for every point of a grid over the exponents, the best coefficients by linear least squares.

Variable projection (Golub and Pereyra 1973) over an exhaustive grid. With weights 1 / y^2 the squared relative error is
quadratic in the coefficients; for many resamples all its moments are a few matrix products of the weights with products
of the bases that are the same for all, so every resample has a grid search of its own.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import minimum_filter

from analysis.surface import Surface, inner_range

_AXIS = {0: 1, 1: 64, 2: 32, 3: 12, 4: 7}  # grid points per exponent, by the number of exponents
_MOST = 5
_COARSER = 2  # for draws: their own grid has half the points per exponent
_CELLS_AT_ONCE = 256
_PROBLEMS_AT_ONCE = 128


@dataclass(frozen=True)
class Grid:
    """cells [cell, exponent] inside; shape: points per axis; bases [term][cell, row] of the law over a reference y."""

    cells: np.ndarray
    shape: tuple[int, ...]
    ln_bases: np.ndarray


def grid(surface: Surface, ln_ref: np.ndarray, coarser: int = 1) -> Grid:
    """All cells of the exponents' ranges; ln_ref [row] is the y that the bases are divided by."""
    law = surface.law
    per_axis = -(-_AXIS.get(len(law.ranges), _MOST) // coarser)
    axes = [_axis(span, surface.columns, per_axis) for span in law.ranges.values()]
    axes = [np.log(axis) if logged else axis for axis, logged in zip(axes, surface.logged, strict=True)]
    cells = np.array(list(itertools.product(*axes))).reshape(-1, len(axes))
    points = np.zeros((len(cells), surface.size))
    points[:, len(surface.heads) :] = cells
    ref = ln_ref if not law.power else ln_ref / points[:, surface.power_at, None]
    return Grid(cells, tuple(len(axis) for axis in axes), np.stack([term - ref for term in surface.ln_terms(points)]))


def _axis(span: tuple[float, float] | str, columns: dict, count: int) -> np.ndarray:
    if isinstance(span, str):
        return np.geomspace(*inner_range(columns[span]), count)
    return np.geomspace(*span, count) if span[0] > 0 else np.linspace(*span, count)


def linear_start(surface: Surface, ln_y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted least squares of ln y on the features: exact for affine laws of one term. [problem, p] inside."""
    design = surface.features[0]
    out = []
    for y, w in zip(*np.broadcast_arrays(ln_y - surface.offsets[0], weights), strict=True):
        root = np.sqrt(w)
        out.append(np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0])
    return np.array(out)


def best_cells(found: Grid, ratio: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sum of squared relative errors [problem, cell], infinite where a coefficient is not positive; ln coefficients
    [term, problem, cell]). ratio [1 or problem, row] = y / reference; weights [1 or problem, row]."""
    terms, n_cells, _ = found.ln_bases.shape
    problems = max(len(ratio), len(weights))
    rss, ln_coefficients = np.empty((problems, n_cells)), np.empty((terms, problems, n_cells))
    for cells in _blocks(n_cells, _CELLS_AT_ONCE):
        top = found.ln_bases[:, cells].max(axis=2)
        moments = _products(np.exp(found.ln_bases[:, cells] - top[:, :, None]))
        for draws in _blocks(problems, _PROBLEMS_AT_ONCE):
            r, w = (array if len(array) == 1 else array[draws] for array in (ratio, weights))
            solved, gain = _project(moments, r, w)
            with np.errstate(divide="ignore", invalid="ignore"):
                good = np.logical_and.reduce([c > 0 for c in solved])
                rss[draws, cells] = np.where(good, (w * r * r).sum(axis=1)[:, None] - gain, np.inf)
                for t, c in enumerate(solved):
                    ln_coefficients[t, draws, cells] = np.where(good, np.log(c), np.nan) - top[t]
    return rss, ln_coefficients


def _blocks(count: int, size: int) -> list[slice]:
    return [slice(at, min(at + size, count)) for at in range(0, count, size)]


def _products(bases: np.ndarray) -> dict:
    """(term,) -> bases and (term, term) -> their products, [row, cell], from bases [term, cell, row]."""
    turned = [np.ascontiguousarray(base.T) for base in bases]
    pairs = {(s, t): turned[s] * turned[t] for s in range(len(bases)) for t in range(s, len(bases))}
    return pairs | {(t,): base for t, base in enumerate(turned)}


def _project(moments: dict, ratio: np.ndarray, weights: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Coefficients [term][problem, cell] of the normal equations and what they take off the total: elimination by hand,
    over all problems and cells at once."""
    count = sum(len(key) == 1 for key in moments)
    b = [(weights * ratio) @ moments[t,] for t in range(count)]
    a = {key: np.broadcast_to(weights @ value, b[0].shape) for key, value in moments.items() if len(key) == 2}
    right = list(b)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for k in range(count):
            a[k, k] = a[k, k] * (1 + 1e-13)
            for i in range(k + 1, count):
                factor = a[k, i] / a[k, k]
                for j in range(i, count):
                    a[i, j] = a[i, j] - factor * a[k, j]
                b[i] = b[i] - factor * b[k]
        solved: list = [None] * count
        for k in reversed(range(count)):
            solved[k] = (b[k] - sum(a[k, j] * solved[j] for j in range(k + 1, count))) / a[k, k]
        return solved, sum(c * r for c, r in zip(solved, right, strict=True))


def starts(surface: Surface, ln_y: np.ndarray, weights: np.ndarray, count: int = 4) -> np.ndarray:
    """Up to `count` starts of one problem, [start, p] inside: the best local minima of the grid. ln_y, weights [row]."""
    if surface.features is not None and len(surface.law.terms) == 1 and not surface.law.power:
        return linear_start(surface, ln_y[None], weights[None])
    found = grid(surface, ln_y)
    rss, ln_c = best_cells(found, np.ones((1, len(ln_y))), weights[None])
    if not np.isfinite(rss).any():
        return _without_a_term(found, weights)
    order = _spread_cells(rss[0], found.shape, count)
    return np.concatenate([ln_c[:, 0, order].T, found.cells[order]], axis=1)


def _spread_cells(rss: np.ndarray, shape: tuple[int, ...], count: int) -> list[int]:
    """The best local minima of the grid, then the best cells at least a quarter of an axis from all that were taken: starts
    that agree from afar say more than one alone."""
    ranked = np.argsort(rss, kind="stable")[: int(np.isfinite(rss).sum())]
    field, at = rss.reshape(shape), np.stack(np.unravel_index(ranked, shape), axis=1)
    lowest_around = minimum_filter(field, size=3, mode="nearest") == field
    order = list(np.flatnonzero(lowest_around.ravel()[ranked])[:count])
    size = np.maximum(np.array(shape) - 1, 1)
    free = np.ones(len(ranked), bool)
    for i in order:
        free &= (np.abs(at - at[i]) / size).max(axis=1) >= 0.25
    while len(order) < count and free.any():
        order.append(int(np.argmax(free)))
        free &= (np.abs(at - at[order[-1]]) / size).max(axis=1) >= 0.25
    return [int(ranked[i]) for i in order]


def _without_a_term(found: Grid, weights: np.ndarray) -> np.ndarray:
    """Starts where no cell has all coefficients positive: each term in turn is set to a thousandth of y."""
    out = []
    for gone in range(len(found.ln_bases)):
        kept = [t for t in range(len(found.ln_bases)) if t != gone]
        rss, ln_c = best_cells(Grid(found.cells, found.shape, found.ln_bases[kept]), np.ones((1, len(weights))), weights[None])
        cell = int(np.argmin(rss[0]))
        if np.isfinite(rss[0, cell]):
            linear = np.empty(len(found.ln_bases))
            linear[kept] = ln_c[:, 0, cell]
            linear[gone] = np.log(1e-3) - float(np.median(found.ln_bases[gone, cell]))
            out.append(np.concatenate([linear, found.cells[cell]]))
    if not out:
        middle = found.cells[len(found.cells) // 2]
        out = [np.concatenate([-np.median(found.ln_bases[:, len(found.cells) // 2], axis=1), middle])]
    return np.array(out)


def starts_for_draws(surface: Surface, ln_y: np.ndarray, weights: np.ndarray, ln_ref: np.ndarray) -> np.ndarray:
    """The best grid cell of every problem, [problem, p] inside; NaN where no cell has positive coefficients.

    ln_y [1 or problem, row], weights [1 or problem, row]; ln_ref [row]: a y near all of them.
    """
    if surface.features is not None and len(surface.law.terms) == 1 and not surface.law.power:
        return np.full((max(len(ln_y), len(weights)), surface.size), np.nan)
    found = grid(surface, ln_ref, _COARSER)
    problems = max(len(ln_y), len(weights))
    out = np.full((problems, surface.size), np.nan)
    block = max(1, 4_000_000 // len(found.cells))
    for at in range(0, problems, block):
        rows = slice(at, min(at + block, problems))
        ratio = np.exp((ln_y if len(ln_y) == 1 else ln_y[rows]) - ln_ref)
        rss, ln_c = best_cells(found, ratio, weights if len(weights) == 1 else weights[rows])
        cell = np.argmin(rss, axis=1)
        problem = np.arange(len(cell))
        out[rows, : len(surface.heads)] = ln_c[:, problem, cell].T
        out[rows, len(surface.heads) :] = found.cells[cell]
    return out
