"""Profile intervals: how far a parameter or a derived quantity can be pushed before the fit is visibly worse.

For a value q of the quantity, F(q) is the lowest objective among all points that have it. The interval holds the q with
2 (F(q) - F) mean(psi') / mean(psi^2) <= t^2, Student's t with the degrees of freedom left: the F statistic for least
squares, its robust form for Huber's loss (Ronchetti 1982). Where rows come in clusters the statistic is divided by how much
larger the clustered sandwich variance of q is than the one of independent rows. Each line of points walks outwards from the
estimate, all quantities and both sides in one batch.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis import formula
from analysis.derivatives import model
from analysis.objective import Objective
from analysis.rows import Rows
from analysis.solve import Problem, Pull, solve
from analysis.surface import Surface

_STEP = 0.5  # in units of the signed root of the statistic
_WALK, _REFINE = 60, 4
_STRENGTH = 100.0  # of the pull, in units of the objective's own curvature along q
_FOLLOWED, _STRONGEST = 0.7, 1e9  # share of a step that must be made, else ten times the pull, up to this
_CONVERGED = 1e-6
_FAR = 30.0  # a coefficient that fell by this much in ln is zero


@dataclass(frozen=True)
class Quantity:
    """name; row [p]: q = row . point, for parameters (ln for coefficients); or text: a formula in the parameters."""

    name: str
    row: np.ndarray | None
    text: str = ""
    is_ln: bool = False


def profile(over: Surface, rows: Rows, objective: Objective, inside: np.ndarray) -> dict[str, dict] | None:
    """name -> {"interval": (low, high)}, None for an open side, 0.0 for a coefficient that may be zero. None for LAD."""
    if objective.kind == "lad":
        return None
    quantities = _quantities(over)
    scale, t = _yardstick(over, rows, objective, inside, quantities)
    lines = _Lines(over, rows, objective, inside, quantities, scale)
    ends = lines.walk(t)
    out = {}
    for i, quantity in enumerate(quantities):
        low, high = ends[2 * i], ends[2 * i + 1]
        out[quantity.name] = {"interval": (_end(low, quantity, -1), _end(high, quantity, 1))}
    return out


def _end(value: float | None, quantity: Quantity, side: int) -> float | None:
    if value is None:
        return 0.0 if quantity.is_ln and side < 0 else None
    return float(np.exp(value)) if quantity.is_ln else float(value)


def _quantities(over: Surface) -> list[Quantity]:
    law, heads = over.law, len(over.heads)
    linear = [Quantity(name, over.back[i], is_ln=True) for i, name in enumerate(law.coefficients)]
    exponents = [Quantity(name, over.back[heads + i], is_ln=bool(over.logged[i])) for i, name in enumerate(law.exponents)]
    return linear + exponents + [Quantity(name, None, text) for name, text in law.derived.items()]


def _jets(over: Surface, quantity: Quantity, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value [problem], gradient [problem, p] and curvature [problem, p, p] of a quantity by the point inside."""
    if quantity.row is not None:
        slope = np.broadcast_to(quantity.row, points.shape)
        return points @ quantity.row, slope, np.zeros((*points.shape, points.shape[1]))
    own, law = over.outside(points), over.law
    heads = len(over.heads)
    values = {name: formula.exp(formula.variable(own[:, i], i)) for i, name in enumerate(law.coefficients)}
    values |= {name: formula.variable(own[:, heads + i], heads + i) for i, name in enumerate(law.exponents)}
    values |= {name: formula.exp(values[name]) for name, logged in zip(law.exponents, over.logged, strict=True) if logged}
    with np.errstate(all="ignore"):
        jet = formula.evaluate(quantity.text, values)
    slope, bend = np.zeros(points.shape), np.zeros((*points.shape, points.shape[1]))
    for i, d in jet.slope.items():
        slope[:, i] = d
    for (i, j), d in jet.bend.items():
        bend[:, i, j] = bend[:, j, i] = d
    return jet.value, slope @ over.back, over.back.T @ bend @ over.back


def _yardstick(over: Surface, rows: Rows, objective: Objective, inside: np.ndarray, quantities: list[Quantity]):
    """(per quantity: (units of the statistic, standard error), t). Both from the sandwich at the estimate."""
    fitted, jacobian, _ = model(over, inside[None])
    psi, curve, _ = objective.parts(fitted[0] - rows.ln_y)
    left = max(rows.n_rows - over.size, 1)
    noise, bread = (psi**2).sum() / left, max(curve.mean(), 1e-300)
    inverse = np.linalg.pinv(jacobian[0] @ jacobian[0].T) / bread
    plain = inverse * noise / bread
    clustered, dof = plain, left
    if rows.n_clusters < rows.n_rows:
        scores = np.zeros((rows.n_clusters, over.size))
        np.add.at(scores, rows.cluster, (jacobian[0] * psi).T)
        factor = rows.n_clusters / (rows.n_clusters - 1) * rows.n_rows / left
        clustered, dof = inverse @ (scores.T @ scores) @ inverse * factor, rows.n_clusters - 1
    scale = []
    for quantity in quantities:
        slope = _jets(over, quantity, inside[None])[1][0]
        independent, whole = slope @ plain @ slope, slope @ clustered @ slope
        inflation = whole / independent if independent > 0 else 1.0
        scale.append((noise / bread * inflation, float(np.sqrt(max(whole, 1e-300)))))
    return scale, float(stats.t.ppf(0.975, dof))


