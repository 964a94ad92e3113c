"""Intervals from the data: resampled clusters, or residuals flipped by cluster where resampling would lose the design.

Case bootstrap: each draw takes clusters with replacement, which enters as integer weights. Wild cluster bootstrap (Cameron,
Gelbach and Miller 2008, with Webb's six weights): each draw keeps the design and multiplies all residuals of a cluster by
one random weight. Every draw begins at the better of the estimate and of its own exhaustive grid.
"""

from dataclasses import dataclass

import numpy as np

from analysis.certificate import LEAST_CURVATURE, LEAST_SHARE, term_shares
from analysis.derivatives import ln_model, model
from analysis.objective import Objective
from analysis.rows import FEW_CLUSTERS, Rows
from analysis.solve import Problem, Solution, solve
from analysis.starts import starts_for_draws
from analysis.surface import Surface

WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])
CERTIFIED_DRAW = 1e-6  # scaled gradient of a draw: a millionth of its own standard error
_LOSS_TOLERATED = 0.01  # chance per draw that a resample lacks a whole level of the design


@dataclass(frozen=True)
class Draws:
    """inside [draw, p] of the converged draws; method; asked; shares of draws that did not converge (left out) and that are
    degenerate (kept: a term is as good as zero in them)."""

    inside: np.ndarray
    method: str
    asked: int
    lost: float
    degenerate: float


def draw(over: Surface, rows: Rows, objective: Objective, inside: np.ndarray, draws: int, seed: int) -> Draws:
    """`draws` resamples of the fit at `inside`, all at the objective's threshold."""
    rng = np.random.default_rng(seed)
    method = "wild cluster bootstrap" if _needs_wild(rows) or over.law.levels else "cluster bootstrap"
    if method == "wild cluster bootstrap":
        ln_ref = ln_model(over, inside[None])[0]
        ln_y, weights = ln_ref + _flipped(over, rows, inside, draws, rng), np.ones((1, rows.n_rows))
    else:
        ln_ref, ln_y = rows.ln_y, rows.ln_y[None]
        weights = cluster_weights(rows, draws, rng)
    solution = solve_draws(Problem(over, ln_y, weights, _first(objective)), inside, ln_ref, draws)
    for used in _next(objective):
        solution = solve(Problem(over, ln_y, weights, used), solution.points)
    good = (solution.cosine <= CERTIFIED_DRAW) & (solution.lowest > LEAST_CURVATURE)
    gone = degenerate(over, solution.points)
    keep = good | gone
    return Draws(solution.points[keep], method, draws, float(1 - keep.mean()), float(gone.mean()))


_LAD_STEPS = (1e5, 1e4, 1e3, 1e2)  # in units of the LAD objective's own, smallest threshold


def _first(objective: Objective) -> Objective:
    return Objective("lad", objective.delta * _LAD_STEPS[0]) if objective.kind == "lad" else objective


def _next(objective: Objective) -> list[Objective]:
    """Falling thresholds of a LAD fit; the draws stop at a hundred times the estimate's, far below their own spread."""
    return [Objective("lad", objective.delta * step) for step in _LAD_STEPS[1:]] if objective.kind == "lad" else []


def cluster_weights(rows: Rows, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Multiplicity of each row [draw, row]: clusters drawn with replacement."""
    g = rows.n_clusters
    return rng.multinomial(g, np.full(g, 1 / g), size=draws).astype(float)[:, rows.cluster]


def solve_draws(problem: Problem, inside: np.ndarray, ln_ref: np.ndarray, count: int) -> Solution:
    """One solution per draw, from the better of `inside` and the draw's own best grid cell."""
    warm = np.repeat(inside[None], count, axis=0)
    cold = starts_for_draws(problem.surface, problem.ln_y, problem.weights, ln_ref)
    cold = np.where(np.isfinite(cold).all(axis=1, keepdims=True), cold, warm)
    better = _values(problem, cold) < _values(problem, warm)
    return solve(problem, np.where(better[:, None], cold, warm))


def _values(problem: Problem, points: np.ndarray) -> np.ndarray:
    out = np.empty(len(points))
    for at in range(0, len(points), 200):
        part = np.arange(at, min(at + 200, len(points)))
        some = problem.part(part)
        out[part] = (some.weights * some.objective.rho(ln_model(some.surface, points[part]) - some.ln_y)).sum(axis=1)
    return np.nan_to_num(out, nan=np.inf)


def degenerate(over: Surface, points: np.ndarray) -> np.ndarray:
    """Which problems have a term as good as zero."""
    shares = term_shares(over, points)
    return np.any([share < LEAST_SHARE for share in shares.values()], axis=0) if shares else np.zeros(len(points), bool)


def _needs_wild(rows: Rows) -> bool:
    """Few clusters, or a design whose levels a resample would lose."""
    g = rows.n_clusters
    if g < FEW_CLUSTERS:
        return True
    for values in rows.columns.values():
        levels, at = np.unique(values, return_inverse=True)
        if len(levels) <= rows.n_rows / 3:
            holding = [len(np.unique(rows.cluster[at == level])) for level in range(len(levels))]
            if sum((1 - held / g) ** g for held in holding) > _LOSS_TOLERATED:
                return True
    return rows.n_rows < 30


def _flipped(over: Surface, rows: Rows, inside: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Residuals over 1 - leverage (HC3: few rows per parameter are the rule here), times one Webb weight per cluster and draw:
    [draw, row]."""
    fitted, jacobian, _ = model(over, inside[None])
    residual = (rows.ln_y - fitted[0]) / (1 - leverage(jacobian[0]))
    weights = WEBB[rng.integers(0, len(WEBB), size=(draws, rows.n_clusters))]
    return weights[:, rows.cluster] * residual


def leverage(jacobian: np.ndarray) -> np.ndarray:
    """Diagonal of the hat matrix of jacobian [p, row], at most 0.95."""
    q, r = np.linalg.qr(jacobian.T)
    kept = np.abs(np.diag(r)) > 1e-10 * np.abs(np.diag(r)).max()
    return np.clip((q[:, kept] ** 2).sum(axis=1), 0.0, 0.95)
