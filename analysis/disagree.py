"""Whether the three estimates of the best split differ by more than the noise they share."""

import numpy as np
import pandas as pd

from analysis import isocost
from analysis.bootstrap import leverage, solve_draws
from analysis.compute import Cost
from analysis.derivatives import ln_model, model
from analysis.estimate import Point, solve_point
from analysis.hull import hull_draws
from analysis.isoflops import Grid, IsoFlop
from analysis.objective import Objective
from analysis.optimum import bounded
from analysis.result import FitResult
from analysis.rows import read_rows
from analysis.solve import Problem
from analysis.uncertainty import PRIOR_DOF, WEBB
from analysis.valleys import BRACKETED
from analysis.weighted import line_slopes

METHODS = ("parametric", "isoflop", "frontier")
PAIRS = (("parametric", "isoflop"), ("parametric", "frontier"), ("isoflop", "frontier"))


def disagreement(
    data: pd.DataFrame, fit: FitResult, valleys: IsoFlop, estimates: dict, cluster: str | None, rng, draws: int,
) -> list[dict]:  # fmt: skip
    """Differences of a between methods: {"between", "estimate", "lo", "hi", "disagree"} per pair of those that have one.

    Fixed-design bootstrap: each row's ln loss is moved by its noise times one random weight per cluster, and all methods see
    the same losses; the interval is the spread of the paired differences around the estimated one.
    """
    known = [name for name in METHODS if "a" in estimates[name]]
    if len(known) < 2:
        return []
    rows = read_rows(fit.law, data, cluster)
    solved = solve_point(fit.law, rows, fit.objective["kind"], fit.objective["delta"])
    grid = _grid(data, valleys)
    weights = WEBB[rng.integers(0, len(WEBB), size=(draws, rows.n_clusters))][:, rows.cluster]
    ln_y = rows.ln_y + weights * _noise(solved, rows.ln_y, grid)
    drawn = {}
    if "parametric" in known:
        drawn["parametric"] = _surface_draws(fit, solved, ln_y, data, valleys.cost)
    if "isoflop" in known:
        drawn["isoflop"] = _stretched(_valley_draws(grid, valleys, ln_y), estimates["isoflop"]["a"])
    if "frontier" in known:
        ln = {name: np.log(data[name].to_numpy(float)) for name in ("N", "D", "C")}
        drawn["frontier"] = _stretched(hull_draws(ln, ln_y, np.ones_like(ln_y))["N"], estimates["frontier"]["a"])
    return [_difference(pair, estimates, drawn) for pair in PAIRS if set(pair) <= set(known)]


def _grid(data: pd.DataFrame, valleys: IsoFlop) -> Grid:
    used = valleys.conventions
    return Grid.of(data, used["degree"], used["scale"], used["sizes"], used["tolerance"])


def _noise(solved: Point, ln_y: np.ndarray, grid: Grid) -> np.ndarray:
    """Noise of each row in ln loss: its residual from its own valley, which needs no law; from the surface elsewhere. A
    surface that is wrong must not excuse its disagreement by the size of its own residuals."""
    fitted, jacobian, _ = model(solved.surface, solved.inside[None])
    noise = (ln_y - fitted[0]) / np.sqrt(1 - leverage(jacobian[0]))
    _, scaled, variance = grid.pooled("N")
    for rows, left, known in zip(grid.rows, scaled, variance, strict=True):
        if known > 0 and left.any():
            noise[rows] = left / np.exp(ln_y[rows]) if grid.scale == "loss" else left
    return moderated(noise)


def moderated(residuals: np.ndarray) -> np.ndarray:
    """Residuals with their squares drawn towards the common one, as `uncertainty.residuals` does with cells: one residual
    says almost nothing of its row's noise, and a few small ones at the edge of a valley would make it look certain."""
    size = np.sqrt((residuals**2 + PRIOR_DOF * np.mean(residuals**2)) / (1 + PRIOR_DOF))
    return np.copysign(size, residuals)


def _difference(pair: tuple[str, str], estimates: dict, drawn: dict) -> dict:
    one, other = pair
    seen = estimates[one]["a"]["estimate"] - estimates[other]["a"]["estimate"]
    spread = drawn[one] - drawn[other]
    spread = spread[np.isfinite(spread)]
    record = {"between": list(pair), **bounded(seen, seen + spread - np.median(spread) if len(spread) else spread)}
    return record | {"disagree": record["lo"] is not None and not record["lo"] <= 0 <= record["hi"]}


def _stretched(drawn: np.ndarray, own: dict) -> np.ndarray:
    """Draws made as wide as the method's own interval where that is wider: it also holds the scatter of the budgets around
    their line, or of the sizes that happen to lie on the hull, which losses moved row by row do not show."""
    middle, (low, high) = np.nanmedian(drawn), np.nanpercentile(drawn, [2.5, 97.5])
    if own["lo"] is None:
        return drawn
    if not high > low:  # sizes on a grid: the hull did not move at all
        return middle + np.random.default_rng(0).normal(0, (own["hi"] - own["lo"]) / 3.92, len(drawn))
    return middle + (drawn - middle) * max(1.0, (own["hi"] - own["lo"]) / (high - low))


def _objective(fit: FitResult) -> Objective:
    """A smooth twin of the fit's own: LAD's threshold is too small to move in one solve."""
    kind, delta = fit.objective["kind"], fit.objective["delta"]
    if kind == "squared":
        return Objective("squared")
    return Objective("huber", delta if delta else 0.1 * max(fit.rms, 1e-12))


def _surface_draws(fit: FitResult, solved: Point, ln_y: np.ndarray, data: pd.DataFrame, cost: Cost) -> np.ndarray:
    """a [draw] of the law solved again on every draw's losses."""
    problem, inside = Problem(solved.surface, ln_y, np.ones((1, ln_y.shape[1])), _objective(fit)), solved.inside
    solution = solve_draws(problem, inside, ln_model(solved.surface, inside[None])[0], len(ln_y))
    natural = solved.surface.natural(solution.points)
    params = {name: natural[:, i, None] for i, name in enumerate(fit.law.params)}
    a, _ = isocost.path(fit, params, cost, (float(data["C"].min()), float(data["C"].max())))
    return np.where(solution.cosine <= 1e-6, a, np.nan)


def _valley_draws(grid: Grid, valleys: IsoFlop, ln_y: np.ndarray) -> np.ndarray:
    """a [draw] of the valleys' minima, fitted again to every draw's losses with the estimate's weights."""
    good = [i for i, budget in enumerate(valleys.budgets) if budget["status"] == BRACKETED]
    y = np.exp(ln_y) if grid.scale == "loss" else ln_y
    minima = np.stack([grid.vertices("N", i, y[:, grid.rows[i]])[0] for i in good], axis=1)
    return line_slopes(np.log(grid.flops[good]), minima, valleys.lines["N"].weights)
