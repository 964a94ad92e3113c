"""Damped saddle-free Newton with exact derivatives, for many problems of one law at once.

Problems differ in weights (resamples), in targets (wild bootstrap) or in what is held (profiles); the rows are shared.
Each step scales by the reweighted-least-squares diagonal, takes eigenvalue magnitudes so that a saddle repels (Dauphin et
al. 2014), caps the step and is accepted only when the objective falls. Problems that are done leave the batch. Done means:
every column of the Jacobian is orthogonal to psi to `TOLERANCE` (a cosine, so it has no units).
"""

from dataclasses import dataclass

import numpy as np

from analysis.derivatives import model
from analysis.objective import Objective
from analysis.surface import Surface

TOLERANCE = 1e-11
CERTIFIED = 1e-8
_CAP_LINEAR, _CAP_EXPONENT = 5.0, 0.5
_ROUNDING = 1e-15
_SETTLE = 2
_STALLS = 4  # steps in a row that leave the objective as it is, to the last bits
_CHUNK = 80_000  # rows times problems held in the processor's cache


@dataclass(frozen=True)
class Problem:
    """ln_y [1 or problem, row]; weights [1 or problem, row]; objective. pull: extra penalty per problem, see `Pull`."""

    surface: Surface
    ln_y: np.ndarray
    weights: np.ndarray
    objective: Objective
    pull: "Pull | None" = None

    def part(self, keep: np.ndarray) -> "Problem":
        """The problems `keep` alone."""
        ln_y, weights = (array if len(array) == 1 else array[keep] for array in (self.ln_y, self.weights))
        return Problem(self.surface, ln_y, weights, self.objective, self.pull and self.pull.part(keep))


