"""How often latents fire on the held-out set, by dictionary size: shares that are dead, histograms of frequency."""

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.frontiers import wanted_l0
from analysis.size_and_k import most
from analysis.sweep_points import at_best_rate

BINS_PER_DECADE = 4


def firing(table: pd.DataFrame, root: Path) -> dict:
    """Per finished run with counts the dead share; per size, and kind where runs differ, a frequency histogram of its runs.

    `fire_counts.npy` holds, per latent, the held-out tokens on which it fired; frequency = count / n_held_out_tokens. A
    latent that never fired is dead ON THAT SET: at T held-out tokens nothing rarer than about 3 / T can be told from dead.
    Gives {"edges" [bin + 1] (frequencies), "n_held_out_tokens", "sizes": [{"n_latents", "n_tokens", "runs", "dead_share",
    "share" [bin] (of all latents, mean over runs), "median"}], "runs": [{"run_id", "n_latents", "n_tokens", "seed",
    "dead_share"}]}; no sizes where no run has counts. `chosen` says which runs a size is of. Where runs are of several kinds or
    wanted l0, each of "sizes" is of one "kind" too, and "wanted_l0" is the one they were all trained for (None: for none).
    """
    done = table[table["state"] == "done"]
    counted = [(row, counts) for row in done.itertuples() if (counts := _counts(root, row.run_id, row.n_latents)) is not None]
    if not counted:
        return {"edges": [], "n_held_out_tokens": None, "sizes": [], "runs": []}
    tokens = int(min(row.n_held_out_tokens for row, _ in counted))
    edges = np.logspace(np.floor(np.log10(1 / tokens) * BINS_PER_DECADE) / BINS_PER_DECADE, 0, _bins(tokens) + 1)
    runs = [
        {
            "run_id": str(row.run_id),
            "n_latents": int(row.n_latents),
            "n_tokens": int(row.n_tokens),
            "seed": int(row.seed),
            "dead_share": float((c == 0).mean()),
        }
        for row, c in counted
    ]
    rows = done[done["run_id"].isin({row.run_id for row, _ in counted})]
    shown, l0 = chosen(rows)
    cell = ["kind", "n_latents"] if differ(rows) else ["n_latents"]
    sizes = []
    for values, group in shown.groupby(cell):
        ids = set(group["run_id"])
        here = [(row, counts) for row, counts in counted if row.run_id in ids]
        sizes.append(({"kind": str(values[0])} if len(cell) > 1 else {}) | _size(here, edges))
    record = {"edges": [float(edge) for edge in edges], "n_held_out_tokens": tokens, "sizes": sizes, "runs": runs}
    return record | ({"wanted_l0": l0} if differ(rows) else {})


def differ(rows: pd.DataFrame) -> bool:
    """Whether runs are of several kinds, or were trained for several l0: what must not be averaged."""
    return rows["kind"].nunique() > 1 or wanted_l0(rows).nunique() > 1


def chosen(rows: pd.DataFrame) -> tuple[pd.DataFrame, float | None]:
    """The rows that stand for their sizes, and the wanted l0 they were picked by.

    Runs of one kind and wanted l0: all at the longest horizon of their size (and None). Others: those of the wanted l0 with the
    most sizes and kinds (of all where none was wanted), at each size's longest horizon among those that most kinds have, and of
    each cell's rates those at the best. Best means the lowest fvu, as wherever kinds are compared: an objective holds a penalty's
    weight, which is solved for in each run.
    """
    if not differ(rows):
        return rows[rows["n_tokens"] == rows.groupby("n_latents")["n_tokens"].transform("max")], None
    rows = rows.assign(wanted_l0=wanted_l0(rows))
    l0 = most(rows, "wanted_l0", "n_latents")
    rows = rows if l0 is None else rows[rows["wanted_l0"] == l0]
    horizon = {n: most_shared(group, "n_tokens") for n, group in rows.groupby("n_latents")}
    rows = rows[(rows["n_tokens"] == rows["n_latents"].map(horizon)) & (rows["fvu"] > 0)]
    return at_best_rate(rows, "fvu", ["kind", "n_latents"]), l0


def most_shared(rows: pd.DataFrame, of: str) -> int:
    """The value of column `of` that most kinds have; the largest of equals."""
    kinds = rows.groupby(of)["kind"].nunique()
    return int(kinds[kinds == kinds.max()].index.max())


def _bins(tokens: int) -> int:
    return round(-np.floor(np.log10(1 / tokens) * BINS_PER_DECADE))


def _size(here: list, edges: np.ndarray) -> dict:
    """The (row, counts) of one dictionary size at one horizon together."""
    frequency = [counts / row.n_held_out_tokens for row, counts in here]
    share = np.mean([np.histogram(f[f > 0], edges)[0] / len(f) for f in frequency], axis=0)
    pooled = np.concatenate(frequency)
    alive = pooled[pooled > 0]
    return {
        "n_latents": int(here[0][0].n_latents),
        "n_tokens": int(here[0][0].n_tokens),
        "runs": len(here),
        "dead_share": float((pooled == 0).mean()),
        "share": [float(value) for value in share],
        "median": float(np.median(alive)) if len(alive) else None,
    }


def _counts(root: Path, run_id: str, n_latents: int) -> np.ndarray | None:
    """The counts of one run; None for a record without them, or with others than its size says."""
    try:
        counts = np.load(Path(root) / "by-id" / run_id / "fire_counts.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return counts if counts.shape == (n_latents,) else None
