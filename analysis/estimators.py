"""The exponent of the best size by every estimator on offer: what the answer depends on, side by side."""

import pandas as pd

from analysis.estimate import fit as fit_law
from analysis.hull import frontier
from analysis.isoflops import isoflop
from analysis.optimum import number

LAWS = ("nd", "nd_interaction", "nd_tied", "nd_kaplan")
OBJECTIVES = ("huber", "lad", "squared")
REJECTING = {"wider_law_needed": "a wider law is needed", "law_misses_cells": "off from the means of repeated cells"}


def exponents(
    points: pd.DataFrame, law: str = "nd", cluster: str | None = None, draws: int = 300, sizes: int | None = None
) -> list[dict]:
    """a of N* ~ C^a, one record per estimator: {"group", "name", "estimate", "lo", "hi", "note"}; estimate None with a note
    that says why where an estimator cannot speak.

    Groups: `surface` (the law by each objective, other laws by huber), `iso-FLOP` (cubic and parabola, in the loss and in its
    logarithm) and `frontier`.
    """
    out = [_surface(points, law, objective, cluster, draws) for objective in OBJECTIVES]
    out += [_surface(points, other, "huber", cluster, draws) for other in LAWS if other != law and other != "nd_tied"]
    for degree, shape in ((3, "cubic"), (2, "parabola")):
        for scale, words in (("loss", "loss"), ("ln_loss", "ln loss")):
            out.append(_valleys(points, f"{shape} in {words}", cluster, draws, degree=degree, scale=scale, sizes=sizes))
    try:
        record = frontier(points, cluster=cluster, draws=draws).to_dict()["a"]
        out.append({"group": "frontier", "name": "lower hull", **record, "note": ""})
    except ValueError as error:
        out.append(_silent("frontier", "lower hull", str(error)))
    return out


def _surface(points: pd.DataFrame, law: str, objective: str, cluster: str | None, draws: int) -> dict:
    name = f"{law}, {objective}"
    try:
        found = fit_law(law, points, objective=objective, cluster=cluster, draws=draws)
    except ValueError as error:
        return _silent("surface", name, str(error))
    if found.status != "ok" or "a" not in found.derived:
        return _silent("surface", name, found.status.replace("_", " "))
    low, high = found.interval("a") or (None, None)
    note = next((f"rejected: {why}" for code, why in REJECTING.items() if code in found.warnings), "")
    return {"group": "surface", "name": name, "estimate": number(found.derived["a"]), "lo": low, "hi": high, "note": note}


def _valleys(points: pd.DataFrame, name: str, cluster: str | None, draws: int, **how) -> dict:
    found = isoflop(points, cluster=cluster, draws=draws, **how)
    if not found.lines:
        return _silent("iso-FLOP", name, "fewer than 3 budgets resolved")
    return {"group": "iso-FLOP", "name": name, **found.exponent("N"), "note": ""}


def _silent(group: str, name: str, why: str) -> dict:
    return {"group": group, "name": name, "estimate": None, "lo": None, "hi": None, "note": why}
