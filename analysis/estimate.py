"""`analysis.fit`: one law on one table, from rows to a result that says what it does not know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis import formula
from analysis import objective as objectives
from analysis.bootstrap import Draws, draw
from analysis.certificate import Certificate, certify
from analysis.convergence import EPS, converged
from analysis.derivatives import ln_model
from analysis.diagnostics import diagnose, fit_warnings
from analysis.holdout import hold_out
from analysis.influence import influence
from analysis.laws import Law, find
from analysis.objective import LAD_LAST, LAD_ROUGH, MAD_TO_SD, TUNING, Objective
from analysis.profiles import profile
from analysis.rates import edge_cells
from analysis.result import FitResult, curve
from analysis.rows import Rows, read_rows
from analysis.solve import Problem, Solution, solve
from analysis.starts import starts
from analysis.surface import Surface, surface

HOLDOUT_DRAWS = 300
BIC_NEEDED = 6.0


@dataclass(frozen=True)
class Point:
    """A law solved on rows: inside [p], its objective and value (in units of ln y squared), certificate, residuals [row]
    (ln y of the row minus the law's)."""

    surface: Surface
    objective: Objective
    inside: np.ndarray
    value: float
    certificate: Certificate
    residuals: np.ndarray

    @property
    def ok(self) -> bool:
        return self.certificate.status == "ok"

    @property
    def rms(self) -> float:
        return float(np.sqrt(np.mean(self.residuals**2)))

    @property
    def levels(self) -> dict[str, float]:
        """ln level of each cell, for laws that have them."""
        if not self.surface.law.levels:
            return {}
        return dict(zip(self.surface.heads, map(float, self.inside), strict=False))

    @property
    def derived(self) -> dict[str, float]:
        with np.errstate(all="ignore"):
            values = {name: np.float64(value) for name, value in self.params.items()}
            return {name: float(formula.evaluate(text, values)) for name, text in self.surface.law.derived.items()}

    @property
    def params(self) -> dict[str, float]:
        return dict(zip(self.surface.law.params, map(float, self.surface.natural(self.inside[None])[0]), strict=True))


def fit(
    law: str | Law,
    table: pd.DataFrame | Mapping,
    *,
    objective: str = "huber",
    delta: float | None = None,
    cluster: str | Sequence | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> FitResult:
    """Fit a law to a table that has the law's own columns.

    objective: `huber` (threshold `delta` in ln y, or 1.345 robust sd of the data's own residuals), `lad` or `squared`, all
    on ln y. cluster: the column whose equal values are not independent (a run, a trunk). draws: bootstrap resamples; 0
    gives the point without intervals, profiles or held-out test.
    Errors: `ValueError` for a table that no fit could use, an unknown law or objective, or 1 to 99 draws.
    """
    objectives.check(objective, delta)
    if 0 < draws < 100 or draws < 0:
        raise ValueError(f"draws={draws} is too few for a 95 % interval: choose at least 100, or 0 for the point alone.")
    if law == "convergence":
        return _at_convergence(table, objective=objective, delta=delta, draws=draws, seed=seed)
    law = find(law)
    rows = read_rows(law, table, cluster)
    point = solve_point(law, rows, objective, delta)
    twin = point if objective == "squared" else solve_point(law, rows, "squared")
    found = draw(point.surface, rows, point.objective, point.inside, draws, seed) if draws and point.ok else None
    return _assemble(rows, point, twin, found, seed)


def _at_convergence(table: pd.DataFrame | Mapping, **options) -> FitResult:
    """Loss at convergence against size; tokens to convergence against size under parts["tokens"]. A floor from 5 sizes on."""
    sizes, unfinished = converged(table)
    law = find("power" if len(sizes) >= 5 else "power_plain")
    loss = fit(replace(law, name="convergence"), {"x": sizes["N"], "y": sizes["loss"]}, **options)
    tokens = fit("power_plain", {"x": sizes["N"], "y": sizes["D"]}, **options)
    record = {"sizes": sizes.to_dict("records"), "unconverged": unfinished, "eps": EPS}
    codes = (*loss.warnings, *(["sizes_unconverged"] if unfinished else []))
    return replace(loss, parts={"tokens": tokens}, diagnostics=loss.diagnostics | record, warnings=codes)


def _assemble(rows: Rows, point: Point, twin: Point, found: Draws | None, seed: int) -> FitResult:
    """Estimates and, where there are draws, what they say."""
    law = point.surface.law
    result = FitResult(
        law=law,
        params=point.params,
        derived=point.derived,
        certificate=point.certificate,
        residuals=point.residuals,
        objective=_objective_record(point),
        twin={"params": twin.params, "derived": twin.derived, "status": twin.certificate.status, "rms": twin.rms},
        n_rows=rows.n_rows,
        n_clusters=rows.n_clusters,
        data_hash=rows.data_hash,
        conventions=_conventions(law, rows),
        spans={name: (float(values.min()), float(values.max())) for name, values in rows.columns.items()},
        levels=point.levels,
        warnings=rows.warnings,
    )
    if point.ok:
        found_out = diagnose(point.surface, rows, point.inside, point.residuals)
        found_out |= {"edge_cells": edge_cells(rows)} if law.name == "lr" else {}
        result = replace(result, diagnostics=found_out)
    if found is not None:
        result = _with_draws(result, point, found, seed)
    if result.intervals is not None:
        args = point.surface, rows, point.objective, point.inside
        result = replace(result, diagnostics=result.diagnostics | _against_wider(law, rows))
        result = replace(result, profile=profile(*args), influence=influence(*args, result.se),
                         holdout=hold_out(law, rows, lambda part: _trained(law, part, point.objective, seed)))
    return replace(result, warnings=tuple(dict.fromkeys([*result.warnings, *fit_warnings(result)])))


def _trained(law: Law, rows: Rows, objective: Objective, seed: int) -> tuple:
    """A law fitted to some rows for the held-out test, with the whole fit's threshold: see analysis.holdout."""
    delta = objective.delta if objective.kind == "huber" else None
    point = solve_point(law, rows, objective.kind, delta)
    shell = FitResult(law, point.params, {}, point.certificate, point.residuals, {}, {}, rows.n_rows, rows.n_clusters, "", {}, {})

    def predict(columns: dict) -> np.ndarray:
        return np.log(shell.curve(columns))

    if not point.ok or rows.n_clusters < 3:
        return predict, None, point.certificate.status
    inside = draw(point.surface, rows, point.objective, point.inside, HOLDOUT_DRAWS, seed).inside
    with_draws = replace(shell, draws=point.surface.natural(inside))
    return predict, with_draws.ln_noisy if len(inside) > HOLDOUT_DRAWS / 2 else None, point.certificate.status


def held_out_error(law: Law, rows: Rows) -> float:
    """Mean |ln y - predicted| over the held-out rows of all cuts, by least squares; NaN where none can be held out."""

    def trained(part: Rows) -> tuple:
        point = solve_point(law, part, "squared")
        return (lambda columns: np.log(curve(law, columns, point.params))), None, point.certificate.status

    found = hold_out(law, rows, trained)
    return float(found["mean_abs_ln"]) if found else float("nan")


def score(law: Law, rows: Rows) -> dict:
    """One row of the model table, see analysis.selection: least squares, AIC, BIC and held-out error."""
    point = solve_point(law, rows, "squared")
    k, n = len(law.params) + 1, rows.n_clusters
    fit = n * np.log(max(np.mean(point.residuals**2), 1e-300))
    return {
        "law": law.name,
        "params": len(law.params),
        "status": point.certificate.status,
        "rms_ln": point.rms,
        "aic": float(fit + 2 * k),
        "bic": float(fit + k * np.log(n)),
        "held_out": held_out_error(law, rows),
    }


def _against_wider(law: Law, rows: Rows) -> dict:
    """Whether the law's wider relative is needed: {"law", "bic_gain", "held_out", "held_out_here", "needed"}; {} without one."""
    if not law.wider or rows.n_rows <= len(find(law.wider).params):
        return {}
    ours, theirs = score(law, rows), score(find(law.wider), rows)
    gain = ours["bic"] - theirs["bic"]
    needed = theirs["status"] == "ok" and gain > BIC_NEEDED and theirs["held_out"] < ours["held_out"]
    return {"wider": {"law": law.wider, "bic_gain": gain, "held_out": theirs["held_out"], "held_out_here": ours["held_out"],
                      "needed": needed}}


def _with_draws(result: FitResult, point: Point, found: Draws, seed: int) -> FitResult:
    """Percentile intervals, standard errors and covariance of parameters and derived quantities."""
    values = point.surface.natural(found.inside)
    result = replace(result, draws=values, bootstrap={
        "method": found.method, "asked": found.asked, "seed": seed, "lost": found.lost, "degenerate": found.degenerate})
    if len(values) < 0.5 * found.asked:
        return result
    named = dict(zip(result.law.params, values.T, strict=True))
    with np.errstate(all="ignore"):
        named |= {name: result.derive(text)[1] for name, text in result.law.derived.items()}
    finite = {name: column[np.isfinite(column)] for name, column in named.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        return replace(
            result,
            intervals={name: tuple(map(float, np.percentile(d, [2.5, 97.5]))) for name, d in finite.items() if len(d)},
            se={name: float(column.std(ddof=1)) for name, column in finite.items() if len(column) > 1},
            covariance=np.cov(values.T).reshape(values.shape[1], values.shape[1]),
        )


def _objective_record(point: Point) -> dict:
    used = point.objective
    delta = used.delta if np.isfinite(used.delta) and used.kind == "huber" else None
    value = float(np.abs(point.residuals).sum()) if used.kind == "lad" else point.value
    inside = used.inside(point.residuals) if used.kind != "lad" else 0.0
    return {"kind": used.kind, "delta": delta, "value": value, "inside_share": inside}


def _conventions(law: Law, rows: Rows) -> dict:
    return {
        "y": law.y,
        "residual": f"ln {law.y} of the row minus ln {law.y} of the law",
        "columns": list(law.columns),
        "cluster": rows.clustered_by,
        "interval": "95 % percentile of the bootstrap draws",
        "terms": dict(law.terms),
    }


def solve_point(law: Law, rows: Rows, kind: str, delta: float | None = None, weights: np.ndarray | None = None) -> Point:
    """The best of several starts, certified. weights [row]: multiplicities of the rows, not precisions."""
    over = surface(law, rows.columns, rows.ln_y)
    weights = np.ones(rows.n_rows) if weights is None else weights
    begin = starts(over, rows.ln_y, weights)
    objective, solution = _minimise(over, rows.ln_y, weights, (kind, delta), begin)
    best, certificate = certify(over, solution, objective.unit)
    inside = solution.points[best]
    residuals = rows.ln_y - ln_model(over, inside[None])[0]
    return Point(over, objective, inside, float(solution.value[best]) * objective.unit**2, certificate, residuals)


def _minimise(over: Surface, ln_y: np.ndarray, weights: np.ndarray, wanted: tuple, begin: np.ndarray):
    """(Objective, one solution per start), at the objective's threshold: given, from the data, or (LAD) a falling sequence."""
    kind, delta = wanted

    def run(objective: Objective, points: np.ndarray) -> Solution:
        return solve(Problem(over, ln_y[None], weights[None], objective), points)

    solution = run(Objective("squared"), begin)
    spread = objectives.scale(_best_residuals(over, ln_y, solution), over.size)
    if kind == "squared":
        return Objective("squared"), solution
    if kind == "huber" and delta is not None:
        return _falling(run, solution, "huber", spread, delta)
    if kind == "lad":
        return _falling(run, solution, "lad", spread, spread * LAD_LAST)
    used, solution = _falling(run, solution, "lad", spread, spread * LAD_ROUGH)
    for scale_of in (objectives.scale, _huber_scale):
        used = Objective("huber", TUNING * scale_of(_best_residuals(over, ln_y, solution), over.size))
        solution = run(used, solution.points)
    return used, solution


def _falling(run, solution: Solution, kind: str, spread: float, last: float) -> tuple[Objective, Solution]:
    """From least squares down to the threshold `last` in steps of a factor of 4 at most: each is a good start for the next,
    and from afar this reaches the lowest basin where the last objective alone would not."""
    steps = max(0, int(np.ceil(np.log(2 * spread / last) / np.log(4.0))))
    for step in range(steps, -1, -1):
        used = Objective(kind, last * 4.0**step)
        solution = run(used, solution.points)
    return used, solution


def _best_residuals(over: Surface, ln_y: np.ndarray, solution: Solution) -> np.ndarray:
    best = solution.points[np.argmin(solution.value)]
    return ln_y - ln_model(over, best[None])[0]


def _huber_scale(residuals: np.ndarray, n_params: int) -> float:
    """1.4826 median |residual|, for the degrees of freedom left."""
    left = len(residuals) / max(len(residuals) - n_params, 1)
    return max(MAD_TO_SD * float(np.median(np.abs(residuals))) * left**0.5, 1e-12)
