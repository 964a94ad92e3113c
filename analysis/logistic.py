"""Logistic regression for many weightings at once, and what clusters of dependent rows do to its errors and tests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.stats import chi2

# Coefficients of the standardised columns carry the prior N(0, 1 / RIDGE): 0.001 moves a fit to 300 concepts by about
# 1e-5 and keeps it finite where presence is separated by frequency (all present, none present, a clean step).
RIDGE = 1e-3
LARGEST_SLOPE = 50.0  # per standard deviation: beyond it the columns separate the outcomes and only the prior holds the slope
NEWTON_STEPS = 100
GRADIENT_TOLERANCE = 1e-6
CELLS = 2_000_000  # draws times pairs solved at once: bounds the memory at some 100 MB


class Tested(NamedTuple):
    """A chi-squared statistic with its degrees of freedom and p."""

    statistic: float
    df: int
    p: float


def fit_logistic(columns: np.ndarray, present: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Penalised maximum likelihood of P(present) = sigmoid(coef[0] + columns @ coef[1:]) for many weightings at once.

    Newton's method on sum w log P - RIDGE / 2 |coef of standardised columns|^2, rows of `weights` in batches.
    columns [pair, column]; present [pair] in {0, 1}; weights [draw, pair] -> coefficients [draw, 1 + column] in the
    units of `columns`. Every row but the first starts where the first ended. Raises ArithmeticError if the gradient
    does not vanish.
    """
    centre, spread = columns.mean(axis=0), columns.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    x = np.concatenate([np.ones((len(columns), 1)), (columns - centre) / spread], axis=1)
    coef = [_newton(x, present, weights[:1], np.zeros((1, x.shape[1])))]
    at_once = max(1, CELLS // max(len(x), 1))
    for first in range(1, len(weights), at_once):
        part = weights[first : first + at_once]
        coef.append(_newton(x, present, part, np.repeat(coef[0], len(part), axis=0)))
    coef = np.concatenate(coef)
    slopes = coef[:, 1:] / spread
    return np.concatenate([coef[:, :1] - slopes @ centre[:, None], slopes], axis=1)


def _newton(x: np.ndarray, present: np.ndarray, weights: np.ndarray, coef: np.ndarray) -> np.ndarray:
    """Coefficients [draw, column of x] at which the gradient vanishes, from the start `coef`.

    A step that lowers the penalised likelihood of a draw is halved, for that draw alone.
    """
    products = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    sign = 2 * present - 1
    reached = np.full(len(coef), -np.inf)
    step, gradient = np.zeros_like(coef), np.full_like(coef, np.inf)
    for _ in range(NEWTON_STEPS):
        trial = coef + step
        seen = 1.0 / (1.0 + np.exp(-sign * np.clip(trial @ x.T, -500, 500)))  # probability of what was seen
        value = np.einsum("dp,dp->d", weights, np.log(seen)) - RIDGE / 2 * (trial**2).sum(axis=1)
        better = value >= reached - 1e-12 * np.abs(reached)
        coef = np.where(better[:, None], trial, coef)
        reached = np.where(better, value, reached)
        gradient[better] = ((weights * (1 - seen)) @ (sign[:, None] * x) - RIDGE * trial)[better]
        if np.abs(gradient).max(initial=0.0) < GRADIENT_TOLERANCE * len(x):
            return coef
        curvature = ((weights * seen * (1 - seen)) @ products).reshape(len(coef), *[x.shape[1]] * 2)
        newton = np.linalg.solve(curvature + RIDGE * np.eye(x.shape[1]), gradient[:, :, None])[:, :, 0]
        step = np.where(better[:, None], newton, step / 2)
    raise ArithmeticError(f"the logistic fit did not converge in {NEWTON_STEPS} Newton steps")


def log_likelihoods(present: np.ndarray, logit: np.ndarray) -> np.ndarray:
    """ln P of what was seen, per pair."""
    return -np.logaddexp(0.0, np.where(present > 0, -logit, logit))


def with_constant(columns: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(columns), 1)), columns], axis=1)


