"""The frontier: which size the best runs of each compute had, read off the lower convex hull of (ln C, ln L)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis.lines import power_law
from analysis.optimum import bounded
from analysis.reading import points

MIN_MEMBERS = 5


@dataclass(frozen=True)
class Frontier:
    """members: rows of the table on the hull, by rising C. a, b: slopes of ln N and ln D on ln C over them; draws [draw]."""

    members: list[int]
    a: float
    b: float
    draws_a: np.ndarray
    draws_b: np.ndarray
    data_hash: str
    conventions: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"members": self.members, "a": bounded(self.a, self.draws_a), "b": bounded(self.b, self.draws_b),
                "data_hash": self.data_hash, "conventions": self.conventions, "warnings": self.warnings}  # fmt: skip


def frontier(table: pd.DataFrame | Mapping, *, cluster: str | None = None, draws: int = 2000, seed: int = 0) -> Frontier:
    """Exponents a of N and b of D along the lower convex hull of (ln C, ln loss), runs with the final loss only.

    Intervals: bootstrap over runs (over `cluster` where given); a draw with under 3 distinct members is lost.
    The hull follows its luckiest runs, so noise pulls it down and unevenly so: read it beside the other two estimates.
    Errors: `ValueError` under 5 members, or for a column to cluster by that is not there.
    """
    if draws < 100:
        raise ValueError(f"draws={draws} is too few for a 95 % interval: choose at least 100.")
    data = table if isinstance(table, pd.DataFrame) and "data_hash" in table.attrs else points(pd.DataFrame(table))
    ln = {name: np.log(data[name].to_numpy(float)) for name in ("N", "D", "C", "loss")}
    members = hull(ln["C"], ln["loss"])
    if len(members) < MIN_MEMBERS:
        raise ValueError(
            f"Only {len(members)} of {len(data)} runs lie on the frontier of loss against compute: {MIN_MEMBERS} are needed for"
            " an exponent. Add budgets, or use the iso-FLOP or the parametric estimate."
        )
    weights = case_weights(data, cluster, draws, np.random.default_rng(seed))
    drawn = hull_draws(ln, ln["loss"][None], weights)
    conventions = {"cluster": cluster, "draws": draws, "seed": seed, "compute": data.attrs.get("compute")}
    slopes = {name: power_law(ln["C"][members], ln[name][members]).slope for name in ("N", "D")}
    return Frontier([int(m) for m in members], slopes["N"], slopes["D"], drawn["N"], drawn["D"], data.attrs["data_hash"],
                    conventions, ["frontier_unstable"] if np.isnan(drawn["N"]).mean() > 0.05 else [])  # fmt: skip


def case_weights(table: pd.DataFrame, cluster: str | None, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each row is drawn [draw, row] when whole clusters are resampled. Errors: `ValueError` without the column."""
    if cluster is not None and cluster not in table:
        raise ValueError(f"There is no column {cluster!r} to cluster by: the table has {', '.join(map(str, table.columns))}.")
    labels = np.arange(len(table)) if cluster is None else np.unique(table[cluster].astype(str), return_inverse=True)[1]
    n = labels.max() + 1
    return rng.multinomial(n, np.full(n, 1 / n), size=draws)[:, labels].astype(float)


def hull(ln_c: np.ndarray, ln_y: np.ndarray) -> np.ndarray:
    """Row numbers on the lower convex hull, from the cheapest run to the lowest loss; collinear points stay.

    Only runs that no cheaper run beats can be on it, which leaves few to walk through (Andrew 1979).
    """
    order = np.lexsort((ln_y, ln_c))
    best = np.minimum.accumulate(ln_y[order])
    order = order[np.concatenate([[True], best[1:] < best[:-1]])]
    out: list[tuple[float, float, int]] = []
    for spot in zip(ln_c[order].tolist(), ln_y[order].tolist(), order.tolist(), strict=True):
        while len(out) > 1 and _above(out[-2], out[-1], spot):
            out.pop()
        out.append(spot)
    return np.array([row for *_, row in out], int)


def _above(a: tuple, b: tuple, c: tuple) -> bool:
    """Whether b lies above the line from a to c, each (x, y, row)."""
    return (b[1] - a[1]) * (c[0] - a[0]) > (c[1] - a[1]) * (b[0] - a[0]) + 1e-12


def hull_draws(ln: Mapping[str, np.ndarray], ln_y: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Slopes of ln N and ln D [draw] along each draw's own hull; ln_y [draw or 1, row], weights [draw, row]."""
    out = np.full((2, len(weights)), np.nan)
    for i, w in enumerate(weights):
        rows = np.flatnonzero(w > 0)
        y = ln_y[i if len(ln_y) > 1 else 0]
        members = rows[hull(ln["C"][rows], y[rows])]
        if len(members) >= 3:
            x = ln["C"][members] - ln["C"][members].mean()
            out[:, i] = [x @ ln[name][members] / (x @ x) for name in ("N", "D")]
    return {"N": out[0], "D": out[1]}
