"""Which clusters the answer rests on: the law solved again without each of them, all in one batch."""

import numpy as np

from analysis.objective import Objective
from analysis.rows import Rows
from analysis.solve import Problem, solve
from analysis.surface import Surface

_MOST, _NAMED = 2000, 5


def influence(over: Surface, rows: Rows, objective: Objective, inside: np.ndarray, se: dict[str, float]) -> list[dict] | None:
    """The five clusters whose absence moves an exponent most, in units of its standard error, largest first:
    {"cluster", "rows", "shift" (exponent -> change / se), "largest"}. None for over 2000 clusters or no exponents."""
    law = over.law
    names = [name for name in law.exponents if se.get(name)]
    if rows.n_clusters > _MOST or not names:
        return None
    weights = (rows.cluster[None, :] != np.arange(rows.n_clusters)[:, None]).astype(float)
    found = solve(Problem(over, rows.ln_y[None], weights, objective), np.repeat(inside[None], rows.n_clusters, axis=0))
    moved = over.natural(found.points) - over.natural(inside[None])
    at = [law.params.index(name) for name in names]
    shift = moved[:, at] / np.array([se[name] for name in names])
    largest = np.abs(shift).max(axis=1)
    order = np.argsort(-largest, kind="stable")[:_NAMED]
    return [
        {
            "cluster": rows.cluster_names[i],
            "rows": int((rows.cluster == i).sum()),
            "shift": dict(zip(names, map(float, shift[i]), strict=True)),
            "largest": float(largest[i]),
        }
        for i in order
    ]
