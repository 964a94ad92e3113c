"""One row per PLANNED run: what was asked, what became of it, what was measured. A missing number is NaN, never 0."""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.disk import read_json, write_aside
from analysis.recipe import recipes

TEXT = ("run_id", "trunk_id", "grids", "state", "reason", "kind", "hook_name", "recipe", "alive_rule_met")
WHOLE = ("n_latents", "n_tokens", "steps", "batch_tokens", "seed", "data_seed", "d_in")
PLANNED = [
    "run_id", "trunk_id", "grids", "state", "reason", "target_flops", "flops_dense", "kind", "d_in",
    "n_latents", "k", "sparsity_coeff", "n_tokens", "steps", "batch_tokens", "lr", "seed", "data_seed",
]
SAID = ["hook_name", "recipe"]  # planned too; tables of older versions lack them
METRICS = [
    "objective", "objective_se", "fvu", "fvu_se", "mse", "l0", "l0_se", "ce_clean", "ce_with_sae",
    "ce_zero_ablated", "ce_recovered", "ce_recovered_se", "delta_ce", "delta_ce_se", "variance",
    "n_held_out_tokens", "n_documents",
]
MEASURED = ["n_alive", "alive_window_tokens", "alive_rule_met", "flops_measured", "flops_lm", "wall_s"]
FIRINGS_PER_LATENT = 100  # the window lets the average latent of the largest dictionary fire this often


def build_table(plan: dict, root: Path) -> pd.DataFrame:
    """One row per run of `plan`, read from the store at `root` (the folder that holds `by-id/`).

    `state` is done, missing, failed or damaged; `reason` says why a row has no numbers. All n_alive share the one
    window in `alive_window_tokens`; `alive_rule_met` is "no" for a row where that window gives fewer than 100
    firings per latent on average. Errors: `ValueError` when the plan lacks its runs.
    """
    if not isinstance(plan.get("runs"), list):
        raise ValueError("The plan has no list of runs: give the content of plan.json as `saescale plan` wrote it.")
    rows, results = [], {}
    for run, recipe in zip(plan["runs"], recipes(plan["runs"]), strict=True):
        row, result = _planned(run) | {"recipe": recipe}, {}
        row["state"], row["reason"], result = _outcome(run, Path(root) / "by-id" / run["run_id"])
        if row["state"] == "done":
            row |= _measured(result)
            results[run["run_id"]] = result
        rows.append(row)
    extra = sorted({key for row in rows for key in row} - set(PLANNED + SAID + METRICS + MEASURED))
    table = pd.DataFrame(rows, columns=PLANNED + SAID + METRICS + extra + MEASURED)
    return _typed(_with_alive(table, Path(root)))


def write_table(df: pd.DataFrame, path: Path) -> Path:
    """CSV with every digit, empty for missing; written aside and renamed."""
    return write_aside(Path(path), df.to_csv(index=False, lineterminator="\n"))


def read_table(path: Path) -> pd.DataFrame:
    """The table as `build_table` gave it, bit for bit. Errors: `ValueError` when it is absent or lacks columns."""
    if not Path(path).is_file():
        raise ValueError(f"There is no table at {path}: run `saescale collect` for this sweep first.")
    try:
        df = pd.read_csv(path, dtype=str, keep_default_na=False)
        lacking = [name for name in PLANNED + METRICS + MEASURED if name not in df.columns]
        if not lacking:
            return _typed(df)
    except ValueError as error:  # empty, no text, or cut within a row
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read ({reason}): run `saescale collect` for this sweep again.") from None
    raise ValueError(f"{path} lacks the columns {', '.join(lacking)}: collect it again with this version.")


def _planned(run: dict) -> dict:
    science = run["science"]
    sae, train = science["sae"], science["train"]
    return {
        "run_id": run["run_id"],
        "trunk_id": run["trunk_id"],
        "grids": ";".join(run.get("grids", [])),
        "target_flops": _number(run.get("target_flops")),
        "flops_dense": _number(run.get("flops_dense")),
        "kind": sae["kind"],
        "d_in": science["lm"]["d_in"],
        "n_latents": sae["n_latents"],
        "k": _number(sae.get("k")),
        "sparsity_coeff": _number(sae.get("sparsity_coeff")),
        "n_tokens": train["n_tokens"],
        "steps": run["steps"],
        "batch_tokens": train["batch_tokens"],
        "lr": _number(train.get("lr")),
        "seed": train["seed"],
        "data_seed": science["data"]["data_seed"],
        "hook_name": science["lm"]["hook_name"],
    }


def _outcome(run: dict, folder: Path) -> tuple[str, str, dict]:
    """State, reason and (when done) the record of one planned run."""
    path = folder / "result.json"
    if not path.exists():
        return *_unfinished(folder), {}
    try:
        result = read_json(path)
    except (ValueError, OSError) as error:
        return "damaged", str(error), {}
    problem = _mismatch(run, result)
    return ("damaged", problem, {}) if problem else ("done", "", result)


