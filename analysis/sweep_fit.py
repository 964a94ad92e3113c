"""From the table to fits.json: valleys, optima, laws, intervals, hold-out test, warnings."""

import hashlib
import math
import platform
from importlib import metadata

import numpy as np
import pandas as pd

from analysis.lines import power_law
from analysis.optimum import X_NAME, bounded, hold_out_largest, ln_tokens, number, optimum_laws
from analysis.recipe import refuse_mixed
from analysis.sweep_points import at_best_rate
from analysis.uncertainty import draw_cell_means, draw_vertices, residuals
from analysis.valleys import BRACKETED, Cells, Valley, cells, turns, valley

SCHEMA = 1
HASHED = ["run_id", "trunk_id", "target_flops", "flops_dense", "n_latents", "n_tokens", "lr", "seed", "data_seed"]
CHECK_RATIO = 1.25
Y_WORDS = {
    "objective": "held-out training objective without auxiliary terms / held-out variance",
    "fvu": "fraction of variance unexplained on held-out tokens",
    "delta_ce": "increase of the language model's loss, nats per token",
}


def fit_sweep(df: pd.DataFrame, draws: int = 1000, seed: int = 0, y: str = "objective") -> dict:
    """Everything the table says about compute, as one JSON-serialisable dict (fits.json).

    Rows with a `target_flops` and a positive `y` are grouped by target_flops; x is the flops_dense of the runs.
    Intervals are 95 % percentiles over `draws` draws: a wild cluster bootstrap over trunk_id (seed noise; with two
    seeds the residuals are scaled so that the variance is right on average) plus, for the laws, the scatter of the
    budgets around the law that seeds do not explain (Student's tails, budgets - parameters degrees of freedom). They
    do NOT cover what shifts all budgets together: learning-rate rule, SAE kind, form of the valley fit (see `checks`),
    held-out text, extrapolation. Under three bracketed budgets no exponent is given.
    Errors: `ValueError` for an unknown y, several hooks in one table, several recipes in its budgets, or fewer than 100 draws.
    """
    if y not in df.columns:
        raise ValueError(f"The table has no column {y!r} to fit: choose one of {', '.join(Y_WORDS)}.")
    if draws < 100:
        raise ValueError(f"draws={draws} is too few for a 95 % interval: choose at least 100.")
    refuse_mixed(df[df["state"] == "done"], ["hook_name"])
    planned = df[df["target_flops"].notna()]
    rows, warnings = _usable(planned, y)
    fits = _heading(df, planned, rows, y) | {"bootstrap": {"draws": draws, "seed": seed}}
    if rows.empty:
        fits["budgets"] = [_empty_budget(target, group) for target, group in planned.groupby("target_flops")]
        none = {"no_finished_runs", "fewer_than_3_bracketed"} if fits["budgets"] else set()  # a sweep may ask for no budget
        return fits | _no_laws() | {"warnings": sorted({*warnings, *none})}
    fits["recipe"] = _recipe(rows)
    grid = cells(rows, y)
    fits |= _fit_grid(grid, fits, planned, np.random.default_rng(seed))
    return fits | {"warnings": sorted({*warnings, *_row_warnings(rows, grid), *fits["warnings"]})}


def _usable(planned: pd.DataFrame, y: str) -> tuple[pd.DataFrame, list[str]]:
    """Finished rows of one recipe with a positive y, sorted by run_id; one learning rate per cell."""
    warnings = [f"runs_{state}" for state in ("missing", "failed", "damaged") if (planned["state"] == state).any()]
    rows = planned[(planned["state"] == "done") & (planned[y] > 0) & (planned["flops_dense"] > 0)]
    rows = rows.sort_values("run_id", kind="stable").drop_duplicates("run_id")
    refuse_mixed(rows)
    best = at_best_rate(rows, y, ["target_flops", "n_latents"])
    return best, warnings + (["best_lr_per_cell"] if len(best) < len(rows) else [])


def _recipe(rows: pd.DataFrame) -> dict:
    first = rows.iloc[0]
    whole = {"d_in": int(first["d_in"]), "batch_tokens": int(first["batch_tokens"])}
    return {"kind": str(first["kind"]), "k": number(first["k"]), "sparsity_coeff": number(first["sparsity_coeff"])} | whole


def _heading(df: pd.DataFrame, planned: pd.DataFrame, rows: pd.DataFrame, y: str) -> dict:
    used = rows[[*HASHED, y]].to_csv(index=False, lineterminator="\n")
    return {
        "schema": SCHEMA,
        "axes": {"y": y, "x": X_NAME, "y_words": Y_WORDS.get(y, y), "x_words": "12 * d_in * n_latents * n_tokens, FLOPs"},
        "rows": {"in_table": len(df), "planned": len(planned), "done": int((planned["state"] == "done").sum())}
        | {"used": len(rows)},
        "data_hash": hashlib.sha256(used.encode()).hexdigest()[:16],
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("numpy", "scipy", "pandas")},
        "recipe": None,
    }


