"""Power laws, fitted in logarithms: analytic where linear, otherwise least squares with a convergence certificate."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

GRADIENT_TOLERANCE = 1e-7  # of the scaled gradient, see FloorLaw
MAX_EXPONENT = 5.0


@dataclass(frozen=True)
class PowerLaw:
    """y = exp(ln_level) (x / x_ref)^slope. `residuals` [point] in ln y; `dof` = points - 2."""

    ln_x_ref: float
    ln_level: float
    slope: float
    residuals: np.ndarray
    dof: int

    def ln(self, ln_x: np.ndarray) -> np.ndarray:
        return self.ln_level + self.slope * (np.asarray(ln_x) - self.ln_x_ref)


def power_law(ln_x: np.ndarray, ln_y: np.ndarray) -> PowerLaw:
    """Ordinary least squares of ln y on ln x, exact. Errors: `ValueError` under two distinct x."""
    if len(np.unique(ln_x)) < 2:
        raise ValueError(f"A power law needs at least 2 distinct budgets, got {len(np.unique(ln_x))}: add budgets.")
    ln_x, ln_y = np.asarray(ln_x, float), np.asarray(ln_y, float)
    reference = float(ln_x.mean())
    centred = ln_x - reference
    slope = float(centred @ ln_y / (centred @ centred))
    level = float(ln_y.mean())
    return PowerLaw(reference, level, slope, ln_y - level - slope * centred, len(ln_x) - 2)


def power_laws(ln_x: np.ndarray, ln_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for many draws: ln_x [point], ln_y [draw, point] with NaN for a point that a draw lost.

    Gives (value at the mean of ln_x [draw], slope [draw]); NaN where fewer than 3 points are left.
    """
    keep = np.isfinite(ln_y)
    weight = keep.astype(float)
    total = weight.sum(axis=1)
    safe = np.where(total >= 3, total, 1.0)
    values = np.where(keep, ln_y, 0.0)
    mean_x, mean_y = weight @ ln_x / safe, values.sum(axis=1) / safe
    dx = (ln_x[None] - mean_x[:, None]) * weight
    spread = (dx**2).sum(axis=1)
    good = (total >= 3) & (spread > 0)
    slope = np.divide((dx * values).sum(axis=1), spread, out=np.full(len(ln_y), np.nan), where=good)
    return np.where(good, mean_y + slope * (np.mean(ln_x) - mean_x), np.nan), slope


@dataclass(frozen=True)
class FloorLaw:
    """y = floor + exp(ln_amplitude) (x / x_ref)^-exponent, with its certificate.

    `gradient`: largest |d cost / d parameter| among parameters off their bounds, over the total sum of squares of ln y
    about its mean; `at_bound` names parameters on a bound; `agreeing_starts` of 4 reached the same cost.
    """

    ln_x_ref: float
    ln_amplitude: float
    exponent: float
    floor: float
    residuals: np.ndarray
    gradient: float
    at_bound: tuple[str, ...]
    agreeing_starts: int

    @property
    def status(self) -> str:
        """'ok', 'at_bound' or 'not_converged'. The optimiser's own word is not asked."""
        if not self.gradient <= GRADIENT_TOLERANCE:
            return "not_converged"
        return "at_bound" if self.at_bound else "ok"

    def ln(self, ln_x: np.ndarray) -> np.ndarray:
        return np.log(self.floor + np.exp(self.ln_amplitude - self.exponent * (np.asarray(ln_x) - self.ln_x_ref)))


def floor_law(ln_x: np.ndarray, ln_y: np.ndarray) -> FloorLaw:
    """Least squares of ln y on ln(E + A x^-a), 0 <= E < min y, 0 <= a <= 5.

    From four floors (0, .3, .6, .9 of the lowest y) with A and a projected on each; the best is kept.
    Errors: `ValueError` under 4 points: three parameters on three points are an interpolation.
    """
    if len(ln_x) < 4:
        raise ValueError(f"A power law with a floor needs at least 4 budgets, got {len(ln_x)}: add budgets.")
    reference, lowest = float(np.mean(ln_x)), float(np.min(ln_y))
    dx, y = np.asarray(ln_x, float) - reference, np.asarray(ln_y, float) - lowest
    starts = [_projected(dx, y, share) for share in (0.0, 0.3, 0.6, 0.9)]
    found = [_descend(dx, y, point) for point in starts]
    best = min(found, key=lambda fit: fit.cost)
    total = float(((y - y.mean()) ** 2).sum())
    agreeing = int(sum(fit.cost <= best.cost + 1e-9 * total for fit in found))
    gradient, at_bound = _certificate(best, total)
    level, exponent, share = best.x
    floor = 0.0 if "floor" in at_bound and share < 0.5 else share * math.exp(lowest)
    return FloorLaw(
        reference, float(level) + lowest, float(exponent), float(floor), -best.fun, gradient, at_bound, agreeing
    )


