"""L(n, k): how the loss depends on dictionary size and on the number of active latents together (Gao et al. 2024, section 3)."""

from dataclasses import replace

import pandas as pd

from analysis.estimate import fit
from analysis.selection import compare
from analysis.sweep_points import CLUSTER, sweep_points

FAMILY = ("nk_plain", "nk_interaction", "nk", "nk_floor")
KEPT_DRAWS = 100
ENOUGH = 3  # sizes, and values of k, for a surface


def size_and_k(table: pd.DataFrame, y: str = "objective", draws: int = 1000, seed: int = 0) -> dict:
    """The surface of the kind with the most sizes at several k, by the measured l0: {"kind", "law", "models", "fit"}.

    Errors: `ValueError` where no kind has three sizes with three values of k each at its longest horizon.
    """
    rows = longest(table[(table["state"] == "done") & table["k"].notna()])
    several = {kind: group.groupby("n_latents")["k"].nunique() >= ENOUGH for kind, group in rows.groupby("kind")}
    crossed = {kind: int(enough.sum()) for kind, enough in several.items()}
    kind = max(crossed, key=lambda name: crossed[name], default=None)
    if kind is None or crossed[kind] < ENOUGH:
        raise ValueError(f"No kind was trained at {ENOUGH} sizes with {ENOUGH} values of k each: no surface in both to fit.")
    points = sweep_points(rows[rows["kind"] == kind], y, every_k=True)
    models = compare(FAMILY, points, cluster=CLUSTER)
    chosen = models.loc[models["chosen"], "law"]
    law = str(chosen.iloc[0]) if len(chosen) else "nk"
    found = fit(law, points, cluster=CLUSTER, draws=draws, seed=seed)
    records = models.astype(object).where(models.notna(), None).to_dict("records")
    return {"kind": str(kind), "law": law, "models": records, "fit": replace(found, draws=found.draws[:KEPT_DRAWS]).to_dict()}


def longest(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows at the horizon that most of them have, the longest of equals."""
    horizon = rows["n_tokens"].mode()
    return rows[rows["n_tokens"].isin(horizon.tolist()[-1:])]


def most(rows: pd.DataFrame, of: str, varied: str) -> float | None:
    """The value of column `of` under which `varied` and kinds take the most values; the smaller of equals."""
    known = rows.dropna(subset=[of, varied]).drop_duplicates([of, varied, "kind"])
    counts = known.groupby(of).size().sort_index()
    return None if counts.empty else float(counts.idxmax())
