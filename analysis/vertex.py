"""The minimum of one budget's valley: a polynomial of degree 2 or 3 in ln size through all rows, for many resamples at once.

A parabola's vertex is biased where the two flanks differ (3 to 14 % at sizes within a factor 8 of the optimum); a cubic
takes 95 to 99 % of that away and costs variance. Fitted in the loss itself, a floor added to every loss moves no vertex.
"""

from dataclasses import dataclass

import numpy as np

from analysis.valleys import BRACKETED

MIN_SIZES = 5
MAX_CURVATURE_SE = 0.5  # relative: beyond it the valley may as well be flat
PRIOR_DOF = 4  # weight of the pooled residual variance beside a budget's own


@dataclass(frozen=True)
class Polynomial:
    """y = sum_i coef[i] t^i, t = (x - centre) / reach: design [row, 1 + degree] at the rows."""

    centre: float
    reach: float
    design: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, degree: int) -> "Polynomial":
        centre, reach = float(x.mean()), float(np.ptp(x)) / 2 or 1.0
        return cls(centre, reach, ((x - centre) / reach)[:, None] ** np.arange(degree + 1))

    def fit(self, y: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Least squares: y [draw, row], weights [draw, row] -> coef [draw, 1 + degree]; NaN where a draw lacks rows."""
        if weights is None:
            return y @ np.linalg.pinv(self.design).T
        moments = np.einsum("dr,ri,rj->dij", weights, self.design, self.design)
        good = np.linalg.cond(moments) < 1e12
        moments[~good] = np.eye(moments.shape[1])
        coef = np.linalg.solve(moments, ((weights * y) @ self.design)[..., None])[..., 0]
        return np.where(good[:, None], coef, np.nan)

    def minimum(self, coef: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """t [draw] of the minimum and the curvature there; NaN where the curve has none.

        Slope c1 + 2 c2 t + 3 c3 t^2: its rising root, in the form that does not cancel; the curvature is 2 sqrt(...) there.
        """
        c1, c2 = coef[:, 1], coef[:, 2]
        c3 = coef[:, 3] if coef.shape[1] > 3 else np.zeros(len(coef))
        with np.errstate(all="ignore"):
            root = np.sqrt(c2 * c2 - 3 * c1 * c3)
            t = np.where(c2 >= 0, -c1 / (c2 + root), (root - c2) / (3 * c3))
        good = np.isfinite(t) & (root > 0)
        return np.where(good, t, np.nan), np.where(good, 2 * root, np.nan)

    def value(self, coef: np.ndarray, t: np.ndarray) -> np.ndarray:
        return (coef * t[:, None] ** np.arange(coef.shape[1])).sum(axis=1)


@dataclass(frozen=True)
class Minimum:
    """One budget's answer. x = ln size, y in the units fitted; variances by the delta method; `status` as in analysis.codes."""

    status: str
    x: float = np.nan
    y: float = np.nan
    x_var: float = np.nan
    y_var: float = np.nan
    curvature_se: float = np.nan  # relative


def minimum(x: np.ndarray, y: np.ndarray, degree: int, variance: float) -> Minimum:
    """The vertex through rows x, y [row] whose residual variance is `variance`, or why there is none."""
    if len(np.unique(x)) < MIN_SIZES:
        return Minimum("fewer_than_5_sizes")
    if np.ptp(y) == 0:
        return Minimum("flat")
    curve = Polynomial.of(x, degree)
    coef = curve.fit(y[None])
    t, bend = curve.minimum(coef)
    if not np.isfinite(t[0]):
        return Minimum(_edge(x, y, "not_convex"))
    low = curve.value(coef, t)
    if not bracketed(curve, t, low, y[None])[0]:
        return Minimum(_edge(x, y, "vertex_outside"))
    x_var, y_var, relative = _variances(curve, coef[0], t[0], bend[0], variance)
    if not relative < MAX_CURVATURE_SE:
        return Minimum("curvature_uncertain", curvature_se=relative)
    return Minimum(BRACKETED, float(curve.centre + curve.reach * t[0]), float(low[0]), x_var, y_var, relative)


def bracketed(curve: Polynomial, t: np.ndarray, low: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """bool [draw]: the vertex is inside the rows that count, with a higher loss than it on either side."""
    at = curve.design[:, 1]
    higher = y > low[:, None]
    if weights is not None:
        higher &= weights > 0
    return (higher & (at < t[:, None])).any(axis=1) & (higher & (at > t[:, None])).any(axis=1)


def _edge(x: np.ndarray, y: np.ndarray, otherwise: str) -> str:
    """Which way the minimum ran out of the sizes, when the lowest row lies at an end."""
    best = x[np.argmin(y)]
    if best in (x.min(), x.max()):
        return "minimum_at_smallest_size" if best == x.min() else "minimum_at_largest_size"
    return otherwise


def _variances(curve: Polynomial, coef: np.ndarray, t: float, bend: float, variance: float) -> tuple[float, float, float]:
    """(var of x, var of y at the vertex, relative se of the curvature)."""
    power = np.arange(len(coef))
    plain = t**power
    slope = power * t ** np.maximum(power - 1, 0)
    second = power * (power - 1) * t ** np.maximum(power - 2, 0)
    third = 6 * coef[3] if len(coef) > 3 else 0.0
    covariance = variance * np.linalg.pinv(curve.design.T @ curve.design)
    moved = second - third * slope / bend
    x_var = float(slope @ covariance @ slope) * (curve.reach / bend) ** 2
    return x_var, float(plain @ covariance @ plain), float(np.sqrt(moved @ covariance @ moved) / bend)


def residuals(x: np.ndarray, y: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(fitted [row], residuals over sqrt(1 - leverage) [row], degrees of freedom) of one budget."""
    design = Polynomial.of(x, degree).design
    hat = design @ np.linalg.pinv(design)
    left = y - hat @ y
    free = len(y) - min(degree + 1, len(np.unique(x)))
    return hat @ y, left / np.sqrt(np.maximum(1 - np.diag(hat), 1e-3)) if free > 0 else np.zeros_like(y), free