def _no_laws() -> dict:
    laws = {"n_latents": None, "n_tokens": None, "loss": None, "loss_floor": None}
    return {"laws": laws, "exponent_sum": None, "checks": None, "hold_out": None}


def _empty_budget(target: float, planned: pd.DataFrame) -> dict:
    record = {"target_flops": float(target), "flops_dense": None, "status": "no_results", "points": [], "warnings": []}
    return record | {"n_sizes_planned": int(planned["n_latents"].nunique()), "n_opt": None, "tokens_opt": None, "y_opt": None}


def _fit_grid(grid: Cells, fits: dict, planned: pd.DataFrame, rng: np.random.Generator) -> dict:
    """Valleys of every budget, then the laws through the bracketed ones."""
    d_in, draws = fits["recipe"]["d_in"], fits["bootstrap"]["draws"]
    ln_n, ln_c = np.log(grid.sizes), np.log(grid.flops)
    valleys = {form: [valley(ln_n, row, form) for row in grid.ln_y] for form in ("parabola3", "parabola5", "cubic")}
    records = [_budget(grid, b, {form: row[b] for form, row in valleys.items()}, planned) for b in range(len(ln_c))]
    done = set(grid.budgets)
    absent = [_empty_budget(t, group) for t, group in planned.groupby("target_flops") if t not in done]
    out = _no_laws() | {"budgets": sorted(records + absent, key=lambda record: record["target_flops"])}
    good = np.array([b for b, v in enumerate(valleys["parabola3"]) if v.status == BRACKETED], int)
    warnings = [] if len(good) == len(out["budgets"]) else ["budgets_unbracketed"]
    if len(good):
        optima = {"ln_n": np.array([valleys["parabola3"][b].ln_x for b in good])}
        optima["ln_y"] = np.array([valleys["parabola3"][b].ln_y for b in good])
        drawn = dict(zip(("ln_n", "ln_y"), draw_vertices(grid, draw_cell_means(grid, draws, rng), good), strict=True))
        known = slice(None) if (grid.count > 1).any() else slice(0)  # one seed: no interval, not one of width 0
        seen = {name: values[known] for name, values in drawn.items()}
        _add_optima([records[b] for b in good], optima, seen, ln_c[good], d_in)
        out["bootstrap"] = fits["bootstrap"] | _bootstrap(grid, drawn["ln_n"])
        warnings += ["bootstrap_unstable"] if out["bootstrap"]["lost_fraction"] > 0.05 else []
    if len(good) < 3:
        return out | {"warnings": [*warnings, "fewer_than_3_bracketed"]}
    out["laws"] = optimum_laws(fits["axes"]["y"], ln_c[good], optima, drawn, d_in, rng)
    out["hold_out"] = hold_out_largest(ln_c[good], optima["ln_n"], optima["ln_y"])
    out["checks"], out["exponent_sum"] = _checks(grid, valleys, good, out["laws"])
    return out | {"warnings": warnings + _law_warnings(ln_c[good], out)}


def _budget(grid: Cells, b: int, fitted: dict[str, Valley], planned: pd.DataFrame) -> dict:
    """One budget's record; optimum and intervals are added later when it is bracketed."""
    here = planned[planned["target_flops"] == grid.budgets[b]]
    keep = np.flatnonzero(grid.count[b])
    points = [
        {"n_latents": int(grid.sizes[s]), "y": math.exp(grid.ln_y[b, s]), "n_seeds": int(grid.count[b, s])}
        | {"n_tokens": math.exp(grid.ln_tokens[b, s])}
        for s in keep
    ]
    record = _empty_budget(grid.budgets[b], here) | {
        "flops_dense": float(grid.flops[b]),
        "status": fitted["parabola3"].status,
        "points": points,
        "best_sampled": min(points, key=lambda point: point["y"]),
        "checks": {form: {"status": v.status, "n_opt": number(math.exp(v.ln_x))} for form, v in fitted.items()},
    }
    record["warnings"] = _budget_warnings(grid, b, fitted, bool((here["state"] != "done").any()))
    return record