def _unfinished(folder: Path) -> tuple[str, str]:
    try:
        status = read_json(folder / "status.json")
    except FileNotFoundError:
        return "missing", "not started" if not folder.exists() else "started, no status and no result"
    except (ValueError, OSError) as error:
        return "missing", f"no result; {error}"
    state = str(status.get("state", "unknown"))
    if state == "failed":
        return "failed", str(status.get("reason") or "failed, no reason recorded")
    return "missing", f"no result yet; last known state: {state}"


def _mismatch(run: dict, result: dict) -> str:
    """Why this record is not the planned run's, or ''.

    With a fingerprint on both sides those decide. Otherwise the science keys that BOTH have must agree: a key that only
    a newer version knows has a neutral default and keeps the id.
    """
    if result.get("run_id") != run["run_id"]:
        return f"result.json belongs to run {result.get('run_id')!r}"
    if not isinstance(result.get("metrics"), dict):
        return "result.json has no metrics"
    planned, recorded = run.get("fingerprint"), result.get("fingerprint")
    if planned and recorded:
        return "" if planned == recorded else f"fingerprint {recorded} in result.json, {planned} in the plan"
    differing = _differing(run["science"], result.get("science") or {})
    return f"other science than planned: {', '.join(differing)}" if differing else ""


def _differing(planned: dict, recorded: dict, prefix: str = "") -> list[str]:
    out = []
    for key in sorted(planned.keys() & recorded.keys()):
        ours, theirs = planned[key], recorded[key]
        if isinstance(ours, dict) and isinstance(theirs, dict):
            out += _differing(ours, theirs, f"{prefix}{key}.")
        elif ours != theirs:
            out.append(f"{prefix}{key} {theirs!r} (planned {ours!r})")
    return out


def _measured(result: dict) -> dict:
    flops = result.get("flops") or {}
    row = {name: _number(value) for name, value in result["metrics"].items() if name not in PLANNED + SAID + MEASURED}
    row |= {name: _number(flops.get(name)) for name in ("flops_measured", "flops_lm")}
    row["wall_s"] = _number(result.get("wall_s"))
    if not math.isnan(_number(flops.get("flops_dense"))):
        row["flops_dense"] = _number(flops["flops_dense"])
    return row


def _with_alive(table: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Fill n_alive for every done row with the same window."""
    table = table.astype({name: object for name in MEASURED[:3] + ["reason"]})
    done = table[table["state"] == "done"]
    window = alive_window(done)
    if window is None:
        return table
    for index, row in done.iterrows():
        count, problem = _count_alive(root / "by-id" / row["run_id"] / "first_fired.npy", row["n_latents"], window)
        met = window * row["l0"] / row["n_latents"] >= FIRINGS_PER_LATENT
        table.loc[index, ["n_alive", "alive_window_tokens", "alive_rule_met"]] = [count, window, "yes" if met else "no"]
        table.loc[index, "reason"] = problem
    return table


def alive_window(done: pd.DataFrame) -> int | None:
    """The smallest window with window * l0 / n_latents >= 100 for the largest dictionary, at most the held-out set.

    Where the largest dictionary has several runs, the smallest positive l0 among them decides. None when no
    finished run says how many tokens were held out; the whole held-out set when no l0 is known.
    """
    held_out = done["n_held_out_tokens"].astype(float).min() if len(done) else math.nan
    if math.isnan(held_out):
        return None
    largest = done[done["n_latents"] == done["n_latents"].max()]
    l0 = largest["l0"].astype(float)
    l0 = l0[l0 > 0]
    if l0.empty:
        return int(held_out)
    return int(min(held_out, math.ceil(FIRINGS_PER_LATENT * largest["n_latents"].iloc[0] / l0.min() - 1e-9)))


def _count_alive(path: Path, n_latents: int, window: int) -> tuple[float, str]:
    try:
        first_fired = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return math.nan, "n_alive unknown: no first_fired.npy"
    except (ValueError, OSError, EOFError) as error:
        return math.nan, f"n_alive unknown: first_fired.npy cannot be read ({error})"
    if first_fired.shape != (n_latents,):
        return math.nan, f"n_alive unknown: first_fired.npy has shape {first_fired.shape}, not ({n_latents},)"
    return float(np.count_nonzero((first_fired >= 0) & (first_fired < window))), ""


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Text columns as str ('' when missing), counts of the plan as int64, every other number as float64."""
    out = {}
    for name in table.columns:
        if name in TEXT:
            out[name] = ["" if value is None or value != value else str(value) for value in table[name]]
        elif name in WHOLE:
            out[name] = np.array([int(value) for value in table[name]], dtype=np.int64)
        else:
            out[name] = np.array([_number(value) for value in table[name]], dtype=np.float64)
    return pd.DataFrame(out, columns=list(table.columns))


def _number(value: object) -> float:
    """The finite number in `value`, else NaN ('' and None are missing; so is an overflow: it is no measurement)."""
    if value is None or isinstance(value, bool) or value == "":
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan
