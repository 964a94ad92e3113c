"""What was predicted before it was trained, held against what came out."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.isoflops import IsoFlop, isoflop
from analysis.optimum import number
from analysis.rates import best_rate
from analysis.result import FitResult

NEAR = 0.1  # a budget is the predicted one when its FLOPs agree so far


def planned_cells(table: pd.DataFrame, flops: float) -> list[tuple[float, float]]:
    """(N, D) of the planned runs of a collected table at the budget `flops` that are not done yet."""
    waiting = table[(table["state"] != "done") & (np.abs(np.log(table["flops_dense"] / flops)) < math.log1p(NEAR))]
    return sorted({(float(n), float(d)) for n, d in zip(waiting["n_latents"], waiting["n_tokens"], strict=True)})


def foretold(fit: FitResult, cells: list[tuple[float, float]]) -> list[dict]:
    """The law's loss of a new run in each cell (N, D): {"N", "D", "estimate", "lo", "hi"}, lo and hi None without intervals."""
    if not cells or fit.status != "ok":
        return []
    n, d = zip(*cells, strict=True)
    said = fit.predict({"N": list(n), "D": list(d)})
    return [{"N": one, "D": other, **{name: number(row[name]) for name in ("estimate", "lo", "hi")}}
            for one, other, (_, row) in zip(n, d, said.iterrows(), strict=True)]  # fmt: skip


def verdict(said: Mapping[str, Any], rows: pd.DataFrame, cluster: str | None, rates: pd.DataFrame | None = None) -> dict:
    """A prediction (`Prediction.to_dict`, with its `cells` and `rates`) beside what was trained since.

    rows, rates: points of the sweep, and of the sweep of learning rates, as they are now. Gives {"at", "optimum": {name: record},
    "cells", "rates": [record]}; a record is {"predicted": {"estimate", "lo", "hi"}, "seen", "error_percent", "held"}, error =
    100 (predicted / seen - 1), None where nothing was predicted or seen, as held, which also needs an interval. The optimum seen
    is that of the budget's own valley. Errors: `ValueError` when the prediction is not of a budget, or nothing was trained there.
    """
    if "C" not in said["at"] or not said.get("N"):
        raise ValueError("This prediction is not of a budget: make it with `saescale predict SWEEP --flops C --json FILE`.")
    flops = float(said["at"]["C"])
    budget = next((b for b in _valleys(rows, cluster).budgets if abs(math.log(b["flops"] / flops)) < math.log1p(NEAR)), None)
    if budget is None:
        raise ValueError(f"No run at {flops:.4g} FLOPs is done: train and collect them first.")
    seen = {"N": budget["N"] and budget["N"]["estimate"], "D": budget["D"] and budget["D"]["estimate"], "loss": budget["loss"]}
    optimum = {name: record(said[name], seen[name]) for name in seen if said.get(name)}
    means = np.exp(np.log(rows["loss"]).groupby([rows["N"], rows["D"]]).mean())
    cells = [{"N": c["N"], "D": c["D"], **record(c, means.get((c["N"], c["D"])))} for c in said.get("cells") or ()]
    best = [] if rates is None else [_rate(one, rates) for one in said.get("rates") or ()]
    return {"at": {"C": flops}, "optimum": optimum, "cells": cells, "rates": best}


def record(predicted: Mapping[str, Any], seen: float | None) -> dict:
    said = {name: predicted.get(name) for name in ("estimate", "lo", "hi")}
    if seen is None or said["estimate"] is None:
        return {"predicted": said, "seen": number(seen), "error_percent": None, "held": None}
    bounds = said["lo"], said["hi"]
    held = None if None in bounds else bool(bounds[0] <= seen <= bounds[1])
    return {"predicted": said, "seen": float(seen), "error_percent": 100 * (said["estimate"] / seen - 1), "held": held}


def _rate(said: Mapping[str, Any], rates: pd.DataFrame) -> dict:
    here = rates[(rates["N"] == said["N"]) & (rates["D"] == said["D"])]
    by_rate = np.exp(np.log(here["loss"]).groupby(here["lr"]).mean())
    seen = best_rate(by_rate.index.to_numpy(float), by_rate.to_numpy(float)) if len(by_rate) >= 3 else None
    return {"N": said["N"], "D": said["D"], **record(said["lr"], seen)}


def _valleys(rows: pd.DataFrame, cluster: str | None) -> IsoFlop:
    return isoflop(rows, scale="ln_loss", sizes=5, cluster=cluster, draws=100)


def verdict_lines(found: Mapping[str, Any]) -> list[tuple[str, dict]]:
    """(name, record) in the order of a page."""
    words = {"N": "best n_latents", "D": "best n_tokens", "loss": "loss at the optimum"}
    lines = [(words[name], one) for name, one in found["optimum"].items()]
    lines += [(f"loss at {c['N']:g} latents, {c['D']:.3g} tokens", c) for c in found["cells"]]
    return lines + [(f"best lr at {c['N']:g} latents, {c['D']:.3g} tokens", c) for c in found["rates"]]
