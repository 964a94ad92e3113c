"""Iso-FLOP analysis of any table: budgets, the minimum of each valley, and how it moves with compute."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis.compute import Cost
from analysis.optimum import bounded, number
from analysis.reading import points
from analysis.uncertainty import WEBB
from analysis.valleys import BRACKETED
from analysis.vertex import PRIOR_DOF, Minimum, Polynomial, bracketed, minimum, residuals
from analysis.weighted import Line, weighted_line

TOLERANCE = 0.10
SCALES = ("loss", "ln_loss")
_LN_LARGEST = 700.0  # of a number: three budgets leave one degree of freedom, and draws with its tails
SUM_OFF = 0.05  # |a + b - 1| beyond which size and tokens cannot both be right


@dataclass(frozen=True)
class IsoFlop:
    """What `isoflop` found. budgets: one record per budget, smallest first; lines: "N", "D", "loss" -> Line, or empty.

    a, b are the slopes of N and D, fitted apart; their sum is 1 where C = factor N D and both are right.
    """

    budgets: list[dict[str, Any]]
    lines: dict[str, Line]
    cost: Cost
    conventions: dict[str, Any]
    data_hash: str
    warnings: list[str] = field(default_factory=list)

    def exponent(self, name: str) -> dict | None:
        line = self.lines.get(name)
        return None if line is None else bounded(line.slope, line.draws_slope)

    def at(self, flops: float) -> dict[str, dict]:
        """N, D and loss at the optimum of `flops`, each {"estimate", "lo", "hi"}. Errors: `ValueError` without lines."""
        if not self.lines:
            raise ValueError("No optimum can be predicted: fewer than 3 budgets have a resolved minimum. Add budgets or sizes.")
        at = math.log(flops)
        return {name: bounded(math.exp(line.ln(at)), np.exp(np.clip(line.ln_draws(at), -_LN_LARGEST, _LN_LARGEST)))
                for name, line in self.lines.items()}  # fmt: skip

    def summary(self) -> str:
        """A page of text."""
        from analysis.tell import isoflop_text

        return isoflop_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        lines = {name: {"exponent": self.exponent(name), "level": number(math.exp(line.level)), "x_ref": math.exp(line.ln_x_ref),
                        "dof": line.dof, "residuals_ln": [float(v) for v in line.residuals]}
                 for name, line in self.lines.items()}  # fmt: skip
        total = number(self.lines["N"].slope + self.lines["D"].slope) if self.lines else None
        return {"budgets": self.budgets, "lines": lines, "exponent_sum": total, "conventions": self.conventions,
                "data_hash": self.data_hash, "warnings": self.warnings}  # fmt: skip


def isoflop(
    table: pd.DataFrame | Mapping,
    *,
    degree: int = 3,
    scale: str = "loss",
    sizes: int | None = None,
    tolerance: float = TOLERANCE,
    cluster: str | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> IsoFlop:
    """Valleys of loss against N (and D) at each budget, their minima, and power laws of the minima in C.

    table: columns N, D, loss, and C or `budget` (else C is counted); analysis.read_points gives one. Rows whose C agree
    within `tolerance` are one budget (a column `budget` decides instead where there is one). Per budget a polynomial of
    `degree` in ln N, through all sizes or the `sizes` nearest the lowest, in the loss or in ln loss (`scale`); a minimum
    counts only when it is resolved (analysis.vertex). ln N*, ln D* and ln L* are fitted on ln C with weights 1 / (vertex
    variance + scatter). Intervals: wild bootstrap of the rows (of whole clusters) through both stages, plus the scatter of
    the budgets around each line. Under 3 resolved budgets there is no line.
    Errors: `ValueError` for unusable columns, degree, scale, tolerance or draws.
    """
    _check(degree, scale, sizes, tolerance, draws)
    data = table if isinstance(table, pd.DataFrame) and "data_hash" in table.attrs else points(pd.DataFrame(table))
    if cluster is not None and cluster not in data:
        raise ValueError(f"There is no column {cluster!r} to cluster by: the table has {', '.join(map(str, data.columns))}.")
    grid = Grid.of(data, degree, scale, sizes, tolerance)
    found = {axis: grid.minima(axis) for axis in ("N", "D")}
    good = [i for i, m in enumerate(found["N"]) if m.status == BRACKETED]
    lines = {}
    drawn = grid.resample(good, cluster, draws, np.random.default_rng(seed)) if len(good) >= 3 else None
    if drawn:
        lines = grid.lines(good, found, drawn, np.random.default_rng(seed + 1))
    conventions = {"degree": degree, "scale": scale, "sizes": sizes, "tolerance": tolerance, "compute": data.attrs.get("compute"),
                   "cluster": cluster, "draws": draws, "seed": seed}  # fmt: skip
    records = [grid.record(i, found["N"][i], found["D"][i]) for i in range(len(grid.flops))]
    codes = _warnings(records, lines, drawn, good)
    return IsoFlop(records, lines, data.attrs["cost"], conventions, data.attrs["data_hash"], codes)


def group(ln_c: np.ndarray, tolerance: float) -> np.ndarray:
    """int [row]: which budget each row belongs to; a budget spans at most (1 + tolerance)^2 in C, from its lowest row."""
    order, out, start = np.argsort(ln_c, kind="stable"), np.zeros(len(ln_c), int), -np.inf
    current = -1
    for row in order:
        if ln_c[row] > start + 2 * math.log1p(tolerance):
            current, start = current + 1, ln_c[row]
        out[row] = current
    return out


@dataclass(frozen=True)
class Grid:
    """Rows by budget. flops [budget]; rows: per budget the row numbers used; x: axis -> ln size [row]; y [row]."""

    flops: np.ndarray
    rows: list[np.ndarray]
    x: dict[str, np.ndarray]
    y: np.ndarray
    degree: int
    scale: str
    table: pd.DataFrame

    @classmethod
    def of(cls, table: pd.DataFrame, degree: int, scale: str, sizes: int | None, tolerance: float) -> "Grid":
        ln_c = np.log(table["C"].to_numpy(float))
        known = "budget" in table and table["budget"].notna().any()
        which = _known(table["budget"].to_numpy(float)) if known else group(ln_c, tolerance)
        loss = table["loss"].to_numpy(float)
        x = {axis: np.log(table[axis].to_numpy(float)) for axis in ("N", "D")}
        rows = [np.flatnonzero(which == b) for b in range(which.max() + 1)]
        flops = np.array([math.exp(ln_c[r].mean()) for r in rows])
        y = np.log(loss) if scale == "ln_loss" else loss
        return cls(flops, [_nearest(r, x["N"], y, sizes) for r in rows], x, y, degree, scale, table)

    def pooled(self, axis: str) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
        """Per budget: fitted values, residuals scaled for the bootstrap, moderated residual variance (units of y squared).

        A budget's own variance s^2 with f degrees of freedom is moderated towards the pooled RELATIVE variance.
        """
        every = [residuals(self.x[axis][r], self.y[r], self.degree) for r in self.rows]
        unit = [abs(self.y[r].mean()) if self.scale == "loss" else 1.0 for r in self.rows]
        squares = [float(((self.y[r] - fit) ** 2).sum()) / u**2 for r, (fit, _, _), u in zip(self.rows, every, unit, strict=True)]
        free = sum(f for *_, f in every)
        common = sum(s for s, (*_, f) in zip(squares, every, strict=True) if f > 0) / free if free else 0.0
        variance = [(s + PRIOR_DOF * common) / (f + PRIOR_DOF) for s, (*_, f) in zip(squares, every, strict=True)]
        scaled = [left * math.sqrt(v * f / s) if s > 0 and f > 0 else left
                  for (_, left, f), v, s in zip(every, variance, squares, strict=True)]  # fmt: skip
        return [fit for fit, *_ in every], scaled, [v * u**2 for v, u in zip(variance, unit, strict=True)]

    def minima(self, axis: str) -> list[Minimum]:
        variance = self.pooled(axis)[2]
        return [minimum(self.x[axis][r], self.y[r], self.degree, v) for r, v in zip(self.rows, variance, strict=True)]

    def resample(self, good: list[int], cluster: str | None, draws: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """ln N*, ln D*, ln L* [draw, good budget] under a wild bootstrap with one of Webb's weights per row or cluster."""
        labels = np.arange(len(self.y)) if cluster is None else np.unique(self.table[cluster].astype(str), return_inverse=True)[1]
        weights = WEBB[rng.integers(0, len(WEBB), size=(draws, labels.max() + 1))]
        out: dict[str, list] = {"N": [], "D": [], "loss": []}
        for axis in ("N", "D"):
            fitted, scaled, _ = self.pooled(axis)
            for i in good:
                y = fitted[i] + scaled[i] * weights[:, labels[self.rows[i]]]
                x, low = self.vertices(axis, i, y)
                out[axis].append(x)
                if axis == "N":
                    out["loss"].append(self.ln_loss(low))
        return {name: np.stack(columns, axis=1) for name, columns in out.items()}

    def vertices(self, axis: str, i: int, y: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """ln size and y at budget i's minimum for resamples y [draw, row] (weights the same), NaN where not bracketed."""
        curve = Polynomial.of(self.x[axis][self.rows[i]], self.degree)
        coef = curve.fit(y, weights)
        t, _ = curve.minimum(coef)
        low = curve.value(coef, t)
        good = bracketed(curve, t, low, y, weights)
        return np.where(good, curve.centre + curve.reach * t, np.nan), np.where(good, low, np.nan)

    def ln_loss(self, y: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.log(y) if self.scale == "loss" else y

    def lines(self, good: list[int], found: dict[str, list[Minimum]], drawn: dict, rng) -> dict[str, Line]:
        ln_c = np.log(self.flops[good])
        minima = {axis: [found[axis][i] for i in good] for axis in ("N", "D")}
        out = {}
        for name in ("N", "D", "loss"):
            column = minima["D" if name == "D" else "N"]
            value = np.array([m.y if name == "loss" else m.x for m in column])
            variance = np.array([m.y_var if name == "loss" else m.x_var for m in column])
            if name == "loss":
                variance = variance if self.scale == "ln_loss" else variance / value**2
                value = self.ln_loss(value)
            keep = np.isfinite(value)
            if keep.sum() >= 3:
                out[name] = weighted_line(ln_c[keep], value[keep], variance[keep], drawn[name][:, keep], rng)
        return out if len(out) == 3 else {}

    def record(self, i: int, n: Minimum, d: Minimum) -> dict[str, Any]:
        rows, low = self.rows[i], math.exp(float(self.ln_loss(np.array(n.y)))) if n.status == BRACKETED else None

        def spot(m: Minimum) -> dict | None:
            if m.status != BRACKETED:
                return None
            half = 1.96 * math.sqrt(max(m.x_var, 0.0))
            return {"estimate": math.exp(m.x), "lo": math.exp(m.x - half), "hi": math.exp(m.x + half)}

        lowest = rows[np.argmin(self.y[rows])]
        every = {name: self.table[name].to_numpy(float)[rows].tolist() for name in ("N", "D", "C", "loss")}
        points_here = [dict(zip(every, spot, strict=True)) for spot in zip(*every.values(), strict=True)]
        n_sizes = len(np.unique(self.x["N"][rows]))
        return {"flops": float(self.flops[i]), "status": n.status, "n_sizes": n_sizes, "n_rows": len(rows),
                "N": spot(n), "D": spot(d), "loss": low, "curvature_se": number(n.curvature_se),
                "lowest_sampled": {name: float(self.table[name].iloc[lowest]) for name in ("N", "D", "loss")},
                "points": points_here}  # fmt: skip


def _known(budgets: np.ndarray) -> np.ndarray:
    """int [row]: the budget each row was planned for, -1 for a row without one."""
    out = np.full(len(budgets), -1)
    planned = np.isfinite(budgets)
    out[planned] = np.unique(budgets[planned], return_inverse=True)[1]
    return out


def _nearest(rows: np.ndarray, x: np.ndarray, y: np.ndarray, sizes: int | None) -> np.ndarray:
    """The rows of the `sizes` sizes around the one with the lowest mean."""
    every = np.unique(x[rows])
    if sizes is None or len(every) <= sizes:
        return rows
    means = [y[rows][x[rows] == size].mean() for size in every]
    start = min(max(int(np.argmin(means)) - sizes // 2, 0), len(every) - sizes)
    return rows[np.isin(x[rows], every[start : start + sizes])]


def _check(degree: int, scale: str, sizes: int | None, tolerance: float, draws: int) -> None:
    if degree not in (2, 3):
        raise ValueError(f"degree={degree} is not offered: choose 3 (cubic) or 2 (parabola, biased where the flanks differ).")
    if scale not in SCALES:
        raise ValueError(f"There is no scale {scale!r}: choose one of {', '.join(SCALES)}.")
    if sizes is not None and sizes < degree + 2:
        raise ValueError(f"sizes={sizes} leaves nothing to judge a polynomial of degree {degree}: choose at least {degree + 2}.")
    if not 0 < tolerance < 0.5:
        raise ValueError(f"tolerance={tolerance} is out of range: give a fraction between 0 and 0.5, such as 0.1 for 10 %.")
    if draws < 100:
        raise ValueError(f"draws={draws} is too few for a 95 % interval: choose at least 100.")


def _warnings(records: list[dict], lines: dict[str, Line], drawn: dict | None, good: list[int]) -> list[str]:
    found = [] if len(good) == len(records) else ["budgets_unresolved"]
    if not lines:
        return [*found, "fewer_than_3_resolved"]
    if abs(lines["N"].slope + lines["D"].slope - 1) > SUM_OFF:
        found.append("exponents_do_not_add_up")
    if (~np.isfinite(drawn["N"])).any(axis=1).mean() > 0.05:
        found.append("bootstrap_unstable")
    flops = [records[i]["flops"] for i in good]
    return found + (["narrow_compute_range"] if max(flops) < 10 * min(flops) else [])
