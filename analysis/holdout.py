"""Held-out extrapolation: fit the small runs, predict the large ones, for several cuts along the law's axis.

The axis is the product of the law's axis columns (N D for `nd`). Each cut gives errors of the predictions above it, how often
the intervals held, and the skill against two baselines that need no law: the loss of the nearest run, and a plain power law
in all columns without a floor. Parameter uncertainty is not prediction uncertainty when the law itself is wrong, so
prediction intervals are widened by what the held-out rows needed.
"""

from collections.abc import Callable

import numpy as np

from analysis.laws import Law
from analysis.rows import Rows

_CUTS, _LEVELS = 3, 12
_LEVEL = 95.0


def hold_out(law: Law, rows: Rows, fit_rows: Callable) -> dict | None:
    """`fit_rows(rows) -> (predict(columns) -> ln y [point], ln draws [draw, point] with noise or None, status)`.

    Gives {"cuts": [...], "widening", "coverage_95", "skill_nearest", "skill_plain"}; None where the table leaves fewer than
    two rows per parameter below every cut, or has no axis.
    """
    if not law.axis or law.levels:
        return None
    axis = sum(np.log(rows.columns[name]) for name in law.axis)
    cuts = [record for cut in _cuts(axis, len(law.params)) if (record := _one(rows, axis, cut, fit_rows))]
    if not cuts:
        return None
    whole = {name: np.concatenate([record.pop(name) for record in cuts]) for name in ("_ratio", "_error", "_nearest", "_plain")}
    ratio = whole["_ratio"][np.isfinite(whole["_ratio"])]
    return {
        "axis": list(law.axis),
        "cuts": cuts,
        "widening": max(1.0, float(np.percentile(ratio, _LEVEL))) if len(ratio) else None,
        "mean_abs_ln": float(np.abs(whole["_error"]).mean()),
        "coverage_95": float((ratio <= 1).mean()) if len(ratio) else None,
        "skill_nearest": _skill(whole["_error"], whole["_nearest"]),
        "skill_plain": _skill(whole["_error"], whole["_plain"]),
    }


def _cuts(axis: np.ndarray, n_params: int) -> list[float]:
    """Thresholds: below the last three levels of a table with few, else the 60, 75 and 90 % points."""
    levels = np.unique(np.round(axis, 2))
    if len(levels) <= _LEVELS:
        wanted = [(levels[-k - 1] + levels[-k]) / 2 for k in range(_CUTS, 0, -1) if k < len(levels)]
    else:
        wanted = [float(np.quantile(axis, share)) for share in (0.6, 0.75, 0.9)]
    return [cut for cut in dict.fromkeys(wanted) if (axis < cut).sum() >= 2 * n_params and (axis >= cut).sum() >= 1]


def _one(rows: Rows, axis: np.ndarray, cut: float, fit_rows: Callable) -> dict | None:
    below = axis < cut
    train, test = rows.part(below), rows.part(~below)
    if any(np.ptp(values) == 0 for values in train.columns.values()) or np.ptp(train.ln_y) == 0:
        return None
    predict, draw, status = fit_rows(train)
    error = test.ln_y - predict(test.columns)
    ratio, inside_50, inside_95 = np.full(len(error), np.nan), None, None
    if draw is not None:
        low, q25, q75, high = np.percentile(draw(test.columns), [2.5, 25, 75, 97.5], axis=0)
        centre = test.ln_y - error
        ratio = np.where(error > 0, error / np.maximum(high - centre, 1e-300), -error / np.maximum(centre - low, 1e-300))
        inside_50 = float(((test.ln_y >= q25) & (test.ln_y <= q75)).mean())
        inside_95 = float(((test.ln_y >= low) & (test.ln_y <= high)).mean())
    return {
        "cut": float(np.exp(cut)),
        "n_train": train.n_rows,
        "n_test": test.n_rows,
        "status": status,
        "mean_abs_error": float(np.abs(np.expm1(error)).mean()),
        "bias": float(np.expm1(error).mean()),
        "rms_ln": float(np.sqrt((error**2).mean())),
        "coverage_50": inside_50,
        "coverage_95": inside_95,
        "_ratio": ratio,
        "_error": error,
        "_nearest": test.ln_y - _nearest(train, test),
        "_plain": test.ln_y - _plain(train, test),
    }


def _skill(error: np.ndarray, baseline: np.ndarray) -> float | None:
    """1 - mean |error| / mean |error of the baseline|: 1 is perfect, 0 no better, negative worse."""
    worst = float(np.abs(baseline).mean())
    return 1 - float(np.abs(error).mean()) / worst if worst > 0 else None


def _ln_columns(rows: Rows) -> np.ndarray:
    return np.stack([np.log(values) for values in rows.columns.values()], axis=1)


def _nearest(train: Rows, test: Rows) -> np.ndarray:
    """ln y of the nearest row in logarithms of the columns, each in units of its own spread."""
    a, b = _ln_columns(train), _ln_columns(test)
    spread = a.std(axis=0)
    distance = (((b[:, None] - a[None]) / spread) ** 2).sum(axis=2)
    return train.ln_y[np.argmin(distance, axis=1)]


def _plain(train: Rows, test: Rows) -> np.ndarray:
    """ln y linear in the logarithms of the columns: a power law without a floor."""
    a, b = (np.column_stack([np.ones(r.n_rows), _ln_columns(r)]) for r in (train, test))
    return b @ np.linalg.lstsq(a, train.ln_y, rcond=None)[0]
