"""Best learning rates: where each cell's grid of rates had its lowest loss, whether that was at an edge of the grid, and how the
best rate moves along a ladder of budgets."""

import numpy as np
import pandas as pd

from analysis.lines import power_law, power_laws
from analysis.optimum import bounded
from analysis.rows import Rows
from analysis.uncertainty import PRIOR_DOF, draw_scatter, interval
from analysis.valleys import vertices


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
    intervals hold the noise of seeds (one seed: none), that of the exponent also what seeds do not explain of the rungs' scatter
    around the line, but not what shifts all budgets. Errors: `ValueError` under three budgets.
    """
    planned = rows[rows["budget"].notna()] if "budget" in rows else rows.iloc[:0]
    found = [rung for _, group in planned.groupby("budget") if (rung := _rung(group)) is not None]
    if len(found) < 3:
        raise ValueError(f"Budgets with a best learning rate inside three or more that were tried: {len(found)}, 3 are needed.")
    rng, ln_c = np.random.default_rng(seed), np.log([rung["C"] for rung, _ in found])
    best = power_law(ln_c, np.log([rung["lr"] for rung, _ in found]))
    seeded = all(len(table) > 1 for _, table in found)
    drawn = _vertex_draws([table for _, table in found], draws, rng) if seeded else np.empty((0, len(found)))
    rungs = [rung | {"lr": bounded(rung["lr"], np.exp(each))} for (rung, _), each in zip(found, drawn.T, strict=True)]
    if seeded:
        drawn = drawn + draw_scatter(best.residuals, best.dof, np.nanvar(drawn, axis=0), drawn.shape, rng)
    return {"rungs": rungs, "exponent": bounded(best.slope, power_laws(ln_c, drawn)[1])}


def _rung(group: pd.DataFrame) -> tuple[dict, pd.DataFrame] | None:
    """One budget at its best size and ln loss [seed, rate] there; None without a best rate inside the grid."""
    group = group[group.groupby("N")["lr"].transform("nunique") >= 3]
    if group.empty:
        return None
    size = group.groupby("N")["loss"].min().idxmin()
    here = group[group["N"] == size]
    table = _by_seed(here)
    rates, mean = table.columns.to_numpy(float), table.mean().to_numpy()
    best = best_rate(rates, np.exp(mean)) if len(rates) >= 3 and len(table) else None
    if best is None:
        return None
    return {"C": float(np.exp(np.log(here["C"]).mean())), "N": float(size), "D": float(here["D"].iloc[0]), "lr": best,
            "points": [[float(lr), float(y)] for lr, y in zip(rates, np.exp(mean), strict=True)]}, table  # fmt: skip


def rate_interval(here: pd.DataFrame, draws: int = 400) -> list[float | None]:
    """95 % of the best rate of one cell, over seeds: [lo, hi], None under two seeds or where the best is at an edge."""
    table = _by_seed(here)
    if len(table) < 2 or table.shape[1] < 3 or best_rate(table.columns.to_numpy(float), np.exp(table.mean().to_numpy())) is None:
        return [None, None]
    return list(interval(np.exp(_vertex_draws([table], draws, np.random.default_rng(0))[:, 0])))


def _by_seed(here: pd.DataFrame) -> pd.DataFrame:
    """ln loss [seed, rate] of the seeds that have every rate."""
    return np.log(here.pivot_table(index="seed", columns="lr", values="loss")).dropna()


def _vertex_draws(tables: list[pd.DataFrame], draws: int, rng: np.random.Generator) -> np.ndarray:
    """ln of each rung's best rate [draw, rung] with its means moved by the noise of their seeds; NaN where the lowest is an edge.

    The noise is what a seed's losses at the three rates of the parabola leave beside a level of its own, which moves no vertex:
    2 (seeds - 1) degrees of freedom, drawn towards the noise of all rungs as in `uncertainty.residuals`. (Two or three seeds
    drawn with replacement have half or two thirds of it.) Student's tails for the degrees of freedom.
    """
    squares, dof = np.array([_left(table.to_numpy()) for table in tables]).T
    variance = (squares + PRIOR_DOF * squares.sum() / dof.sum()) / (dof + PRIOR_DOF)
    free = np.minimum(dof + PRIOR_DOF, dof.sum())
    out = np.empty((draws, len(tables)))
    for i, table in enumerate(tables):
        sd = np.sqrt(variance[i] / len(table) * free[i] / rng.chisquare(free[i], size=draws))
        means = table.mean().to_numpy() + sd[:, None] * rng.standard_normal((draws, table.shape[1]))
        out[:, i] = vertices(np.log(table.columns.to_numpy(float)), means)[0]
    return out


def _left(ln_y: np.ndarray) -> tuple[float, int]:
    """(sum of squares left by rates and seeds [seed, rate], degrees of freedom) at the lowest mean and its neighbours."""
    low = int(np.argmin(ln_y.mean(axis=0)))
    part = ln_y[:, low - 1 : low + 2]
    left = part - part.mean(axis=0) - part.mean(axis=1, keepdims=True) + part.mean()
    return float((left**2).sum()), 2 * (len(ln_y) - 1)
