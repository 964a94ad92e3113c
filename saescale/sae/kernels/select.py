"""Which pre-activations are active, for rules that look beyond one token or at thresholds; the same for every backend."""

import numpy as np
import torch
from torch import Tensor

from saescale.sae import kernels
from saescale.sae.kernels import Pairs

CHUNK = 8  # batch_top_k ranks the maxima of chunks this long first


def above(pre_acts: Tensor, thresholds: Tensor) -> Pairs:
    """Every pre-activation above its threshold (or NaN). pre_acts [token, latent]; thresholds [latent] or []."""
    if not pre_acts.is_cpu:
        return kernels.of(pre_acts).above(pre_acts, thresholds)
    return _pairs(pre_acts, torch.from_numpy(np.flatnonzero(~(pre_acts.numpy() <= thresholds.numpy()))))


def batch_top_k(pre_acts: Tensor, n_kept: int) -> Pairs:
    """The n_kept largest pre-activations of the whole batch that are above zero (or NaN), in the order of memory.

    Exact. Of equal entries at the edge those first in memory are kept. The n_kept-th largest maximum of disjoint chunks is no
    larger than the n_kept-th largest entry, so only entries from there up are ranked.
    """
    flat = pre_acts.contiguous().view(-1)
    whole = len(flat) // CHUNK * CHUNK
    floor = 0.0
    if n_kept < whole // CHUNK:
        maxima = flat[:whole].view(CHUNK, -1).amax(0).numpy()  # a chunk is every len / CHUNK-th entry: maxima with SIMD
        floor = max(float(np.partition(maxima, len(maxima) - n_kept)[len(maxima) - n_kept]), 0.0)  # NaN counts as largest
    entries = flat.numpy()
    candidates = np.flatnonzero(~(entries < floor) if floor > 0 else ~(entries <= 0))
    values = entries[candidates]
    if len(values) > n_kept:
        edge = np.partition(values, len(values) - n_kept)[len(values) - n_kept]
        larger, equal = ~(values <= edge), values == edge
        if np.isnan(edge):  # nothing is larger, and those equal to it are not for ==
            larger, equal = np.zeros(len(values), dtype=bool), np.isnan(values)
        equal = np.flatnonzero(equal)[: n_kept - int(larger.sum())]
        larger[equal] = True
        candidates = candidates[larger]
    return _pairs(pre_acts, torch.from_numpy(candidates))


def _pairs(pre_acts: Tensor, flat: Tensor) -> Pairs:
    """Pairs of the entries `flat` (ascending positions) of pre_acts [token, latent]."""
    n_tokens, n_latents = pre_acts.shape
    row_offsets = torch.searchsorted(flat, torch.arange(0, n_tokens * n_latents + 1, n_latents))
    tokens = torch.arange(n_tokens).repeat_interleave(row_offsets.diff(), output_size=len(flat))
    return Pairs(pre_acts.reshape(-1)[flat], tokens, flat % n_latents, row_offsets)
