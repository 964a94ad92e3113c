"""How often latents fire on the held-out set, by dictionary size: shares that are dead, histograms of frequency."""

from pathlib import Path

import numpy as np
import pandas as pd

BINS_PER_DECADE = 4


def firing(table: pd.DataFrame, root: Path) -> dict:
    """Per finished run with counts: frequency histogram and dead share; runs of one size are pooled at their longest horizon.

    `fire_counts.npy` holds, per latent, the held-out tokens on which it fired; frequency = count / n_held_out_tokens. A
    latent that never fired is dead ON THAT SET: at T held-out tokens nothing rarer than about 3 / T can be told from dead.
    Gives {"edges" [bin + 1] (frequencies), "n_held_out_tokens", "sizes": [{"n_latents", "n_tokens", "runs", "dead_share",
    "share" [bin] (of all latents, mean over runs), "median"}], "runs": [{"n_latents", "n_tokens", "seed", "dead_share"}]};
    no sizes where no run has counts.
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
    sizes = [_size(n, counted, edges) for n in sorted({row.n_latents for row, _ in counted})]
    return {"edges": [float(edge) for edge in edges], "n_held_out_tokens": tokens, "sizes": sizes, "runs": runs}


def _bins(tokens: int) -> int:
    return round(-np.floor(np.log10(1 / tokens) * BINS_PER_DECADE))


def _size(n: int, counted: list, edges: np.ndarray) -> dict:
    """One dictionary size at its longest horizon."""
    longest = max(row.n_tokens for row, _ in counted if row.n_latents == n)
    here = [(row, counts) for row, counts in counted if row.n_latents == n and row.n_tokens == longest]
    frequency = [counts / row.n_held_out_tokens for row, counts in here]
    share = np.mean([np.histogram(f[f > 0], edges)[0] / len(f) for f in frequency], axis=0)
    pooled = np.concatenate(frequency)
    alive = pooled[pooled > 0]
    return {
        "n_latents": int(n),
        "n_tokens": int(longest),
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