def _model(point: np.ndarray, dx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ln(share + exp(level - a dx)) [..., x] and its derivatives [..., x, 3] at point [..., 3]; y in units of the lowest."""
    level, exponent, share = (point[..., i, None] for i in range(3))
    power = np.exp(level - exponent * dx)
    value = share + power
    return np.log(value), np.stack([power / value, -dx * power / value, 1 / value], axis=-1)


def floor_laws(ln_x: np.ndarray, ln_y: np.ndarray, start: FloorLaw) -> tuple[np.ndarray, np.ndarray]:
    """`floor_law` for many draws at once from one start: ln_y [draw, point], all finite.

    Gives (ln_amplitude, exponent, floor) [draw, 3] and the scaled gradient of each draw's certificate [draw].
    Projected Levenberg-Marquardt: a parameter on its bound that the gradient pushes outwards is held there.
    """
    dx, lowest = ln_x - start.ln_x_ref, ln_y.min(axis=1, keepdims=True)
    y = ln_y - lowest
    low, high = np.array([-np.inf, 0.0, 0.0]), np.array([np.inf, MAX_EXPONENT, 1.0])
    share = start.floor / math.exp(float(start.ln(ln_x).min()))
    point = np.stack(np.broadcast_arrays(start.ln_amplitude - lowest[:, 0], start.exponent, share), axis=1)
    point = np.clip(point, low, [np.inf, MAX_EXPONENT, 0.999])
    damping = np.full(len(y), 1e-3)
    for _ in range(200):
        cost, gradient, curvature, free = _state(point, dx, y, low, high)
        system = curvature * free[:, :, None] * free[:, None, :]
        diagonal = np.einsum("dii->di", system)
        diagonal += np.where(free, damping[:, None] * diagonal + 1e-14, 1.0)
        step = np.linalg.solve(system, -(gradient * free)[..., None])[..., 0]
        trial = np.clip(point + step, low, high)
        with np.errstate(all="ignore"):
            better = ((_model(trial, dx)[0] - y) ** 2).sum(axis=1) <= cost
        point = np.where(better[:, None], trial, point)
        damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-12, 1e8)
    _, gradient, _, free = _state(point, dx, y, low, high)
    total = ((y - y.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    scaled = np.abs(gradient * free).max(axis=1) / np.where(total > 0, total, np.nan)
    return np.stack([point[:, 0] + lowest[:, 0], point[:, 1], point[:, 2] * np.exp(lowest[:, 0])], axis=1), scaled


def _state(point: np.ndarray, dx: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray):
    """Cost [draw], gradient [draw, 3], Gauss-Newton curvature [draw, 3, 3], which parameters may move [draw, 3]."""
    value, slope = _model(point, dx)
    residual = value - y
    gradient = np.einsum("dxi,dx->di", slope, residual)
    held = ((point <= low) & (gradient > 0)) | ((point >= high) & (gradient < 0))
    return (residual**2).sum(axis=1), gradient, np.einsum("dxi,dxj->dij", slope, slope), ~held


def _projected(dx: np.ndarray, y: np.ndarray, share: float) -> tuple[float, float, float]:
    line = power_law(dx, np.log(np.exp(y) - share))
    return line.ln_level, float(np.clip(-line.slope, 1e-6, MAX_EXPONENT - 1e-6)), share


def _descend(dx: np.ndarray, y: np.ndarray, point: tuple[float, float, float]):
    return least_squares(
        lambda p: _model(p, dx)[0] - y,
        point,
        jac=lambda p: _model(p, dx)[1],
        bounds=([-np.inf, 0.0, 0.0], [np.inf, MAX_EXPONENT, 1.0]),
        ftol=1e-15,
        xtol=1e-15,
        gtol=1e-15,
        max_nfev=300,
    )


def _certificate(fit, total: float) -> tuple[float, tuple[str, ...]]:
    """Scaled gradient over the parameters off their bounds, and the names of those on one."""
    level, exponent, share = fit.x
    on = {"exponent": exponent < 1e-6 or exponent > MAX_EXPONENT - 1e-6, "floor": share < 1e-6 or share > 1 - 1e-6}
    gradient = np.abs(fit.jac.T @ fit.fun)
    free = np.array([True, not on["exponent"], not on["floor"]])
    scaled = float(gradient[free].max() / total) if total > 0 else math.inf
    return scaled, tuple(name for name, is_on in on.items() if is_on)
