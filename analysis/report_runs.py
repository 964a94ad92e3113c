"""The run table of the report: every planned run, the columns in which they differ, and what is missing with its reason."""

import math
from html import escape

import numpy as np
import pandas as pd

from analysis.markup import folded, plain, table
from analysis.tables import PLANNED, SAID, TEXT, WHOLE

ASIDE = {"trunk_id", "steps", "alive_rule_met", "alive_window_tokens", "n_held_out_tokens", "n_documents", "variance", "ce_clean"}
ASIDE |= {"ce_zero_ablated", "ce_with_sae", "flops_lm", "flops_measured", "mse", "n_ce_tokens"}  # in table.csv for who wants them
WORDS = {"n_tokens": "training tokens", "l0": "active latents per held-out token", "fvu": "fraction of variance unexplained"}
WORDS |= {"ce_recovered": "share of the language model's loss that survives", "wall_s": "seconds of training"}
IN_TIP = {"objective", "fvu", "l0", "ce_recovered", "delta_ce", *PLANNED, *SAID} - {"run_id", "state", "reason", "grids"}
STATES = ("done", "failed", "damaged", "missing")


def columns(rows: pd.DataFrame) -> list[str]:
    """The columns worth a place: run, state, reason, and those in which runs differ; fvu only where it is not the objective."""
    told = [name for name in rows.columns if name not in ASIDE and not name.endswith("_se")]
    same = rows["fvu"].astype(float).round(9).equals(rows["objective"].astype(float).round(9))
    varying = [name for name in told if _varies(rows[name]) and not (name == "fvu" and same)]
    return ["run_id", "state", "reason", *(name for name in varying if name not in ("run_id", "state", "reason"))]


def _varies(column: pd.Series) -> bool:
    """Whether rows with a result differ by more than rounding."""
    known = column.dropna()
    if known.dtype.kind == "f" and len(known):
        return bool(known.max() - known.min() > 1e-6 * known.abs().max())
    return column.nunique(dropna=False) > 1


def data(rows: pd.DataFrame) -> dict:
    """{"columns", "rows"} for the page's script; a missing number is null."""
    names = columns(rows)
    about = [
        {"key": name, "label": "run" if name == "run_id" else name, "numeric": name not in TEXT, "words": WORDS.get(name, "")}
        | {"whole": name in WHOLE or name == "n_alive", "tip": name in IN_TIP}
        | {"measured": name not in PLANNED + SAID}
        for name in names
    ]
    values = [[_value(value) for value in rows[name]] for name in names]
    return {"columns": about, "rows": [list(row) for row in zip(*values, strict=True)]}


def _value(value: object) -> object:
    if isinstance(value, (float, np.floating)):
        return None if not math.isfinite(value) else int(value) if value == int(value) and abs(value) < 2**53 else float(value)
    return int(value) if isinstance(value, np.integer) else value


def section(rows: pd.DataFrame, plan: dict) -> str:
    """The frame that the script fills; what is missing, grouped by its reason, needs no script."""
    counts = rows["state"].value_counts()
    chips = f'<button type="button" data-state="" aria-pressed="true">all {len(rows):,}</button>'
    for state in (name for name in STATES if counts.get(name)):
        chips += f'<button type="button" data-state="{state}" aria-pressed="false">{state} {counts[state]:,}</button>'
    told = [name for name in (*PLANNED, "hook_name") if name in rows and name not in (*ASIDE, "run_id", "state", "reason")]
    same = [name for name in told if rows[name].nunique() == 1]
    fixed = ", ".join(f"{name} {plain(_value(rows[name].iloc[0]))}" for name in same if not rows[name].isna().any())
    return (
        '<h2 id="runs-title">Runs</h2>\n'
        f'<p class="quiet">Only columns in which runs differ are shown. The same in all: {escape(fixed or "nothing")}.</p>\n'
        '<div class="tools"><label>filter <input type="search" id="filter" autocomplete="off" spellcheck="false"'
        ' placeholder="id, size, reason, several words"></label>\n'
        f'<div id="states" role="group" aria-label="show runs by state">{chips}</div>\n'
        '<span id="run-count" class="quiet" role="status"></span></div>\n'
        '<div id="run-table" class="scroll tall" role="region" aria-label="run table" tabindex="0">'
        '<p class="quiet">This table needs scripts; the same rows are in <a href="data/table.csv">table.csv</a>.</p></div>\n'
        + _missing(rows)
        + _excluded(plan.get("excluded") or [])
    )


def _missing(rows: pd.DataFrame) -> str:
    out = ""
    for title, part in (
        ("Runs without a result", rows[rows["state"] != "done"]),
        ("Results with a gap", rows[(rows["state"] == "done") & (rows["reason"] != "")]),
    ):
        if len(part):
            groups = part.groupby(["state", "reason"], sort=False)["run_id"].agg(list)
            lines = [[state, reason, len(ids), _some(ids)] for (state, reason), ids in groups.items()]
            listing = table([("state", False), ("reason", False), ("runs", True), ("which", False)], lines)
            out += f"<h3>{title}</h3>\n{folded(listing, len(lines), 'reasons')}\n"
    return out


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:6]) + (f" and {len(ids) - 6} more: filter by the reason" if len(ids) > 6 else "")


def _excluded(excluded: list[dict]) -> str:
    if not excluded:
        return ""
    rows = [[e.get("grid", ""), _cell(e.get("cell", {})), e.get("reason", "")] for e in excluded]
    listing = table([("grid", False), ("cell", False), ("reason", False)], rows)
    return f"<h3>Cells excluded from the plan</h3>\n{folded(listing, len(rows), 'cells')}\n"


def _cell(cell: dict | str) -> str:
    return ", ".join(f"{key}={plain(value)}" for key, value in cell.items()) if isinstance(cell, dict) else str(cell)
