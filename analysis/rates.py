"""Best learning rates: where each cell's grid of rates had its lowest loss, whether that was at an edge of the grid, and how the
best rate moves along a ladder of budgets."""

import numpy as np
import pandas as pd

from analysis.lines import power_law
from analysis.optimum import bounded
from analysis.rows import Rows


def edge_cells(rows: Rows) -> list[dict]:
    """Cells (N, D) whose best learning rate is the lowest or highest tried: {"N", "D", "lr", "edge", "rates"}; their optimum
    lies outside what was tried or at its border. Runs with equal N, D and lr are averaged in ln loss."""
    out = []
    n, d, lr = (rows.columns[name] for name in ("N", "D", "lr"))
    for size, tokens in np.unique(np.stack([n, d], axis=1), axis=0):
        here = (n == size) & (d == tokens)
        rates, at = np.unique(lr[here], return_inverse=True)
        best = int(np.argmin(np.bincount(at, rows.ln_y[here]) / np.bincount(at)))
        if best in (0, len(rates) - 1):
            edge = "lowest" if best == 0 else "highest"
            out.append({"N": float(size), "D": float(tokens), "lr": float(rates[best]), "edge": edge, "rates": len(rates)})
    return out


def best_rate(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """The vertex of the parabola in ln rate through the lowest ln loss and its neighbours; None where it is at an edge."""
    order = np.argsort(rates)
    x, y = np.log(rates[order]), np.log(losses[order])
    low = int(np.argmin(y))
    if low in (0, len(x) - 1):
        return None
    a, b, _ = np.polyfit(x[low - 1:low + 2] - x[low], y[low - 1:low + 2], 2)
    return float(np.exp(x[low] - b / (2 * a)))


def ladder(rows: pd.DataFrame, draws: int, seed: int) -> dict:
    """The best rate against compute, over the budgets that were trained at several rates (best_rate of each, one size a budget:
    of those tried at three rates or more the one with the lowest loss).

    Gives {"rungs": [{"C", "N", "D", "lr": {"estimate", "lo", "hi"}, "points": [[lr, loss]]}], "exponent"}: lr ~ C^exponent. The
    intervals resample the seeds of each rate (one seed: none) and do not hold what shifts all budgets. Errors: `ValueError` under
    three budgets.
    """
    planned = rows[rows["budget"].notna()] if "budget" in rows else rows.iloc[:0]
    found = [rung for _, group in planned.groupby("budget") if (rung := _rung(group, draws, np.random.default_rng(seed)))]
    if len(found) < 3:
        raise ValueError(f"Budgets with a best learning rate inside three or more that were tried: {len(found)}, 3 are needed.")
    ln_c = np.log([rung["C"] for rung, _ in found])
    drawn = np.log(np.stack([each for _, each in found], axis=1))
    seeded = drawn if all(rung["lr"]["lo"] is not None for rung, _ in found) else drawn[:0]
    slopes = [power_law(ln_c, row).slope for row in seeded if np.isfinite(row).all()]
    best = power_law(ln_c, np.log([rung["lr"]["estimate"] for rung, _ in found]))
    return {"rungs": [rung for rung, _ in found], "exponent": bounded(best.slope, np.array(slopes))}


def _rung(group: pd.DataFrame, draws: int, rng: np.random.Generator) -> tuple[dict, np.ndarray] | None:
    """One budget at its best size, and its best rate in resamples of the seeds; None without a best rate inside the grid."""
    group = group[group.groupby("N")["lr"].transform("nunique") >= 3]
    if group.empty:
        return None
    size = group.groupby("N")["loss"].min().idxmin()
    here = group[group["N"] == size]
    table = np.log(here.pivot_table(index="seed", columns="lr", values="loss")).dropna()
    rates = table.columns.to_numpy(float)
    best = best_rate(rates, np.exp(table.mean().to_numpy())) if len(rates) >= 3 and len(table) else None
    if best is None:
        return None
    values = table.to_numpy()
    picks = rng.integers(0, len(values), size=(draws, *values.shape))
    means = np.take_along_axis(values[None], picks, axis=1).mean(axis=1)
    each = np.array([best_rate(rates, np.exp(row)) or np.nan for row in means])
    rung = {"C": float(np.exp(np.log(here["C"]).mean())), "N": float(size), "D": float(here["D"].iloc[0]),
            "lr": bounded(best, each if len(values) > 1 else each[:0]),
            "points": [[float(lr), float(y)] for lr, y in zip(rates, np.exp(table.mean()), strict=True)]}
    return rung, each