@dataclass(frozen=True)
class Pull:
    """strength / 2 (q(point) - target)^2 with q = ln of, or plain, derived quantity given as jets by `of`(problems, points).

    Its minimiser is also the minimiser of the objective among points with the same q: an exact point of the profile.
    """

    of: object
    target: np.ndarray
    strength: np.ndarray
    which: np.ndarray

    def part(self, keep: np.ndarray) -> "Pull":
        return Pull(self.of, self.target[keep], self.strength[keep], self.which[keep])

    def terms(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value [problem], gradient [problem, p], curvature [problem, p, p]."""
        q, slope, bend = self.of(self.which, points)
        gap, k = q - self.target, self.strength
        curvature = k[:, None, None] * (slope[:, :, None] * slope[:, None, :] + gap[:, None, None] * bend)
        return 0.5 * k * gap**2, (k * gap)[:, None] * slope, curvature


@dataclass(frozen=True)
class Solution:
    """points [problem, p] inside; value in units of delta^2 without any pull; cosine: the scaled gradient; lowest: the
    smallest eigenvalue of the scaled curvature; iterations. Parameters on a bound are left out of the last three."""

    points: np.ndarray
    value: np.ndarray
    cosine: np.ndarray
    lowest: np.ndarray
    iterations: np.ndarray

    @property
    def certified(self) -> np.ndarray:
        return (self.cosine <= CERTIFIED) & (self.lowest > 0)


@dataclass
class _State:
    value: np.ndarray
    gradient: np.ndarray
    curvature: np.ndarray
    diagonal: np.ndarray
    energy: np.ndarray
    rounding: np.ndarray

    def take(self, keep: np.ndarray) -> "_State":
        return _State(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))

    def put(self, where: np.ndarray, other: "_State", taken: np.ndarray) -> None:
        for name in self.__dataclass_fields__:
            getattr(self, name)[where] = getattr(other, name)[taken]


def solve(problem: Problem, starts: np.ndarray, iterations: int = 150) -> Solution:
    """From one start per problem, [problem, p] inside."""
    size = max(1, _CHUNK // problem.surface.n_rows)
    parts = [np.arange(at, min(at + size, len(starts))) for at in range(0, len(starts), size)]
    found = [_descend(problem.part(part), starts[part], iterations) for part in parts]
    return Solution(*(np.concatenate([getattr(s, name) for s in found]) for name in Solution.__dataclass_fields__))


def _descend(problem: Problem, starts: np.ndarray, iterations: int) -> Solution:
    surface = problem.surface
    points = np.clip(starts, surface.low, surface.high)
    state, damping = evaluate(problem, points), np.full(len(points), 1e-3)
    taken, stalls, active = np.zeros(len(points), int), np.zeros(len(points), int), np.arange(len(points))
    cap = np.where(np.arange(surface.size) < len(surface.heads), _CAP_LINEAR, _CAP_EXPONENT)
    for _ in range(iterations):
        active = active[~_done(points[active], state.take(active), damping[active], surface) & (stalls[active] < _STALLS)]
        if not len(active):
            break
        here, now, mu = points[active], state.take(active), damping[active]
        step, hoped = _step(here, now, mu, surface)
        step = np.clip(step, -cap, cap)
        trial = np.clip(here + step, surface.low, surface.high)
        after = evaluate(problem.part(active), trial)
        _settle(problem.part(active), trial, after, now.value, cap)
        noise = now.rounding * np.sqrt(np.maximum(now.energy, 0.0)) + 4e-16 * np.abs(now.value)
        better = after.value <= now.value + noise
        stalls[active] = np.where(np.abs(after.value - now.value) <= noise, stalls[active] + 1, 0)
        points[active[better]] = trial[better]
        state.put(active[better], after, better)
        damping[active] = _damped(mu, better, (now.value - after.value) / np.maximum(hoped, 1e-300))
        taken[active] += 1
    cosine, lowest = _certify(points, state, surface)
    value = state.value if problem.pull is None else state.value - problem.pull.terms(points)[0]
    return Solution(points, value, cosine, lowest, taken)


def _settle(problem: Problem, trial: np.ndarray, after: _State, wanted: np.ndarray, cap: np.ndarray) -> None:
    """Where a trial is worse than `wanted`, moves its linear part alone to where it belongs, in place.

    A law's valley is curved: a straight step along it leaves the floor in the coefficients, which follow from the exponents.
    """
    for _ in range(_SETTLE):
        worse = np.flatnonzero((after.value > wanted) & np.isfinite(after.value))
        if not len(worse):
            return
        here, now = trial[worse], after.take(worse)
        step = _step(here, now, np.full(len(worse), 1e-6), problem.surface, only=len(problem.surface.heads))[0]
        moved = np.clip(here + np.clip(step, -cap, cap), problem.surface.low, problem.surface.high)
        found = evaluate(problem.part(worse), moved)
        better = found.value < now.value
        trial[worse[better]] = moved[better]
        after.put(worse[better], found, better)


def evaluate(problem: Problem, points: np.ndarray) -> _State:
    """Objective, gradient, exact curvature, reweighted-least-squares diagonal, the energy sum w psi residual, and what the
    rounding of residuals can do to a scaled gradient."""
    ln_y, jacobian, bend = model(problem.surface, points)
    residual = ln_y - problem.ln_y
    with np.errstate(invalid="ignore", over="ignore"):
        value = (problem.weights * problem.objective.rho(residual)).sum(axis=1)
        slope, curve, irls = (problem.weights * part for part in problem.objective.parts(residual))
        gradient = (jacobian @ slope[:, :, None])[:, :, 0]
        curvature = bend(curve, slope)
        diagonal = (jacobian * jacobian) @ irls[:, :, None]
        energy = (slope * residual).sum(axis=1)
        rounding = _ROUNDING * (1 + np.abs(problem.ln_y).max()) * np.sqrt(irls.sum(axis=1))
    diagonal = diagonal[:, :, 0]
    if problem.pull is not None:
        extra = problem.pull.terms(points)
        value, gradient, curvature = value + extra[0], gradient + extra[1], curvature + extra[2]
        diagonal = diagonal + np.maximum(np.einsum("mii->mi", extra[2]), 0.0)
        energy = energy + 2 * extra[0]
    return _State(np.where(np.isfinite(value), value, np.inf), gradient, curvature, diagonal, energy, rounding)


def _held(points: np.ndarray, gradient: np.ndarray, surface: Surface) -> np.ndarray:
    """Parameters on a bound that the gradient pushes outwards."""
    return ((points <= surface.low) & (gradient > 0)) | ((points >= surface.high) & (gradient < 0))


def _scaled(points: np.ndarray, state: _State, surface: Surface) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Curvature and gradient in units of the diagonal's root, that root, and what is held."""
    held = _held(points, state.gradient, surface)
    floor = 1e-30 + 1e-20 * state.diagonal.max(axis=1, keepdims=True)
    root = np.sqrt(np.maximum(state.diagonal, floor))
    gradient = np.where(held, 0.0, state.gradient / root)
    free = (~held).astype(float)
    curvature = state.curvature / (root[:, :, None] * root[:, None, :]) * free[:, :, None] * free[:, None, :]
    at = np.arange(surface.size)
    curvature[:, at, at] += held
    return np.nan_to_num(curvature, posinf=0.0, neginf=0.0), np.nan_to_num(gradient), root, held


def _step(points: np.ndarray, state: _State, damping: np.ndarray, surface: Surface, only: int | None = None):
    """The step [problem, p] and how much the damped quadratic says it gains [problem]; `only`: of the first parameters."""
    curvature, gradient, root, _ = _scaled(points, state, surface)
    if only is not None:
        gradient[:, only:] = 0.0
        curvature[:, only:, :] = curvature[:, :, only:] = 0.0
        curvature[:, range(only, surface.size), range(only, surface.size)] = 1.0
    try:  # all positive definite: the same step, without eigenvalues
        np.linalg.cholesky(curvature)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(curvature)
        curvature = (vectors * np.maximum(np.abs(values), 1e-13)[:, None]) @ vectors.transpose(0, 2, 1)
    damped = curvature + np.maximum(damping, 1e-13)[:, None, None] * np.eye(surface.size)
    step = -np.linalg.solve(damped, gradient[:, :, None])
    hoped = -(gradient * step[:, :, 0]).sum(axis=1) - 0.5 * (step * (curvature @ step)).sum(axis=(1, 2))
    return step[:, :, 0] / root, hoped


def _damped(damping: np.ndarray, better: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Less damping after a step that gained what the quadratic promised, more after one that did not or was refused."""
    accepted = np.where(gain > 0.5, np.maximum(damping / 10, 1e-14), np.where(gain > 0.1, damping, 3 * damping))
    return np.where(better, accepted, 5 * damping)


def _cosine(gradient: np.ndarray, state: _State) -> np.ndarray:
    """Largest |cosine| between psi and a column of the Jacobian, less what rounding alone can make it: 0 where the law
    passes through every point."""
    excess = np.maximum(np.abs(gradient).max(axis=1) - state.rounding, 0.0)
    return excess / np.sqrt(np.maximum(state.energy, 1e-300))


def _done(points: np.ndarray, state: _State, damping: np.ndarray, surface: Surface) -> np.ndarray:
    held = _held(points, state.gradient, surface)
    root = np.sqrt(np.maximum(state.diagonal, 1e-30 + 1e-20 * state.diagonal.max(axis=1, keepdims=True)))
    gradient = np.where(held, 0.0, state.gradient / root)
    return (_cosine(gradient, state) <= TOLERANCE) | (damping > 1e12)


def _certify(points: np.ndarray, state: _State, surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """The scaled gradient and the smallest curvature. A cell's level is free to move between its rows where all of them lie
    beyond the threshold, half on either side: that moves no parameter of the law, so such a level is taken as known."""
    curvature, gradient, _, _ = _scaled(points, state, surface)
    if surface.law.levels:
        at = np.arange(len(surface.heads))
        curvature[:, at, at] += curvature[:, at, at] == 0.0
    return _cosine(gradient, state), np.linalg.eigvalsh(curvature)[:, 0]
