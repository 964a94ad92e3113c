"""Iso-FLOP valleys: at one compute budget, loss against dictionary size; is there a minimum, and where.

Everything is in logarithms: x = ln n_latents, y = ln loss (mean over seeds). NaN marks a size that was not trained.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

BRACKETED = "bracketed"
NEEDED_POINTS = {"parabola3": 3, "parabola5": 4, "cubic": 4}


@dataclass(frozen=True)
class Cells:
    """Seed means on the (budget, size) grid, and the rows behind them.

    budgets [budget] target_flops, rising; flops [budget] geometric mean of flops_dense; sizes [size] n_latents, rising;
    ln_y, ln_tokens [budget, size]; count [budget, size] runs per cell; row_* [row].
    """

    budgets: np.ndarray
    flops: np.ndarray
    sizes: np.ndarray
    ln_y: np.ndarray
    ln_tokens: np.ndarray
    count: np.ndarray
    row_budget: np.ndarray
    row_size: np.ndarray
    row_trunk: np.ndarray
    row_ln_y: np.ndarray


def cells(rows: pd.DataFrame, y: str) -> Cells:
    """Group finished rows by target_flops and n_latents; the mean over seeds is taken in ln y."""
    budgets, row_budget = np.unique(rows["target_flops"].to_numpy(float), return_inverse=True)
    sizes, row_size = np.unique(rows["n_latents"].to_numpy(int), return_inverse=True)
    _, row_trunk = np.unique(rows["trunk_id"].to_numpy(str), return_inverse=True)
    ln_y = np.log(rows[y].to_numpy(float))
    shape = (len(budgets), len(sizes))
    count = np.zeros(shape, int)
    np.add.at(count, (row_budget, row_size), 1)

    def mean(values: np.ndarray) -> np.ndarray:
        total = np.zeros(shape)
        np.add.at(total, (row_budget, row_size), values)
        return np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)

    ln_c = np.log(rows["flops_dense"].to_numpy(float))
    flops = np.exp(np.bincount(row_budget, ln_c, len(budgets)) / np.bincount(row_budget, minlength=len(budgets)))
    ln_tokens = mean(np.log(rows["n_tokens"].to_numpy(float)))
    return Cells(budgets, flops, sizes, mean(ln_y), ln_tokens, count, row_budget, row_size, row_trunk, ln_y)


@dataclass(frozen=True)
class Valley:
    """The minimum of one fitted curve: status 'bracketed' or why there is none (then both numbers are NaN)."""

    status: str
    ln_x: float = math.nan
    ln_y: float = math.nan


def vertices(ln_x: np.ndarray, ln_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertex of the parabola through the lowest point and its two neighbours, for many curves at once.

    ln_x [size] rising; ln_y [curve, size], finite. Gives (x [curve], y [curve]), NaN for a curve whose lowest point is
    at an end or that is flat there. An interior lowest point makes the parabola convex with its vertex between the two
    neighbours, so nothing is extrapolated. Newton's form: y1 + s12 (x - x1) + c (x - x1)(x - x2).
    """
    if len(ln_x) < 3:
        return np.full(len(ln_y), np.nan), np.full(len(ln_y), np.nan)
    best = np.argmin(ln_y, axis=1)
    inside = (best > 0) & (best < len(ln_x) - 1)
    middle, row = np.clip(best, 1, len(ln_x) - 2), np.arange(len(ln_y))
    x1, x2, x3 = ln_x[middle - 1], ln_x[middle], ln_x[middle + 1]
    y1, y2, y3 = ln_y[row, middle - 1], ln_y[row, middle], ln_y[row, middle + 1]
    left, right = (y2 - y1) / (x2 - x1), (y3 - y2) / (x3 - x2)
    curvature = (right - left) / (x3 - x1)
    good = inside & (curvature > 0)
    safe = np.where(good, curvature, 1.0)
    x = (x1 + x2) / 2 - left / (2 * safe)
    y = y1 + left * (x - x1) + safe * (x - x1) * (x - x2)
    return np.where(good, x, np.nan), np.where(good, y, np.nan)


def valley(ln_x: np.ndarray, ln_y: np.ndarray, form: str = "parabola3") -> Valley:
    """Minimum of one valley: ln_x [size] rising, ln_y [size] (NaN = size absent).

    Forms: `parabola3` through the lowest point and its neighbours (default); `parabola5` and `cubic`, least squares on
    the five points around the lowest (all four when there are four), as checks. The status is 'bracketed' only when
    the lowest sampled size is strictly inside the sampled sizes, the curve is convex at its stationary point and that
    point is inside the points it was fitted to. Errors: `ValueError` for an unknown form.
    """
    if form not in NEEDED_POINTS:
        raise ValueError(f"Unknown valley form {form!r}: choose one of {', '.join(NEEDED_POINTS)}.")
    keep = np.isfinite(ln_y)
    x, y = ln_x[keep], ln_y[keep]
    if len(x) < NEEDED_POINTS[form]:
        return Valley("too_few_sizes")
    best = int(np.argmin(y))
    if y.max() == y.min():
        return Valley("flat")
    if best in (0, len(x) - 1):
        return Valley("minimum_at_smallest_size" if best == 0 else "minimum_at_largest_size")
    if form == "parabola3":
        at, low = vertices(x, y[None])
        return Valley(BRACKETED, float(at[0]), float(low[0])) if np.isfinite(at[0]) else Valley("not_convex")
    start = max(min(best - 2, len(x) - 5), 0)
    return _stationary(x[start : start + 5], y[start : start + 5], 2 if form == "parabola5" else 3)


def _stationary(x: np.ndarray, y: np.ndarray, degree: int) -> Valley:
    """Minimum of the least-squares polynomial of degree 2 or 3, x centred so that the normal equations are well scaled.

    Slope c + b t + a t^2; its rising root is 2c / (-b - r) = (-b + r) / 2a, r = sqrt(b^2 - 4ac), taken in the form that
    does not cancel (a is 0 for a parabola and may be nearly 0 for a cubic).
    """
    centre = x.mean()
    curve = np.polynomial.Polynomial.fit(x - centre, y, degree).convert()
    c, b, a = np.append(curve.deriv().coef, [0.0] * (4 - len(curve)))[:3]
    inner = b * b - 4 * a * c
    if inner <= 0 or (a == 0 and b <= 0):
        return Valley("not_convex")
    root = math.sqrt(inner)
    at = -2 * c / (b + root) if b >= 0 else (-b + root) / (2 * a)
    if not x[0] - centre < at < x[-1] - centre:
        return Valley("vertex_outside")
    return Valley(BRACKETED, float(at + centre), float(curve(at)))


def turns(ln_y: np.ndarray) -> int:
    """How often the sequence changes between falling and rising: 1 for a valley."""
    steps = np.sign(np.diff(ln_y[np.isfinite(ln_y)]))
    steps = steps[steps != 0]
    return int(np.count_nonzero(np.diff(steps)))
