"""What a fit should be distrusted for: numbers about design and residuals, and codes whose words are in analysis.codes."""

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from analysis.derivatives import model
from analysis.rows import Rows
from analysis.surface import Surface

if TYPE_CHECKING:
    from analysis.result import FitResult

_DECADES_FOR_A_FLOOR = 2.0
_INSIDE_LEAST = 0.25
_DEGENERATE_MOST = 0.05
_RUNS_P = 0.01
_WIDTHS_DIFFER = 0.25
_SKILL_LEAST = -0.05
_MISSES = 0.05, 3.0  # in ln y, and times the noise within cells
_MEANS = {"degenerate": "term_vanished", "at_bound": "exponent_at_bound", "not_converged": "fit_not_converged"}


def diagnose(over: Surface, rows: Rows, inside: np.ndarray, residuals: np.ndarray) -> dict:
    """Decades spanned per column, correlation of the columns' logarithms, condition number of the column-scaled Jacobian, and
    for each column and the axis a runs test of the residuals' signs in its order: {"z", "p"} (few runs: the law bends the
    wrong way somewhere), and how far the law is from the means of repeated cells."""
    jacobian = model(over, inside[None])[1][0]
    scaled = jacobian / np.maximum(np.linalg.norm(jacobian, axis=1, keepdims=True), 1e-300)
    ln = {name: np.log(values) for name, values in rows.columns.items()}
    orders = dict(ln)
    if len(over.law.axis) > 1:
        orders["*".join(over.law.axis)] = sum(ln[name] for name in over.law.axis)
    names = list(ln)
    return {
        "decades": {name: float(np.ptp(values) / np.log(10)) for name, values in ln.items()},
        "correlation": {f"{a},{b}": float(np.corrcoef(ln[a], ln[b])[0, 1]) for i, a in enumerate(names) for b in names[i + 1 :]},
        "condition": float(np.linalg.cond(scaled.T)),
        "runs": {name: runs_test(values, residuals) for name, values in orders.items()},
        "lack_of_fit": lack_of_fit(ln, residuals, len(jacobian)),
    }


def lack_of_fit(ln: dict[str, np.ndarray], residuals: np.ndarray, n_params: int) -> dict | None:
    """Rows whose columns agree to a percent are one cell: the law's distance from the cells' means (root mean square in ln y,
    their own noise and the parameters taken off), and the noise within cells. None without three repeats, or with no more cells
    than parameters.

    Source: the lack-of-fit test (Draper and Smith 1998, section 2.1), in sizes rather than as an F ratio, which rejects every
    law once seeds agree well.
    """
    if not ln:
        return None
    _, cell = np.unique(np.round(np.stack(list(ln.values())), 2), axis=1, return_inverse=True)
    cell = cell.ravel()
    n_cells, n_rows = int(cell.max()) + 1, len(cell)
    if n_rows - n_cells < 3 or n_cells <= n_params:
        return None
    count = np.bincount(cell)
    means = np.bincount(cell, residuals) / count
    within = float(((residuals - means[cell]) ** 2).sum() / (n_rows - n_cells))
    between = float((count * means**2).sum() / (n_cells - n_params))
    mean_count = n_rows / n_cells
    return {"cells": n_cells, "between": max(between - within, 0.0) ** 0.5 / mean_count**0.5, "within": within**0.5}


def runs_test(x: np.ndarray, residuals: np.ndarray) -> dict | None:
    """Wald and Wolfowitz 1940: runs of signs along x (ties in x by their mean residual), against chance. None under 8 points."""
    levels, at = np.unique(x, return_inverse=True)
    means = np.bincount(at, residuals) / np.bincount(at)
    signs = means[np.abs(means) > 0] > 0
    up, down = int(signs.sum()), int((~signs).sum())
    if len(levels) < 8 or not up or not down:
        return None
    n = up + down
    mean = 2 * up * down / n + 1
    variance = (mean - 1) * (mean - 2) / (n - 1)
    z = float((1 + np.count_nonzero(np.diff(signs)) - mean) / np.sqrt(max(variance, 1e-12)))
    return {"z": z, "p": float(stats.norm.cdf(z))}


def fit_warnings(fit: "FitResult") -> list[str]:
    """Codes that follow from the result alone."""
    found = [_MEANS[fit.status]] if fit.status in _MEANS else []
    if fit.law.floor and max(np.log10(high / low) for low, high in fit.spans.values()) < _DECADES_FOR_A_FLOOR:
        found.append("floor_needs_decades")
    if fit.objective["kind"] == "huber" and fit.objective["inside_share"] < _INSIDE_LEAST:
        found.append("threshold_below_noise")
    if fit.se and _moves(fit):
        found.append("objective_matters")
    if fit.bootstrap and fit.bootstrap["degenerate"] + fit.bootstrap["lost"] > _DEGENERATE_MOST:
        found.append("draws_degenerate")
    if fit.certificate.agreeing_starts < fit.certificate.starts / 2:
        found.append("starts_disagree")
    if fit.influence and fit.influence[0]["largest"] > 1:
        found.append("one_cluster_decides")
    if any(run and run["p"] < _RUNS_P for run in fit.diagnostics.get("runs", {}).values()):
        found.append("residuals_structured")
    if (lack := fit.diagnostics.get("lack_of_fit")) and lack["between"] > max(_MISSES[0], _MISSES[1] * lack["within"]):
        found.append("law_misses_cells")
    if fit.diagnostics.get("edge_cells"):
        found.append("lr_at_edge")
    if fit.diagnostics.get("wider", {}).get("needed"):
        found.append("wider_law_needed")
    if fit.law.name == "lr" and not (fit.interval("curvature") or (fit.params["curvature"],))[0] > 0:
        found.append("lr_no_minimum")
    return found + _interval_warnings(fit) + _holdout_warnings(fit)


def _moves(fit: "FitResult") -> bool:
    """Whether an exponent differs by more than one standard error from its least-squares twin."""
    twin = fit.twin["params"]
    return any(abs(fit.params[name] - twin[name]) > fit.se.get(name, np.inf) for name in fit.law.exponents)


def _interval_warnings(fit: "FitResult") -> list[str]:
    """Floor not identified; bootstrap and profile that disagree by more than a quarter of the width for an exponent or floor."""
    found, profile = [], fit.profile or {}
    if fit.law.floor and (pair := profile.get(fit.law.floor, {}).get("interval")) and (not pair[0] or pair[1] is None):
        found.append("floor_not_identified")
    for name in (*fit.law.exponents, *([fit.law.floor] if fit.law.floor else [])):
        ours, theirs = fit.interval(name), profile.get(name, {}).get("interval")
        if ours is None or theirs is None:
            continue
        width = ours[1] - ours[0]
        if None in theirs or max(abs(ours[0] - theirs[0]), abs(ours[1] - theirs[1])) > _WIDTHS_DIFFER * width:
            return [*found, "profile_disagrees"]
    return found


def _holdout_warnings(fit: "FitResult") -> list[str]:
    if fit.intervals is None:
        return []
    if fit.holdout is None:
        return ["extrapolation_untested"] if fit.law.axis else []
    found = ["intervals_widened"] if (fit.holdout["widening"] or 1) > 1.5 else []
    skills = [fit.holdout[name] for name in ("skill_nearest", "skill_plain") if fit.holdout[name] is not None]
    return [*found, "no_skill"] if skills and min(skills) < _SKILL_LEAST else found
