"""A sweep's finished runs as points of a law: N latents, D tokens, C = 12 d_in N D, loss; the cluster is the trunk."""

import numpy as np
import pandas as pd

from analysis.reading import points
from analysis.recipe import SAME, SPARSITY, refuse_mixed

CLUSTER = "trunk_id"
RENAMED = {"N": "n_latents", "D": "n_tokens", "C": "flops_dense", "K": "l0", "budget": "target_flops"}


def sweep_points(table: pd.DataFrame, y: str = "objective", every_rate: bool = False, every_k: bool = False) -> pd.DataFrame:
    """The done rows of a collected table as `analysis.points` gives them. Of cells trained at several learning rates only the
    best rate is kept (lowest mean ln loss over seeds), unless `every_rate`. `every_k`: for laws that read K.

    Errors: `ValueError` when nothing is done, y is no column, or kinds, hooks, values of k or other settings are mixed.
    """
    if y not in table:
        raise ValueError(f"The table has no column {y!r} to fit: choose one of objective, fvu, delta_ce.")
    rows = table[(table["state"] == "done") & (table[y] > 0)]
    if rows.empty:
        raise ValueError("No run of this sweep has a result yet: there is nothing to fit. Launch and collect it first.")
    refuse_mixed(rows, [name for name in SAME if not (every_k and name in SPARSITY)])
    rows = rows.sort_values("run_id", kind="stable").drop_duplicates("run_id")
    rows = rows if every_rate else at_best_rate(rows, y, ["n_latents", "n_tokens", *(["k"] if every_k else [])])
    columns = RENAMED | {"loss": y}
    plain = rows.rename(columns={column: name for name, column in columns.items()})
    keep = ["run_id", CLUSTER, *columns, "lr", "seed", "n_alive"]
    plain = plain[[name for name in keep if name in plain and not (name in ("K", "lr") and plain[name].isna().all())]]
    return points(plain, source="sweep")


def at_best_rate(rows: pd.DataFrame, y: str, cell: list[str]) -> pd.DataFrame:
    """Of every cell the rows at the learning rate with the lowest mean ln y over seeds."""
    if rows.empty:
        return rows
    mean = np.log(rows[y]).groupby([rows[name] for name in [*cell, "lr"]], dropna=False).mean().reset_index()
    best = mean.loc[mean.groupby(cell, dropna=False)[y].idxmin(), [*cell, "lr"]]
    return rows.merge(best, on=[*cell, "lr"])