def _budget_warnings(grid: Cells, b: int, fitted: dict[str, Valley], incomplete: bool) -> list[str]:
    out = ["cells_missing"] if incomplete else []
    y = grid.ln_y[b][grid.count[b] > 0]
    if turns(y) > 1:
        out.append("several_minima")
    if fitted["parabola3"].status != BRACKETED:
        return out
    _, pooled = residuals(grid)
    if min(y[0], y[-1]) - y.min() < 2 * pooled * math.sqrt(2 / max(1.0, grid.count[b][grid.count[b] > 0].mean())):
        out.append("shallow_valley")
    others = [fitted[form] for form in ("parabola5", "cubic") if fitted[form].status != "too_few_sizes"]
    if any(not abs(v.ln_x - fitted["parabola3"].ln_x) <= math.log(CHECK_RATIO) for v in others):
        out.append("checks_disagree")
    return out


def _add_optima(records: list[dict], optima: dict, drawn: dict, ln_c: np.ndarray, d_in: int) -> None:
    """n_opt, tokens_opt = C / (12 d n_opt) and y_opt of the bracketed budgets, with intervals over seeds."""
    for i, record in enumerate(records):
        ln_n, draws = optima["ln_n"][i], drawn["ln_n"][:, i]
        record["n_opt"] = bounded(math.exp(ln_n), np.exp(draws))
        record["tokens_opt"] = bounded(math.exp(ln_tokens(ln_c[i], ln_n, d_in)), np.exp(ln_tokens(ln_c[i], draws, d_in)))
        record["y_opt"] = bounded(math.exp(optima["ln_y"][i]), np.exp(drawn["ln_y"][:, i]))
        record["bracketed_draws_fraction"] = float(np.isfinite(draws).mean()) if len(draws) else None


def _bootstrap(grid: Cells, draws: np.ndarray) -> dict:
    return {
        "method": "wild cluster bootstrap over trunk_id, plus scatter of budgets around each law",
        "clusters": int(grid.row_trunk.max()) + 1,
        "seed_sd_ln_y": number(residuals(grid)[1]) if (grid.count > 1).any() else None,
        "lost_fraction": float((~np.isfinite(draws)).any(axis=1).mean()),
    }


def _checks(grid: Cells, valleys: dict, good: np.ndarray, laws: dict) -> tuple[dict, dict]:
    """The exponent of n_opt by each valley form, and T's exponent from valleys in ln T of its own."""
    ln_c = np.log(grid.flops)
    by_form = {}
    for form, row in valleys.items():
        kept = [b for b in good if row[b].status == BRACKETED]
        slope = power_law(ln_c[kept], np.array([row[b].ln_x for b in kept])).slope if len(kept) >= 3 else None
        by_form[form] = {"exponent": number(slope), "budgets": len(kept)}
    slope = _tokens_slope(grid, good)
    p, q = laws["n_latents"]["exponent"]["estimate"], laws["n_tokens"]["exponent"]["estimate"]
    total = {"estimate": p + q, "tokens_fitted_apart": number(None if slope is None else p + slope)}
    return {"n_latents_exponent": by_form, "n_tokens_exponent_fitted_apart": number(slope)}, total


def _tokens_slope(grid: Cells, good: np.ndarray) -> float | None:
    """Exponent of T_opt from valleys fitted in ln T; None where two sizes of a budget share a horizon."""
    ln_t = []
    for b in good:
        x, y = -grid.ln_tokens[b][grid.count[b] > 0], grid.ln_y[b][grid.count[b] > 0]
        if not (np.diff(x) > 0).all():
            return None
        ln_t.append(-valley(x, y).ln_x)
    return power_law(np.log(grid.flops[good]), np.array(ln_t)).slope


def _law_warnings(ln_c: np.ndarray, out: dict) -> list[str]:
    decades = (ln_c.max() - ln_c.min()) / math.log(10)
    found = ["narrow_compute_range"] if decades < 1 else []
    floor = out["laws"]["loss_floor"]
    if floor is None:
        found.append("floor_needs_4_budgets")
    else:
        found += ["floor_unidentified"] if decades < 2 else []
        found += {"ok": [], "at_bound": ["floor_at_bound"], "not_converged": ["floor_not_converged"]}[floor["status"]]
        floor["identified"] = bool(decades >= 2) and floor["status"] == "ok"
    if out["hold_out"] is None:
        return [*found, "holdout_not_possible"]
    return found + (["holdout_loss_missed"] if abs(out["hold_out"]["loss"]["error_percent"]) > 5 else [])


def _row_warnings(rows: pd.DataFrame, grid: Cells) -> list[str]:
    seeds = int(grid.count.max())
    found = {1: ["single_seed"], 2: ["two_seeds"]}.get(seeds, [])
    if (rows["alive_rule_met"] == "no").any():
        found = [*found, "alive_rule_not_met"]
    l0 = rows["l0"][rows["l0"] > 0]
    return [*found, "l0_varies"] if len(l0) and l0.max() > 1.5 * l0.min() else found
