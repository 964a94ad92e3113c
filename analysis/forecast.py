"""What a run, or the best split of a larger budget, should give: loss, size, tokens, learning rate, with intervals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis import isocost
from analysis.allocate import METHODS, Allocation, allocation
from analysis.estimate import fit as fit_law
from analysis.optimum import bounded, number
from analysis.reading import points
from analysis.result import FitResult

FAR = 1.0  # decades of extrapolation beyond which a warning is due
PRIMARY = ("parametric", "isoflop", "frontier")


@dataclass(frozen=True)
class Prediction:
    """at: where, in the law's columns (and C). loss: estimate, lo, hi (a new run), curve_lo, curve_hi (the law itself).

    N, D, lr: {"estimate", "lo", "hi"} or None. distance: decades beyond the fitted range, per column, 0 inside it.
    method: which allocation estimate N and D are; others: what the other methods say of N.
    """

    at: dict[str, float]
    loss: dict[str, float | None] | None
    distance: dict[str, float]
    fit: FitResult
    N: dict | None = None
    D: dict | None = None
    lr: dict | None = None
    method: str = ""
    others: dict[str, dict] = field(default_factory=dict)
    allocation: Allocation | None = None
    warnings: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """A page of text."""
        from analysis.tell import prediction_text

        return prediction_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; the fit has its own."""
        names = ("at", "loss", "distance", "N", "D", "lr", "method", "others", "warnings")
        return {name: getattr(self, name) for name in names} | {"law": self.fit.law.name, "data_hash": self.fit.data_hash,
                "allocation": self.allocation.to_dict() if self.allocation else None}  # fmt: skip


def predict(
    table: pd.DataFrame | Mapping | FitResult,
    *,
    at: Mapping[str, float] | None = None,
    flops: float | None = None,
    law: Any = "nd",
    split: Allocation | None = None,
    lr: FitResult | None = None,
    cluster: str | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Prediction:
    """The loss `at` given columns of the law, or the best split of `flops` and what it should reach.

    Intervals for a new run hold parameter draws and residuals, widened by the held-out test where there is one. They do not
    hold the choice of law: see `others`, the warnings, and analysis.fit's model table. `lr`: a fit of the law "lr".
    Errors: `ValueError` for neither or both of at and flops, missing columns, or a budget no method can split.
    """
    if (at is None) == (flops is None):
        raise ValueError("Say what to predict: either at, as in N=2048,D=1e6, or flops, as in 1e13.")
    for name, value in {**(at or {}), **({"flops": flops} if flops is not None else {})}.items():
        if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
            raise ValueError(f"{name}={value} cannot be predicted at: give a number above 0.")
    if isinstance(table, FitResult):
        if flops is not None:
            raise ValueError("A fit alone does not know its table's budgets: give the table to split flops.")
        return _at(table, dict(at), None)
    data = table if "data_hash" in getattr(table, "attrs", {}) else points(pd.DataFrame(table))
    if at is not None:
        return _at(fit_law(law, data, cluster=cluster, draws=draws, seed=seed), dict(at), data)
    split = split or allocation(data, law=law, cluster=cluster, flops=flops, draws=draws, seed=seed)
    if split.flops != flops:
        raise ValueError(f"The allocation given is for {split.flops:g} FLOPs, not for {flops:g}: make it for this budget.")
    return _best(split, data, float(flops), lr)


def _at(fit: FitResult, at: dict[str, float], data: pd.DataFrame | None) -> Prediction:
    known = [name for name in fit.law.columns if name in at]
    if extra := [name for name in at if name not in fit.law.columns]:
        raise ValueError(f"The law {fit.law.name!r} has no {', '.join(extra)}: it takes {', '.join(fit.law.columns)}.")
    loss = _loss(fit, {name: [value] for name, value in at.items()})
    spans = {name: fit.spans[name] for name in known}
    distance = {name: _beyond(at[name], spans[name]) for name in known}
    if data is not None and "C" in data and {"N", "D"} <= set(at):
        spent = float(data.attrs["cost"].flops(at["N"], at["D"]))
        distance["C"] = _beyond(spent, (float(data["C"].min()), float(data["C"].max())))
        at = at | {"C": spent}
    return Prediction(at, loss, distance, fit, warnings=_warnings(fit, distance))


def _best(split: Allocation, data: pd.DataFrame, flops: float, lr: FitResult | None) -> Prediction:
    usable = [name for name in PRIMARY if "N" in split.estimates[name]]
    if not usable:
        why = "; ".join(f"{name}: {split.estimates[name]['reason'].rstrip('.')}" for name in METHODS)
        raise ValueError(f"No way to split {flops:g} FLOPs: {why}.")
    method, fit = usable[0], split.fit
    n, d = (split.estimates[method][name] for name in ("N", "D"))
    where = {"N": n["estimate"], "D": d["estimate"]}
    loss = _loss(fit, {name: [value] for name, value in where.items()}) if fit.status == "ok" else None
    if loss and method == "parametric" and fit.draws.size:
        drawn = np.exp(isocost.optimum(fit, isocost.parameters(fit)[1], split.cost, flops)[1])
        curve = bounded(loss["estimate"], drawn)
        loss |= {"curve_lo": curve["lo"], "curve_hi": curve["hi"]}
    distance = {"C": _beyond(flops, (float(data["C"].min()), float(data["C"].max())))}
    distance |= {name: _beyond(where[name], (float(data[name].min()), float(data[name].max()))) for name in ("N", "D")}
    others = {name: split.estimates[name]["N"] for name in usable[1:]}
    warnings = [*_warnings(fit, distance), *split.warnings]
    return Prediction({"C": flops}, loss, distance, fit, n, d, learning_rate(lr, where) if lr else None, method, others, split,
                      list(dict.fromkeys(warnings)))  # fmt: skip


def learning_rate(fit: FitResult, where: Mapping[str, float]) -> dict:
    """The best rate at N and D by a fit of the law "lr", {"estimate", "lo", "hi"}; no interval from a fit that is not ok."""
    text = f"exp((s_0 + s_N * {math.log(where['N'])!r} + s_D * {math.log(where['D'])!r}) / curvature)"
    estimate, draws = fit.derive(text)
    return bounded(estimate, draws if fit.intervals is not None else draws[:0])


def _loss(fit: FitResult, where: dict[str, list[float]]) -> dict[str, float | None]:
    row = fit.predict(where).iloc[0]
    return {str(name): number(value) for name, value in row.items()}


def _beyond(value: float, span: tuple[float, float]) -> float:
    """Decades outside the span, 0 inside."""
    return max(0.0, math.log10(span[0] / value), math.log10(value / span[1]))


def _warnings(fit: FitResult, distance: dict[str, float]) -> list[str]:
    found = [code for code in fit.warnings]
    if max(distance.values(), default=0.0) > FAR:
        found.append("far_extrapolation")
    if fit.intervals is None:
        found.append("no_interval")
    return found
