"""A sweep's finished runs as points of a law: N latents, D tokens, C = 12 d_in N D, loss; the cluster is the trunk."""

import numpy as np
import pandas as pd

from analysis.reading import points

CLUSTER = "trunk_id"
RENAMED = {"N": "n_latents", "D": "n_tokens", "C": "flops_dense", "K": "l0", "budget": "target_flops"}


def sweep_points(table: pd.DataFrame, y: str = "objective", every_rate: bool = False) -> pd.DataFrame:
    """The done rows of a collected table as `analysis.points` gives them. Of cells trained at several learning rates only the
    best rate is kept (lowest mean ln loss over seeds), unless `every_rate`.

    Errors: `ValueError` when nothing is done, y is no column, or several d_in or kinds are mixed.
    """
    if y not in table:
        raise ValueError(f"The table has no column {y!r} to fit: choose one of objective, fvu, delta_ce.")
    rows = table[(table["state"] == "done") & (table[y] > 0)]
    if rows.empty:
        raise ValueError("No run of this sweep has a result yet: there is nothing to fit. Launch and collect it first.")
    for name in ("kind", "d_in"):
        if rows[name].nunique() > 1:
            kinds = ", ".join(str(value) for value in rows[name].unique())
            raise ValueError(f"The table mixes {name} {kinds}, whose losses do not belong to one law: keep one of them.")
    rows = rows.sort_values("run_id", kind="stable").drop_duplicates("run_id")
    rows = rows if every_rate else _best_rate(rows, y)
    columns = RENAMED | {"loss": y}
    plain = rows.rename(columns={column: name for name, column in columns.items()})
    keep = ["run_id", CLUSTER, *columns, "lr", "seed", "n_alive"]
    plain = plain[[name for name in keep if name in plain and not (name in ("K", "lr") and plain[name].isna().all())]]
    return points(plain, source="sweep")


def _best_rate(rows: pd.DataFrame, y: str) -> pd.DataFrame:
    cell = ["n_latents", "n_tokens"]
    mean = np.log(rows[y]).groupby([rows[name] for name in [*cell, "lr"]], dropna=False).mean().reset_index()
    best = mean.loc[mean.groupby(cell)[y].idxmin(), [*cell, "lr"]]
    return rows.merge(best, on=[*cell, "lr"])
