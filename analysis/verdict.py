"""What was predicted before it was trained, held against what came out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.isoflops import IsoFlop, isoflop
from analysis.optimum import number
from analysis.rates import best_rate, rate_interval
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
    is that of the budget's own valley, whose place is uncertain too: N, D and rates have `seen_interval` [lo, hi] (None where
    there is none), and held is whether the two differ by no more than both intervals allow together.
    Errors: `ValueError` when the prediction is not of a budget, or nothing was trained there.
    """
    if "C" not in said["at"] or not said.get("N"):
        raise ValueError("This prediction is not of a budget: make it with `saescale predict SWEEP --flops C --json FILE`.")
    flops = float(said["at"]["C"])
    budget = next((b for b in _valleys(rows, cluster).budgets if abs(math.log(b["flops"] / flops)) < math.log1p(NEAR)), None)
    if budget is None:
        raise ValueError(f"No run at {flops:.4g} FLOPs is done: train and collect them first.")
    seen = {"N": budget["N"] and budget["N"]["estimate"], "D": budget["D"] and budget["D"]["estimate"], "loss": budget["loss"]}
    noise = {name: [budget[name][end] for end in ("lo", "hi")] for name in ("N", "D") if budget[name]}
    optimum = {name: record(said[name], seen[name], noise.get(name)) for name in seen if said.get(name)}
    means = np.exp(np.log(rows["loss"]).groupby([rows["N"], rows["D"]]).mean())
    cells = [{"N": c["N"], "D": c["D"], **record(c, means.get((c["N"], c["D"])))} for c in said.get("cells") or ()]
    best = [] if rates is None else [_rate(one, rates) for one in said.get("rates") or ()]
    return {"at": {"C": flops}, "optimum": optimum, "cells": cells, "rates": best}


def record(predicted: Mapping[str, Any], seen: float | None, noise: Sequence[float | None] | None = None) -> dict:
    """One line of a verdict. noise: 95 % of what was seen, left out where the prediction's interval holds it already (a loss)."""
    said = {name: predicted.get(name) for name in ("estimate", "lo", "hi")}
    if seen is None or said["estimate"] is None:
        return {"predicted": said, "seen": number(seen), "error_percent": None, "held": None}
    bounds = said["lo"], said["hi"]
    held = None if None in bounds else bool(bounds[0] <= seen <= bounds[1])
    own = {} if noise is None else {"seen_interval": [number(end) for end in noise]}
    if held is False and noise is not None and None not in noise:
        held = _together(said, seen, noise)
    return {"predicted": said, "seen": float(seen), **own, "error_percent": 100 * (said["estimate"] / seen - 1), "held": held}


def _together(said: Mapping[str, float], seen: float, noise: Sequence[float]) -> bool:
    """Whether ln(seen / predicted) is within the root of the squared half widths (ln) of the two intervals' facing sides."""
    above = seen > said["estimate"]
    ours = math.log(said["hi" if above else "lo"] / said["estimate"])
    theirs = math.log(noise[0 if above else 1] / seen)
    return abs(math.log(seen / said["estimate"])) <= math.hypot(ours, theirs)


def _rate(said: Mapping[str, Any], rates: pd.DataFrame) -> dict:
    here = rates[(rates["N"] == said["N"]) & (rates["D"] == said["D"])]
    by_rate = np.exp(np.log(here["loss"]).groupby(here["lr"]).mean())
    seen = best_rate(by_rate.index.to_numpy(float), by_rate.to_numpy(float)) if len(by_rate) >= 3 else None
    noise = None if seen is None or "seed" not in here else rate_interval(here)
    return {"N": said["N"], "D": said["D"], **record(said["lr"], seen, noise)}


def _valleys(rows: pd.DataFrame, cluster: str | None) -> IsoFlop:
    return isoflop(rows, scale="ln_loss", sizes=5, cluster=cluster, draws=100)


def verdict_lines(found: Mapping[str, Any]) -> list[tuple[str, dict]]:
    """(name, record) in the order of a page."""
    words = {"N": "best n_latents", "D": "best n_tokens", "loss": "loss at the optimum"}
    lines = [(words[name], one) for name, one in found["optimum"].items()]
    lines += [(f"loss at {c['N']:g} latents, {c['D']:.3g} tokens", c) for c in found["cells"]]
    return lines + [(f"best lr at {c['N']:g} latents, {c['D']:.3g} tokens", c) for c in found["rates"]]
