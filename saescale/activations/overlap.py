"""How much of the held-out text stands in the training text too, by shingles of token ids.

A shingle is SHINGLE_TOKENS tokens in a row, hashed; of all hashes only those divisible by SAMPLED are compared, on both sides
alike (Broder 1997: "mod m" sampling), so the shares are unbiased estimates and a billion tokens cost some ten seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SHINGLE_TOKENS = 13
SAMPLED = np.uint64(16)
BLOCK_ROWS = 16_384
NEAR_SHARE = 0.5  # a held-out document is a near-duplicate when at least this share of its shingles is trained on
LEAST_SHINGLES = 4  # sampled shingles a document needs to be judged
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def shingles(sequences: np.ndarray) -> np.ndarray:
    """uint64 [row, n_ctx - SHINGLE_TOKENS + 1]: the mixed polynomial hash of every window of a row."""
    ids = sequences.astype(np.uint64) + np.uint64(1)
    n = ids.shape[1] - SHINGLE_TOKENS + 1
    h = np.zeros((len(ids), max(n, 0)), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(SHINGLE_TOKENS if n > 0 else 0):
            h = h * MULTIPLIER + ids[:, offset:offset + n]
        h ^= h >> np.uint64(31)
        return h * MULTIPLIER >> np.uint64(4)


def between(train: np.ndarray, held_out: np.ndarray, documents: np.ndarray) -> dict[str, Any]:
    """`share` of the held-out shingles that stand in the training rows, and how many of the held-out documents are
    near-duplicates. Windows of padding (one token over and over) do not count. `documents` [row]: of the held-out rows."""
    wanted = shingles(held_out)
    rows, columns = np.nonzero((wanted % SAMPLED == 0) & ~_constant(held_out))
    hashes = wanted[rows, columns]
    known = np.unique(hashes)
    seen = np.zeros(len(known), dtype=bool)
    for begin in range(0, len(train) if len(known) else 0, BLOCK_ROWS):
        found = shingles(train[begin:begin + BLOCK_ROWS])
        found = found[found % SAMPLED == 0]
        at = np.minimum(np.searchsorted(known, found), len(known) - 1)
        seen[at[known[at] == found]] = True
    shared = seen[np.searchsorted(known, hashes)] if len(known) else np.zeros(0, dtype=bool)
    names, owner = np.unique(documents[rows], return_inverse=True)
    total, hit = np.bincount(owner, minlength=len(names)), np.bincount(owner, weights=shared, minlength=len(names))
    judged = total >= LEAST_SHINGLES
    return {"shingle_tokens": SHINGLE_TOKENS, "share": float(shared.mean()) if len(shared) else None,
            "n_documents": int(judged.sum()), "n_near_duplicates": int((judged & (hit >= NEAR_SHARE * total)).sum())}


def _constant(sequences: np.ndarray) -> np.ndarray:
    """bool, of the shape of shingles(): the windows that hold one token only."""
    same = np.cumsum(np.pad(sequences[:, 1:] == sequences[:, :-1], ((0, 0), (1, 0))), axis=1)
    n = sequences.shape[1] - SHINGLE_TOKENS + 1
    return (same[:, SHINGLE_TOKENS - 1:] - same[:, :max(n, 0)]) == SHINGLE_TOKENS - 1


def warning(found: dict[str, Any] | None) -> str | None:
    """The sentence for a plan, or None when at most one held-out document in a hundred is a near-duplicate."""
    if not found or found["n_near_duplicates"] <= 0.01 * found["n_documents"]:
        return None
    return (f"{found['n_near_duplicates']} of {found['n_documents']} held-out documents are near-duplicates of training text "
            f"(half of their {found['shingle_tokens']}-token shingles stand there): held-out numbers flatter. "
            "Deduplicate the corpus.")
