"""Kinds of SAE by what they cost: the best loss for a compute, counted as a dense SAE's and as the kernels executed it."""

import math

import numpy as np
import pandas as pd

from analysis.recipe import SAME, refuse_mixed
from analysis.sweep_points import at_best_rate

COSTS = ("flops_dense", "flops_measured")
ALIKE = 0.02  # costs that differ by less, in logarithms, are one: the same budget of several sizes
MATCHED = 0.1  # a run counts where its held-out l0 is this near to the one it was trained for


def frontiers(table: pd.DataFrame, y: str = "fvu", beside: str = "topk") -> dict:
    """{"y", "beside", "kinds": {kind: {cost: {"multiple": {"estimate", "lo", "hi"} or None, "at": y}}}}.

    A frontier is the lowest mean y over seeds within a cost, at each cell's best learning rate and among cells whose l0 is the
    wanted one (short runs end before a penalty is solved for). multiple: what a kind spends for a y over what `beside` spends, at
    the geometric middle of the y both frontiers reach (interpolated in logarithms); lo and hi are the least and the most over
    seeds, not a confidence interval. Errors: `ValueError` with fewer than two kinds, without several horizons of a size, or with
    several wanted l0, hooks, or recipes of a kind.
    """
    rows = compared(table, y)
    several = rows.groupby(["kind", "n_latents"])["n_tokens"].nunique() if len(rows) else pd.Series([0])
    if rows["kind"].nunique() < 2 or several.max() < 2:
        raise ValueError("Frontiers of kinds need several kinds, each at several horizons.")
    refuse_mixed_kinds(table[table["state"] == "done"])
    beside = beside if (rows["kind"] == beside).any() else str(sorted(rows["kind"].unique())[0])
    found: dict = {kind: {} for kind in sorted(rows["kind"].unique())}
    for kind in found:
        for cost in COSTS:
            found[kind][cost] = _against(rows[rows["kind"] == kind], rows[rows["kind"] == beside], cost, y)
    return {"y": y, "beside": beside, "kinds": found}


def compared(table: pd.DataFrame, y: str) -> pd.DataFrame:
    """The done rows of the cells (kind, size, horizon) that frontiers are made of: at each cell's best learning rate, and with a
    mean l0 over seeds within MATCHED of the wanted one, or that wanted none."""
    cell = ["kind", "n_latents", "n_tokens"]
    rows = at_best_rate(table[(table["state"] == "done") & (table[y] > 0)], y, cell)
    off = (rows["l0"] / wanted_l0(rows)).groupby([rows[name] for name in cell]).transform("mean") - 1
    return rows[~(off.abs() > MATCHED)]


def wanted_l0(rows: pd.DataFrame) -> pd.Series:
    """k, or what the penalty was solved for."""
    return rows["k"].fillna(rows["target_l0"]) if "target_l0" in rows else rows["k"]


def refuse_mixed_kinds(rows: pd.DataFrame) -> None:
    """Kinds are compared at one wanted l0 and hook; what else differs between them is the kinds' own."""
    refuse_mixed(pd.DataFrame({"wanted l0": wanted_l0(rows).dropna()}), ["wanted l0"])
    refuse_mixed(rows, ["hook_name", "d_in"])
    for _, group in rows.groupby("kind"):
        refuse_mixed(group, [name for name in SAME if name != "kind"])


def frontier(rows: pd.DataFrame, cost: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """(ln cost, ln y) of the cells that are better than all cheaper ones; cells are means over seeds."""
    cells = np.log(rows[[cost, y]]).groupby([rows["n_latents"], rows["n_tokens"]]).mean()
    cells = cells.loc[cells.groupby((cells[cost] / ALIKE).round())[y].idxmin()].sort_values(cost)
    best = cells[y].cummin()
    keep = cells[y].to_numpy() <= best.to_numpy()
    keep[1:] &= np.diff(best.to_numpy()) < 0
    return cells[cost].to_numpy()[keep], cells[y].to_numpy()[keep]


def _against(rows: pd.DataFrame, others: pd.DataFrame, cost: str, y: str) -> dict:
    at = _middle(frontier(rows, cost, y)[1], frontier(others, cost, y)[1])
    if at is None:
        return {"multiple": None, "at": None}
    whole = _ratio(rows, others, cost, y, at)
    seeds = sorted(set(rows["seed"]) & set(others["seed"]))
    each = [_ratio(rows[rows["seed"] == s], others[others["seed"] == s], cost, y, at) for s in seeds]
    each = [value for value in each if math.isfinite(value)]
    spread = {"lo": min(each), "hi": max(each)} if len(each) > 1 else {"lo": None, "hi": None}
    return {"multiple": {"estimate": whole, **spread}, "at": math.exp(at)}


def _middle(one: np.ndarray, other: np.ndarray) -> float | None:
    low, high = max(one.min(), other.min()), min(one.max(), other.max())
    return None if low >= high else (low + high) / 2


def _ratio(rows: pd.DataFrame, others: pd.DataFrame, cost: str, y: str, at: float) -> float:
    return math.exp(_cost(rows, cost, y, at) - _cost(others, cost, y, at))


def _cost(rows: pd.DataFrame, cost: str, y: str, at: float) -> float:
    """ln cost at which the frontier reaches ln y = at; NaN where it does not."""
    c, values = frontier(rows, cost, y)
    return float(np.interp(-at, -values, c, left=np.nan, right=np.nan))