def clustered_covariance(columns: np.ndarray, present: np.ndarray, coef: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Covariance [1 + column, 1 + column] of a fit's coefficients when rows of one cluster are not independent.

    The sandwich H^-1 (sum over clusters of g g') H^-1 times C / (C - 1), g the gradient of a cluster (Liang and Zeger
    1986).
    """
    x = with_constant(columns)
    p = 1 / (1 + np.exp(-np.clip(x @ coef, -500, 500)))
    gradients = _by_cluster(x * (present - p)[:, None], cluster)
    inverse = np.linalg.pinv((x * (p * (1 - p))[:, None]).T @ x)
    n = len(gradients)
    return inverse @ (gradients.T @ gradients) @ inverse * n / max(n - 1, 1)


def score_test(columns: np.ndarray, more: np.ndarray, present: np.ndarray, cluster: np.ndarray) -> Tested:
    """Do the columns `more` belong beside `columns`? The score test whose variance is taken over clusters.

    Only the fit WITHOUT them is needed, so a dictionary with everything present or absent does no harm. With g_c the
    gradient of cluster c in the coefficients of `more` after projection on those of `columns`, the statistic is
    (sum g)' (sum g g')^-1 (sum g), chi-squared with the rank of the middle as degrees of freedom (Boos 1992). Under
    dependence inside clusters a likelihood ratio would reject far too often; this does not.
    """
    coef = fit_logistic(columns, present, np.ones((1, len(present))))[0]
    x, spread = with_constant(columns), more.std(axis=0)
    p = 1 / (1 + np.exp(-np.clip(x @ coef, -500, 500)))
    weight = p * (1 - p)
    z = (more - more.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    z = z - x @ np.linalg.lstsq(x * np.sqrt(weight)[:, None], z * np.sqrt(weight)[:, None], rcond=None)[0]
    gradients = _by_cluster(z * (present - p)[:, None], cluster)
    middle = gradients.T @ gradients
    total = gradients.sum(axis=0)
    df = int(np.linalg.matrix_rank(middle, hermitian=True))
    statistic = float(total @ np.linalg.pinv(middle, hermitian=True) @ total)
    return Tested(statistic, df, float(chi2.sf(statistic, df)) if df else 1.0)


def _by_cluster(rows: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Sums of rows [cluster, column]."""
    _, at = np.unique(cluster, return_inverse=True)
    return np.stack([np.bincount(at, weights=column) for column in rows.T], axis=1)


class Lapsed(NamedTuple):
    """P = (1 - lapse) sigmoid(coef[0] + columns @ coef[1:]) and the clustered covariance of (*coef, lapse)."""

    coef: np.ndarray
    lapse: float
    covariance: np.ndarray


def fit_lapsed(columns: np.ndarray, present: np.ndarray, cluster: np.ndarray) -> Lapsed:
    """Maximum likelihood of a logistic that saturates at 1 - lapse, 0 <= lapse <= 0.5, for concepts that are never one latent.

    Raises ArithmeticError where the optimiser does not converge.
    """
    x = with_constant(columns)
    start = np.append(fit_logistic(columns, present, np.ones((1, len(present))))[0], 0.02)
    scale = np.append(np.maximum(np.abs(x).max(axis=0), 1.0), 1.0)

    def negative(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _lapsed(theta / scale, x, present)
        return -value.sum() / len(x), -gradient.sum(axis=0) / scale / len(x)

    bounds = [(None, None)] * x.shape[1] + [(0.0, 0.5)]
    options = {"maxiter": 2000, "ftol": 1e-14}
    found = minimize(negative, start * scale, jac=True, bounds=bounds, method="L-BFGS-B", options=options)
    if not found.success:
        raise ArithmeticError(f"the logistic with a lapse did not converge: {found.message}")
    theta = found.x / scale
    gradients = _by_cluster(_lapsed(theta, x, present)[1], cluster)
    inside = np.append(np.ones(x.shape[1], bool), 1e-6 < theta[-1] < 0.5 - 1e-6)  # a bound is not estimated
    step = 1e-5 * np.maximum(np.abs(theta), 1e-2)
    curvature = np.stack([_slope(theta, i, step[i], x, present) for i in range(len(theta))])[np.ix_(inside, inside)]
    inverse = np.linalg.pinv(-curvature)
    covariance = np.zeros((len(theta), len(theta)))
    middle = gradients[:, inside].T @ gradients[:, inside]
    covariance[np.ix_(inside, inside)] = inverse @ middle @ inverse.T * len(gradients) / max(len(gradients) - 1, 1)
    return Lapsed(theta[:-1], float(theta[-1]), covariance)


def _lapsed(theta: np.ndarray, x: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ln P of what was seen [pair] and its gradient [pair, parameter]."""
    s = 1 / (1 + np.exp(-np.clip(x @ theta[:-1], -500, 500)))
    top = 1 - theta[-1]
    absent = np.maximum(1 - top * s, 1e-300)
    by_logit = np.where(present > 0, 1 - s, -top * s * (1 - s) / absent)
    by_lapse = np.where(present > 0, -1 / top, s / absent)
    value = np.where(present > 0, np.log(np.maximum(top * s, 1e-300)), np.log(absent))
    return value, np.concatenate([x * by_logit[:, None], by_lapse[:, None]], axis=1)


def _slope(theta: np.ndarray, i: int, step: float, x: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Derivative of the summed gradient by parameter i, by central differences."""
    ends = []
    for sign in (1, -1):
        moved = theta.copy()
        moved[i] += sign * step
        ends.append(_lapsed(moved, x, present)[1].sum(axis=0))
    return (ends[0] - ends[1]) / (2 * step)
