"""A power law through points of unequal precision, with the noise of both stages: each point's own and their scatter."""

from dataclasses import dataclass

import numpy as np

from analysis.uncertainty import draw_scatter


@dataclass(frozen=True)
class Line:
    """ln y = level + slope (ln C - ln_x_ref), weighted; weights [point]; draws_* [draw] hold both stages' noise."""

    ln_x_ref: float
    level: float
    slope: float
    dof: int
    residuals: np.ndarray
    draws_level: np.ndarray
    draws_slope: np.ndarray
    weights: np.ndarray

    def ln(self, ln_c: float) -> float:
        return self.level + self.slope * (ln_c - self.ln_x_ref)

    def ln_draws(self, ln_c: float) -> np.ndarray:
        return self.draws_level + self.draws_slope * (ln_c - self.ln_x_ref)


def weighted_line(ln_x: np.ndarray, ln_y: np.ndarray, variance: np.ndarray, drawn: np.ndarray, rng) -> Line:
    """Least squares with weights 1 / (variance + tau^2), tau^2 the moment estimate of what the variances leave unexplained.

    drawn [draw, point]: resampled ln_y, NaN where lost; a draw with under 3 points is lost.
    """
    usual = float(np.median(variance)) or 1.0
    plain = _line(ln_x, ln_y[None], np.ones_like(ln_x))
    left = ln_y - plain[0][0] - plain[1][0] * (ln_x - plain[2])
    dof = len(ln_x) - 2
    tau2 = max(0.0, float((left**2).sum() / dof - variance.mean())) if dof > 0 else 0.0
    weight = 1 / (variance + tau2 + 1e-3 * usual)
    level, slope, ref = _line(ln_x, ln_y[None], weight)
    left = ln_y - level[0] - slope[0] * (ln_x - ref)
    noisy = drawn + draw_scatter(left, dof, np.nanvar(drawn, axis=0), drawn.shape, rng)
    levels, slopes, _ = _line(ln_x, noisy, weight, ref)
    return Line(ref, float(level[0]), float(slope[0]), dof, left, levels, slopes, weight)


def line_slopes(ln_x: np.ndarray, ln_y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Slopes [draw] of ln_y [draw, point] on ln_x with fixed weights [point]; NaN where under 3 points are left."""
    return _line(ln_x, ln_y, weights)[1]


def _line(ln_x: np.ndarray, ln_y: np.ndarray, weight: np.ndarray, ref: float | None = None) -> tuple:
    """(level [draw], slope [draw], reference) of weighted lines; NaN entries of ln_y [draw, point] are left out."""
    w = np.where(np.isfinite(ln_y), weight, 0.0)
    y = np.where(np.isfinite(ln_y), ln_y, 0.0)
    ref = float((weight * ln_x).sum() / weight.sum()) if ref is None else ref
    x = ln_x - ref
    total, first, second = w.sum(1), w @ x, w @ x**2
    with np.errstate(all="ignore"):
        bottom = total * second - first**2
        slope = (total * ((w * y) @ x) - first * (w * y).sum(1)) / bottom
        level = ((w * y).sum(1) - slope * first) / total
    lost = (np.isfinite(ln_y).sum(1) < 3) & (ln_y.shape[1] >= 3)
    return np.where(lost, np.nan, level), np.where(lost, np.nan, slope), ref
