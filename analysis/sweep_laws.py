"""Everything else a sweep's runs say, beside the valleys of sweep_fit: surfaces, the split of compute three ways, what the
split depends on, the best learning rate, convergence. Each part gives its numbers or its reason."""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from analysis.allocate import Allocation, allocation
from analysis.estimate import fit
from analysis.estimators import exponents
from analysis.frontiers import frontiers
from analysis.isoflops import isoflop
from analysis.matched import matched_l0
from analysis.rates import edge_cells, ladder
from analysis.result import FitResult
from analysis.rows import read_rows
from analysis.selection import compare
from analysis.size_and_k import size_and_k
from analysis.sweep_points import CLUSTER, sweep_points

FAMILY = ("nd_kaplan", "nd_tied", "nd", "nd_interaction")
SIZES, SCALE = 5, "ln_loss"  # an SAE's valleys are up to two nats deep: no polynomial holds all through one
BLOCKS = ("surface", "isoflop", "allocation", "exponents", "convergence", "size_by_k", "equal_compute")
KEPT_DRAWS = 400  # in fits.json, for the figures' bands


def sweep_laws(table: pd.DataFrame, y: str = "objective", draws: int = 1000, seed: int = 0) -> dict:
    """JSON blocks for fits.json: `surface`, `isoflop`, `allocation`, `exponents`, `learning_rate`, `convergence`,
    `size_by_k`, `equal_compute`, and of several kinds `matched_l0`; a block that the runs cannot fill is {"reason": why}.
    Clusters are trunks; of one cell's rates the best counts."""

    def block(make: Callable) -> dict | list:
        try:
            return make()
        except ValueError as error:
            return {"reason": str(error)}

    out: dict = {"learning_rate": block(lambda: best_rates(table, y, draws, seed))}
    if (table["state"] == "done").any():  # these may be of several kinds
        out |= {"size_by_k": block(lambda: size_and_k(table, y, draws, seed)), "equal_compute": block(lambda: frontiers(table))}
    if table.loc[table["state"] == "done", "kind"].nunique() > 1:
        out["matched_l0"] = block(lambda: matched_l0(table))
    try:
        rows = sweep_points(table, y)
    except ValueError as error:
        return dict.fromkeys(BLOCKS, {"reason": str(error)}) | out
    out["surface"], chosen = _surface(rows, draws, seed)
    valleys = block(lambda: isoflop(rows, scale=SCALE, sizes=SIZES, cluster=CLUSTER, draws=draws, seed=seed))
    out["isoflop"] = valleys if isinstance(valleys, dict) else valleys.to_dict()
    if isinstance(chosen, FitResult) and not isinstance(valleys, dict):
        split = block(lambda: allocation(rows, fit=chosen, valleys=valleys, cluster=CLUSTER, draws=draws, seed=seed))
        out["allocation"] = split.to_dict() if isinstance(split, Allocation) else split
    else:
        out["allocation"] = {"reason": out["surface"].get("reason") or out["isoflop"]["reason"]}
    law = chosen.law.name if isinstance(chosen, FitResult) else "nd"
    out["exponents"] = block(lambda: exponents(rows, law, CLUSTER, draws=min(draws, 300), sizes=SIZES))
    out["convergence"] = block(lambda: _kept(fit("convergence", rows, draws=draws, seed=seed)))
    return out


def _surface(rows: pd.DataFrame, draws: int, seed: int) -> tuple[dict, FitResult | None]:
    """The model table, and the chosen law with the additive one beside it."""
    try:
        models = compare(FAMILY, rows, cluster=CLUSTER)
        picked = models.loc[models["chosen"], "law"]
        name = str(picked.iloc[0]) if len(picked) else "nd"
        chosen = fit(name, rows, cluster=CLUSTER, draws=draws, seed=seed)
        others = [fit("nd", rows, cluster=CLUSTER, draws=0)] if name != "nd" else []
    except ValueError as error:
        return {"reason": str(error)}, None
    records = models.astype(object).where(models.notna(), None).to_dict("records")
    record = {"law": name, "models": records, "fit": _kept(chosen), "others": [_kept(other) for other in others]}
    return record | {"below": below_largest(rows, name, CLUSTER, seed)}, chosen


def below_largest(rows: pd.DataFrame, law: str, cluster: str | None, seed: int = 0) -> dict | None:
    """The law fitted without the largest budget (the largest tenth of the rows where there are no planned budgets): {"cut"
    (C), "fit"}; None where the rest is too little for it."""
    planned = "budget" in rows and rows["budget"].notna().any()
    cut = 0.9 * float(rows["budget"].max()) if planned else float(rows["C"].quantile(0.9))
    try:
        found = fit(law, rows[rows["C"] < cut], cluster=cluster, draws=KEPT_DRAWS, seed=seed)
    except ValueError:
        return None
    return {"cut": cut, "fit": _kept(found)} if found.status == "ok" else None


def best_rates(table: pd.DataFrame, y: str = "objective", draws: int = 1000, seed: int = 0) -> dict:
    """The law of the best learning rate over n and tokens together, and the cells it rests on.

    Errors: `ValueError` where no cell has three rates.
    """
    rows = sweep_points(table, y, every_rate=True)
    tried = rows.groupby(["N", "D"])["lr"].nunique() if "lr" in rows else pd.Series([0])
    if tried.max() < 3:
        raise ValueError(f"At most {int(tried.max())} learning rates per size and horizon: at least 3 are needed to find a best.")
    several = rows[rows.groupby(["N", "D"])["lr"].transform("nunique") >= 3]
    found = fit("lr", several, cluster=CLUSTER, draws=draws, seed=seed)
    edges = edge_cells(read_rows(found.law, several))  # said whether or not the law could be fitted
    if edges and "lr_at_edge" not in found.warnings:
        found = replace(found, warnings=(*found.warnings, "lr_at_edge"))
    means = rows.groupby(["N", "D", "lr"], as_index=False)["loss"].mean()
    try:
        rungs = ladder(rows, draws, seed)
    except ValueError as error:
        rungs = {"reason": str(error)}
    return {"fit": _kept(found), "points": means.to_dict("records"), "edges": edges, "ladder": rungs}


def _kept(found: FitResult) -> dict:
    return replace(found, draws=found.draws[:KEPT_DRAWS]).to_dict()