class _Lines:
    """Two lines per quantity, downwards and upwards, and where each has got to."""

    def __init__(self, over: Surface, rows: Rows, objective: Objective, inside: np.ndarray, quantities: list, scale: list):
        self.over, self.quantities = over, quantities
        self.which = np.repeat(np.arange(len(quantities)), 2)
        self.unit = np.repeat([pair[0] for pair in scale], 2)
        self.se = np.repeat([pair[1] for pair in scale], 2)
        self.side = np.tile([-1.0, 1.0], len(quantities))
        self.problem = Problem(over, rows.ln_y[None], np.ones((1, rows.n_rows)), objective)
        self.least = float(solve(self.problem, inside[None]).value[0])
        self.start = inside
        self.strength = _STRENGTH * self.unit / self.se**2

    def of(self, which: np.ndarray, points: np.ndarray):
        """Value, gradient and curvature of each problem's own quantity."""
        value, slope = np.empty(len(points)), np.empty(points.shape)
        bend = np.empty((*points.shape, points.shape[1]))
        for q in np.unique(which):
            at = which == q
            value[at], slope[at], bend[at] = _jets(self.over, self.quantities[q], points[at])
        return value, slope, bend

    def reach(self, lines: np.ndarray, target: np.ndarray, points: np.ndarray):
        """Points of the profile near `target`: (point, value reached, root of the statistic, whether it converged)."""
        pull = Pull(self.of, target, self.strength[lines], self.which[lines])
        found = solve(Problem(self.over, self.problem.ln_y, self.problem.weights, self.problem.objective, pull), points)
        z = np.sqrt(np.maximum(2 * (found.value - self.least) / self.unit[lines], 0.0))
        return found.points, self.of(self.which[lines], found.points)[0], z, found.cosine <= _CONVERGED

    def walk(self, t: float) -> list[float | None]:
        """Where each line crosses t; None where it never does."""
        n = len(self.which)
        points = np.repeat(self.start[None], n, axis=0)
        value = self.of(self.which, points)[0]
        first, z, step = value.copy(), np.zeros(n), _STEP * self.se
        ends: list[float | None] = [None] * n
        known = np.isfinite(self.of(self.which, points)[1]).all(axis=1)
        active = np.flatnonzero(np.isfinite(self.se) & (self.se > 0) & np.isfinite(value) & known)
        for _ in range(_WALK):
            if not len(active):
                break
            there, reached, root, good = self.reach(active, value[active] + self.side[active] * step[active], points[active])
            crossed = good & (root >= t)
            for k in np.flatnonzero(crossed):
                i = active[k]
                ends[i] = self._cross(i, (points[i], value[i], z[i]), (there[k], reached[k], root[k]), t)
            went = np.abs(reached - value[active])
            weak = went < _FOLLOWED * step[active]  # the profile has become steeper than the pull is strong
            self.strength[active[weak]] *= 10.0
            moved = weak | (went > 0.01 * step[active])
            moved &= self.strength[active] < _STRONGEST * self.unit[active] / self.se[active] ** 2
            pace = (root - z[active]) / np.maximum(went, 1e-300)
            step[active] = np.clip(_STEP / np.maximum(pace, 1e-300), 0.2 * step[active], 2.0 * step[active])
            points[active], value[active], z[active] = there, reached, root
            is_ln = np.array([self.quantities[q].is_ln for q in self.which[active]])
            gone = is_ln & (np.abs(reached - first[active]) > _FAR)
            active = active[good & ~crossed & ~gone & moved]
        return ends

    def _cross(self, line: int, inner: tuple, outer: tuple, t: float) -> float:
        """Regula falsi between a point inside and one outside."""
        for _ in range(_REFINE):
            share = (t - inner[2]) / max(outer[2] - inner[2], 1e-300)
            if abs(outer[2] - t) < 1e-4 or abs(inner[2] - t) < 1e-4 or not 0 < share < 1:
                break
            target = np.array([inner[1] + share * (outer[1] - inner[1])])
            there, reached, root, good = self.reach(np.array([line]), target, inner[0][None])
            if not good[0]:
                break
            middle = (there[0], reached[0], root[0])
            inner, outer = (middle, outer) if root[0] < t else (inner, middle)
        share = (t - inner[2]) / max(outer[2] - inner[2], 1e-300)
        return float(inner[1] + np.clip(share, 0, 1) * (outer[1] - inner[1]))
