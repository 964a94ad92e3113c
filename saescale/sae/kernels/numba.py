"""Sparse kernels in numba, an optional backend: the functions of kernels.cpu, fused and over several threads.

Deterministic, and the same bits for every number of threads: see numba_loops.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from saescale.sae.kernels import AdamRule, Groups, Pairs, cpu
from saescale.sae.kernels import numba_loops as loops

WORTH_A_THREAD = 2**18  # multiply-adds below which a second thread costs more than it gives
batch_top_k, decode = cpu.batch_top_k, cpu.decode
sum_rows = cpu.sum_rows  # a compiled sum_rows was slower than MKL's at every shape tried


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, "kernels", initializer=torch.set_flush_denormal, initargs=(True,))


def _in_ranges(bounds: list[int], loop: Callable[..., None], *arrays: object) -> None:
    """loop(first, last, *arrays) on the ranges between bounds, one thread each."""
    others = [_threads(len(bounds) - 2).submit(loop, a, b, *arrays) for a, b in zip(bounds[1:-1], bounds[2:], strict=True)]
    loop(bounds[0], bounds[1], *arrays)
    for other in others:
        other.result()


def _equal(n: int, work: int) -> list[int]:
    """Bounds of equal ranges of n things that take `work` multiply-adds together."""
    parts = max(1, min(torch.get_num_threads(), n, work // WORTH_A_THREAD))
    return [n * i // parts for i in range(parts + 1)]


@cache
def _lanes(n_latents: int, least: int) -> int:
    """The smallest divisor of n_latents that is at least `least`: lanes of one length, and one latent each if need be."""
    return next((lanes for lanes in range(least, n_latents) if n_latents % lanes == 0), n_latents)


def top_k(pre_acts: Tensor, k: int) -> Pairs:
    """The k largest pre-activations of each token, through a ReLU; pairs of a token are in the order of their latents."""
    n_tokens, n_latents = pre_acts.shape
    lanes = _lanes(n_latents, max(64, 8 * k))
    keys = pre_acts.contiguous().view(torch.int32).view(n_tokens, n_latents // lanes, lanes).numpy()
    values, latents = torch.empty(n_tokens, k), torch.empty(n_tokens, k, dtype=torch.int64)
    _in_ranges(_equal(n_tokens, pre_acts.numel()), loops.top_k, keys, k, values.view(torch.int32).numpy(), latents.numpy())
    tokens = torch.arange(n_tokens).repeat_interleave(k, output_size=n_tokens * k)
    return Pairs(values.view(-1), tokens, latents.view(-1), torch.arange(0, n_tokens * k + 1, k))


def positive(pre_acts: Tensor) -> Pairs:
    """Every pre-activation above zero (or NaN). pre_acts [token, latent] fp32."""
    n_tokens = len(pre_acts)
    bounds, rows = _equal(n_tokens, pre_acts.numel()), pre_acts.contiguous().numpy()
    row_offsets = torch.zeros(n_tokens + 1, dtype=torch.int64)
    _in_ranges(bounds, loops.count_positive, rows, row_offsets[1:].numpy())
    counts = row_offsets[1:].clone()
    torch.cumsum(counts, 0, out=row_offsets[1:])
    n_pairs = int(row_offsets[-1])
    values, latents = torch.empty(n_pairs), torch.empty(n_pairs, dtype=torch.int64)
    _in_ranges(bounds, loops.positive, rows, row_offsets.numpy(), values.numpy(), latents.numpy())
    return Pairs(values, torch.arange(n_tokens).repeat_interleave(counts, output_size=n_pairs), latents, row_offsets)


def errors(pairs: Pairs, W_dec: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """decode(pairs) - x, and its dot product with W_dec[latent_j] for each pair, while those rows are in the cache."""
    minus_e, along = torch.empty(x.shape), torch.empty(len(pairs.values))
    _in_ranges(_equal(len(x), along.numel() * x.shape[1]), loops.errors, pairs.row_offsets.numpy(), pairs.latents.numpy(),
               pairs.values.numpy(), np.arange(len(along)), W_dec.numpy(), x.numpy(), minus_e.numpy(), along.numpy())
    return minus_e, along


def dots(pairs: Pairs, W_dec: Tensor, rows: Tensor) -> Tensor:
    """rows[token_j] . W_dec[latent_j] for each pair: [pair]."""
    return errors(pairs._replace(values=torch.zeros_like(pairs.values)), W_dec, rows.neg())[1]


def sum_pairs(pairs: Pairs, weights: Tensor, n_latents: int) -> Tensor:
    """Sum of weights [pair] over the pairs of each latent: [latent]."""
    sums = torch.zeros(n_latents)
    loops.sum_pairs(pairs.latents.numpy(), weights.numpy(), sums.numpy())
    return sums


def group_by_latent(pairs: Pairs, n_latents: int) -> Groups:
    """The pairs ordered by latent, then by token."""
    order, tokens = torch.empty_like(pairs.latents), torch.empty_like(pairs.latents)
    latent_offsets = torch.zeros(n_latents + 1, dtype=torch.int64)
    loops.group(pairs.latents.numpy(), pairs.row_offsets.numpy(), latent_offsets.numpy(), order.numpy(), tokens.numpy())
    return Groups(order, tokens, latent_offsets)


def adam(
    params: Tensor, grad: Tensor, moments: tuple[Tensor, Tensor], rule: AdamRule, unit: Tensor | None, norm: Tensor | None = None
) -> Tensor:
    """One step of params down the clipped grad, and the rows of `unit` back to norm 1 while in the cache; returns grad's norm."""
    flat = [t.numpy() for t in (params, grad, *moments)]
    norm = _norm(flat[1]) if norm is None else norm
    numbers = _adam_numbers(rule, norm)
    first = len(params) if unit is None else unit.storage_offset() - params.storage_offset()
    _in_ranges(_equal(first, first), loops.adam, *flat, numbers)
    if unit is not None:
        _in_ranges(_equal(len(unit), unit.numel()), loops.adam_of_unit_rows, first, unit.shape[1], *flat, numbers)
        loops.adam(first + unit.numel(), len(params), *flat, numbers)
    return norm


def _norm(grad: np.ndarray) -> Tensor:
    blocks = -(-len(grad) // loops.NORM_BLOCK)
    totals = np.empty(blocks)
    _in_ranges(_equal(blocks, len(grad)), loops.squares, grad, totals)
    return torch.tensor(totals.sum(), dtype=torch.float64).sqrt_().float()


def _adam_numbers(rule: AdamRule, norm: Tensor) -> tuple[np.float32, ...]:
    """What the loop needs, without a division it could do once: 1 / divisor, betas, eps, step size, 1 / sqrt(correction)."""
    divisor = 1.0 if rule.largest_norm is None else float((norm / rule.largest_norm).clamp_min_(1.0))
    step_size, root = rule.lr / (1 - rule.beta1**rule.step), (1 - rule.beta2**rule.step) ** 0.5
    return tuple(np.float32(v) for v in (1 / divisor, rule.beta1, rule.beta2, rule.eps, step_size, 1 / root))
