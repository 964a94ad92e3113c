"""How to split compute between size and tokens, estimated three ways, and whether the three agree."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis import isocost
from analysis.compute import Cost
from analysis.disagree import METHODS, disagreement
from analysis.estimate import fit as fit_law
from analysis.hull import Frontier, frontier
from analysis.isoflops import TOLERANCE, IsoFlop, isoflop
from analysis.optimum import bounded, number
from analysis.reading import points
from analysis.result import FitResult
from analysis.valleys import BRACKETED

AHEAD = 10.0  # how far beyond the largest budget the price of a wrong split is told


@dataclass(frozen=True)
class Allocation:
    """estimates: method -> {"a", "b", "N", "D"} ({"estimate", "lo", "hi"}; N and D at `flops`) or {"reason"}.

    disagreement: per pair of methods the difference of a with a paired 95 % interval, and whether it excludes 0.
    penalties: what splitting `flops` by one method costs if the parametric surface is true. fit, valleys, hull: the parts.
    """

    estimates: dict[str, dict]
    disagreement: list[dict]
    penalties: dict[str, dict]
    flops: float
    cost: Cost
    fit: FitResult
    valleys: IsoFlop
    hull: Frontier | None
    warnings: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """A page of text."""
        from analysis.tell import allocation_text

        return allocation_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; the fit and the valleys have their own."""
        return {"flops": self.flops, "compute": self.cost.words, "law": self.fit.law.name, "estimates": self.estimates,
                "disagreement": self.disagreement, "penalties": self.penalties, "warnings": self.warnings,
                "frontier": self.hull.to_dict() if self.hull else None}  # fmt: skip


def allocation(
    table: pd.DataFrame | Mapping,
    *,
    law: Any = "nd",
    fit: FitResult | None = None,
    valleys: IsoFlop | None = None,
    cluster: str | None = None,
    flops: float | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Allocation:
    """Exponents a (size) and b (tokens) of the compute-optimal split, from a fitted surface, from iso-FLOP valleys, and from
    the frontier of the best runs; `fit` and `valleys` are used where given.

    Differences of a come with intervals from one shared fixed-design bootstrap: every method sees the same losses, each row's
    moved by its residual from the surface times one random weight per cluster, so what they share cancels.
    Errors: those of `analysis.fit`; a method that cannot speak gives its reason instead.
    """
    data = table if isinstance(table, pd.DataFrame) and "data_hash" in table.attrs else points(pd.DataFrame(table))
    fit = fit or fit_law(law, data, cluster=cluster, draws=draws, seed=seed)
    valleys = valleys or isoflop(data, cluster=cluster, draws=draws, seed=seed)
    at = flops or AHEAD * float(data["C"].max())
    warnings = []
    try:
        edge = frontier(data, cluster=cluster, draws=draws, seed=seed)
    except ValueError as error:
        edge, why = None, str(error)
        warnings.append("frontier_too_short")
    span = (float(data["C"].min()), float(data["C"].max()))
    estimates = {"parametric": _parametric(fit, valleys.cost, span, at), "isoflop": _isoflop(valleys, at),
                 "frontier": _frontier(edge, data, at) if edge else {"reason": why}}  # fmt: skip
    pairs = disagreement(data, fit, valleys, estimates, cluster, np.random.default_rng(seed), draws)
    warnings += ["allocations_disagree"] if any(pair["disagree"] for pair in pairs) else []
    if estimates["parametric"].get("no_optimum", 0) > 0.05:
        warnings.append("optimum_not_interior")
    penalties = _penalties(fit, valleys.cost, at, estimates)
    return Allocation(estimates, pairs, penalties, at, valleys.cost, fit, valleys, edge, warnings)


def _parametric(fit: FitResult, cost: Cost, span: tuple[float, float], at: float) -> dict:
    if fit.status != "ok":
        return {"reason": f"the fit of {fit.law.name} is {fit.status.replace('_', ' ')}"}
    if span[1] <= span[0] * (1 + TOLERANCE) ** 2:
        return {"reason": "all runs have one compute budget: how the best split moves with compute needs several"}
    point, draws = isocost.parameters(fit)
    (a,), (b,) = isocost.path(fit, point, cost, span)
    if not math.isfinite(a):
        return {"reason": "the surface has no interior optimum on a curve of equal compute"}
    best = float(isocost.optimum(fit, point, cost, at)[0][0])
    empty = np.empty(0)
    many = isocost.path(fit, draws, cost, span) if draws else (empty, empty)
    drawn = isocost.optimum(fit, draws, cost, at)[0] if draws else empty
    return {"a": bounded(a, many[0]), "b": bounded(b, many[1]), "N": bounded(math.exp(best), np.exp(drawn)),
            "D": bounded(cost.tokens(at, math.exp(best)), cost.tokens(at, np.exp(drawn))),
            "no_optimum": float(np.isnan(drawn).mean()) if len(drawn) else 0.0}  # fmt: skip


def _isoflop(valleys: IsoFlop, at: float) -> dict:
    if not valleys.lines:
        resolved = sum(b["status"] == BRACKETED for b in valleys.budgets)
        return {"reason": f"{resolved} of {len(valleys.budgets)} budgets have a resolved minimum, 3 are needed"}
    there = valleys.at(at)
    return {"a": valleys.exponent("N"), "b": valleys.exponent("D"), "N": there["N"], "D": there["D"]}


def _frontier(edge: Frontier, data: pd.DataFrame, at: float) -> dict:
    rows = data.iloc[edge.members]
    middle = float(np.log(rows["C"]).mean())

    def there(name: str, slope: float) -> dict:
        return {"estimate": float(np.exp(np.log(rows[name]).mean() + slope * (math.log(at) - middle))), "lo": None, "hi": None}

    exponents = {"a": bounded(edge.a, edge.draws_a), "b": bounded(edge.b, edge.draws_b)}
    return exponents | {"N": there("N", edge.a), "D": there("D", edge.b)}


def _penalties(fit: FitResult, cost: Cost, at: float, estimates: dict) -> dict[str, dict]:
    """Per method: excess loss (share) of its split of `at` under the parametric surface, and the compute wasted by it."""
    if "a" not in estimates["parametric"]:
        return {}
    point, _ = isocost.parameters(fit)
    best = math.exp(float(isocost.optimum(fit, point, cost, at)[1][0]))
    out = {}
    for name in METHODS:
        if "N" not in estimates[name]:
            continue
        n = np.array([[estimates[name]["N"]["estimate"]]])
        reached = float(isocost.loss(fit, point, n, cost.tokens(at, n))[0, 0])
        wasted = 1 - _cheapest(fit, point, cost, at, reached) / at
        out[name] = {"excess_loss": max(0.0, reached / best - 1), "wasted_compute": number(max(0.0, wasted))}
    return out


def _cheapest(fit: FitResult, point: dict, cost: Cost, at: float, reached: float) -> float:
    """The compute at which the best split already gives the loss `reached`, by bisection in ln C down to a thousandth."""
    low, high = math.log(at) - math.log(1e3), math.log(at)
    for _ in range(30):
        middle = (low + high) / 2
        enough = float(isocost.optimum(fit, point, cost, math.exp(middle))[1][0]) <= math.log(reached)
        low, high = (low, middle) if enough else (middle, high)
    return math.exp(high)
