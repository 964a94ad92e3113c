"""How latents split as dictionaries grow, and which latents of a larger dictionary are new.

Directions: for each alive latent of the smaller dictionary the number of alive latents of the larger one whose decoder rows meet
it at a cosine of at least a threshold, and the pairs that are each other's nearest (Templeton et al. 2024, "Feature Splitting").

Stitching (Leask et al. 2025, arXiv 2502.04878): latent j of the larger dictionary is added to the smaller one,

    x_hat_j = x_hat_small + f_j(x) W_dec_large[j],

and the change of the squared error over all tokens says what it is: novel if the error falls, so that it holds what the smaller
one lacks; reconstruction if it does not, so that it says again what the smaller one has.

    change_j = sum over tokens of  f_j^2 |W_j|^2 - 2 f_j (x - x_hat_small) . W_j

Only tokens on which j fires count, so one pass over sparse codes gives it for all latents of all pairs of dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saescale.measure.latents import SAME_DIRECTION, unit_rows
from saescale.sae.kernels import cpu
from saescale.sae.model import SAE

THRESHOLDS = (0.5, 0.7, 0.9)
ROWS = 1024  # of the cosines held at once
COSINE_EDGES = tuple(round(0.05 * i, 2) for i in range(21))
COUNT_EDGES = (0, 1, 2, 3, 5, 9, 17)  # 0, 1, 2, 3-4, 5-8, 9-16, 17 or more


@dataclass(frozen=True)
class Stitched:
    """change float64 [large]: sum over tokens of the squared error with latent j added, less that without; n_fired [large]."""

    change: np.ndarray
    n_fired: np.ndarray


@dataclass(frozen=True)
class Directions:
    """Of alive latents. n_above int64 [threshold, small]; best_small float32 [large], the highest cosine to a latent of the
    smaller dictionary; mutual [(small, large)]: each other's nearest, at a cosine of SAME_DIRECTION or more."""

    n_above: np.ndarray
    best_small: np.ndarray
    mutual: list[tuple[int, int]]


@torch.inference_mode()
def stitch(dictionaries: Mapping[str, SAE], pairs: Sequence[tuple[str, str]],
           blocks: Iterable[Tensor]) -> tuple[dict[tuple[str, str], Stitched], dict[str, np.ndarray]]:
    """Every (small, large) of `pairs`, names of dictionaries, in one pass over raw activations [token, d_in].

    Also gives by name how often each latent fired.
    """
    change = {pair: torch.zeros(dictionaries[pair[1]].n_latents, dtype=torch.float64) for pair in pairs}
    fired = {name: torch.zeros(sae.n_latents, dtype=torch.int64) for name, sae in dictionaries.items()}
    norms = {name: sae.W_dec.double().square().sum(1) for name, sae in dictionaries.items()}
    for x in blocks:
        codes = {name: sae.encode_pairs(x) for name, sae in dictionaries.items()}
        for name, code in codes.items():
            fired[name] += torch.bincount(code.latents[code.values > 0], minlength=len(fired[name]))
        errors = {small: x - dictionaries[small].decode_pairs(codes[small]) for small in {s for s, _ in pairs}}
        for small, large in pairs:
            code, sae = codes[large], dictionaries[large]
            along = cpu.dots(code, sae.W_dec, errors[small]).double()
            value = code.values.double()
            change[small, large].index_add_(0, code.latents, value.square() * norms[large][code.latents] - 2 * value * along)
    counts = {name: count.numpy() for name, count in fired.items()}
    return {pair: Stitched(c.numpy(), counts[pair[1]]) for pair, c in change.items()}, counts


def compare(small: Tensor, large: Tensor, alive: tuple[np.ndarray, np.ndarray],
            seen: Callable[[int], None] = lambda _: None) -> Directions:
    """Decoders small [n, d_in] and large [m, d_in], and which of their latents are alive (bool each). Memory is ROWS times m."""
    of_small, of_large = (torch.from_numpy(np.flatnonzero(a)) for a in alive)
    rows, columns = unit_rows(small[of_small]), unit_rows(large[of_large])
    n_above = torch.zeros(len(THRESHOLDS), len(rows), dtype=torch.int64)
    best_large = torch.full((len(rows),), -1, dtype=torch.int64)
    highest = torch.full((len(columns),), -1.0)
    best_small = torch.full((len(columns),), -1, dtype=torch.int64)
    for start in range(0, len(rows), ROWS) if len(columns) else ():
        cosine = rows[start:start + ROWS] @ columns.T
        for t, threshold in enumerate(THRESHOLDS):
            n_above[t, start:start + ROWS] = (cosine >= threshold).sum(1)
        best_large[start:start + ROWS] = cosine.argmax(1)
        values, places = cosine.max(0)
        better = values > highest
        highest[better], best_small[better] = values[better], places[better] + start
        seen(start)
    mutual = [(int(of_small[i]), int(of_large[j])) for i, j in enumerate(best_large.tolist())
              if j >= 0 and best_small[j] == i and highest[j] >= SAME_DIRECTION]
    return Directions(n_above.numpy(), highest.numpy(), mutual)


def summary(directions: Directions, stitched: Stitched, n_tokens: int) -> dict[str, Any]:
    """What the figure and a reader need of a pair, in a few numbers; latents are the alive ones.

    latents_per_small  by threshold: mean, and counts of the smaller dictionary's latents with 0, 1, 2, 3-4, 5-8, 9-16, 17+
    novel              latents of the larger one whose addition lowers the error; share, and by highest cosine to a smaller one's
    same_index         of the mutual nearest, those with one number in both: what a shared initialisation made alike
    """
    alive = stitched.n_fired > 0
    novel = stitched.change[alive] < 0
    place = np.clip(np.digitize(directions.best_small, COSINE_EDGES) - 1, 0, len(COSINE_EDGES) - 2)
    n_bins, n_small = len(COSINE_EDGES) - 1, directions.n_above.shape[1]
    return {
        "n_small_alive": n_small, "n_large_alive": int(alive.sum()), "n_tokens": n_tokens,
        "latents_per_small": [
            {"threshold": t, "mean": float(counts.mean()) if n_small else None,
             "counts": np.histogram(counts, [*COUNT_EDGES, np.inf])[0].tolist()}
            for t, counts in zip(THRESHOLDS, directions.n_above, strict=True)],
        "mutual": len(directions.mutual), "same_index": sum(i == j for i, j in directions.mutual),
        "n_novel": int(novel.sum()), "novel_fraction": float(novel.mean()) if alive.any() else None,
        "cosine_edges": list(COSINE_EDGES),
        "by_cosine": {"novel": np.bincount(place[novel], minlength=n_bins).tolist(),
                      "reconstruction": np.bincount(place[~novel], minlength=n_bins).tolist()},
        "change_per_token": {"novel": float(stitched.change[alive][novel].sum() / n_tokens),
                             "reconstruction": float(stitched.change[alive][~novel].sum() / n_tokens)},
    }
