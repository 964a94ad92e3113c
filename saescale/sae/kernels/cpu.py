"""Sparse kernels for one CPU thread, in torch and numpy: work is proportional to the active (token, latent) pairs.

Everything here is a deterministic function of its arguments, with no state of its own.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from saescale.sae.kernels import AdamRule, Groups, Pairs
from saescale.sae.kernels.select import batch_top_k  # noqa: F401

CHUNK_WIDTHS = (8, 4)  # top_k first ranks the maxima of chunks this long; measured best for k = 16 at 256 to 8,192 latents

with warnings.catch_warnings():  # torch says once per process that sparse CSR is in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), torch.tensor([1.0]), (1, 1))


_SMALLEST_NORMAL, _HALF = 2.2250738585072014e-308, 0.5


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Treats denormal floats as zero on this thread, and puts the thread back as it was.

    Adam's first moment of a silent latent decays into denormals after some 800 steps and stays there: each pass over it is then
    about 27 times slower. Set here and not by the caller, so that results do not depend on who calls.
    """
    already = _SMALLEST_NORMAL * _HALF == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


def top_k(pre_acts: Tensor, k: int) -> Pairs:
    """The k largest pre-activations of each token, through a ReLU. pre_acts [token, latent] fp32; pairs are sorted by value.

    Exact: the k largest entries lie in the k chunks with the largest maxima, so only k * chunk entries are ranked. Entries in
    float64 are ranked by their float32.
    """
    if pre_acts.dtype == torch.float64:
        pairs = top_k(pre_acts.float(), k)
        return pairs._replace(values=pre_acts.gather(1, pairs.latents.view(-1, k)).clamp_min_(0).view(-1))
    n_tokens, n_latents = pre_acts.shape
    width = next((c for c in CHUNK_WIDTHS if n_latents % c == 0 and n_latents // c >= 4 * k), 1)
    maxima = pre_acts.view(n_tokens, width, n_latents // width).amax(1) if width > 1 else pre_acts
    if torch.isnan(maxima.sum()):  # the order of bits below is not that of NaNs
        values, latents = torch.topk(pre_acts, k, dim=1, sorted=True)
    else:
        values, latents = _largest_by_chunks(pre_acts, maxima, k) if width > 1 else _largest(pre_acts, k)
    tokens = torch.arange(n_tokens).repeat_interleave(k, output_size=n_tokens * k)
    return Pairs(values.clamp_min_(0).view(-1), tokens, latents.view(-1), torch.arange(0, n_tokens * k + 1, k))


def _largest_by_chunks(pre_acts: Tensor, maxima: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and indices [token, k], given the maxima [token, n_chunks] of the chunks.

    Chunk c of a row is the entries c, c + n_chunks, c + 2 n_chunks, ...: maxima of such chunks are taken with SIMD.
    """
    n_tokens, n_chunks = maxima.shape
    chunks = _largest(maxima, k)[1]
    chunks.numpy().sort(axis=1)  # so that ties are decided the same way whatever the order in which _largest found them
    candidates = (chunks.unsqueeze(1) + torch.arange(0, pre_acts.shape[1], n_chunks).view(1, -1, 1)).view(n_tokens, -1)
    values, positions = _largest(pre_acts.gather(1, candidates), k)
    return values, candidates.gather(1, positions)


def _largest(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest entries of each row and their columns, ascending; negative entries count as equal, in no stated order.

    Each entry becomes one int64, float bits above and column below: for positive floats integer order is float order, keys are
    unique, and numpy selects int64 with SIMD where torch.topk compares pairs one by one.
    """
    n_rows, width = rows.shape
    keys = torch.empty(n_rows, width, 2, dtype=torch.int32)
    keys[..., 0] = torch.arange(width, dtype=torch.int32)
    keys[..., 1] = rows.contiguous().view(torch.int32)
    whole = keys.view(torch.int64).view(n_rows, width).numpy()
    if k < width:
        whole.partition(width - k, axis=1)
    best = torch.from_numpy(np.sort(whole[:, width - k :], axis=1)).view(torch.int32).view(n_rows, k, 2)
    return best[..., 1].contiguous().view(torch.float32), best[..., 0].long()


def positive(pre_acts: Tensor) -> Pairs:
    """Every pre-activation above zero (or NaN). pre_acts [token, latent] fp32."""
    n_tokens, n_latents = pre_acts.shape
    flat = torch.from_numpy(np.flatnonzero(~(pre_acts.numpy() <= 0)))
    row_offsets = torch.searchsorted(flat, torch.arange(0, n_tokens * n_latents + 1, n_latents))
    tokens = torch.arange(n_tokens).repeat_interleave(row_offsets.diff(), output_size=len(flat))
    return Pairs(pre_acts.view(-1)[flat], tokens, flat % n_latents, row_offsets)


def decode(pairs: Pairs, W_dec: Tensor) -> Tensor:
    """sum_j value_j W_dec[latent_j] over the pairs of each token: [token, d_in], without b_dec."""
    return torch.embedding_bag(
        W_dec, pairs.latents, pairs.row_offsets, mode=0, per_sample_weights=pairs.values, include_last_offset=True
    )[0]


def errors(pairs: Pairs, W_dec: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """decode(pairs) - x: [token, d_in], and its dot product with W_dec[latent_j] for each pair: [pair]."""
    minus_e = decode(pairs, W_dec).sub_(x)
    pattern = _csr(pairs.row_offsets, pairs.latents, pairs.values, (len(x), len(W_dec)))
    return minus_e, torch.sparse.sampled_addmm(pattern, minus_e, W_dec.T, beta=0.0).values()


def dots(pairs: Pairs, W_dec: Tensor, rows: Tensor) -> Tensor:
    """rows[token_j] . W_dec[latent_j] for each pair: [pair]. rows [token, d_in]."""
    pattern = _csr(pairs.row_offsets, pairs.latents, torch.zeros_like(pairs.values), (len(rows), len(W_dec)))
    return torch.sparse.sampled_addmm(pattern, rows, W_dec.T, beta=0.0).values()


def sum_pairs(pairs: Pairs, weights: Tensor, n_latents: int) -> Tensor:
    """Sum of weights [pair] over the pairs of each latent: [latent]."""
    return weights.new_zeros(n_latents).index_add_(0, pairs.latents, weights)


def group_by_latent(pairs: Pairs, n_latents: int) -> Groups:
    """The pairs ordered by latent, then by token."""
    sortable = pairs.latents.numpy().astype(np.uint16 if n_latents <= 2**16 else np.int32)
    order = torch.from_numpy(np.argsort(sortable, kind="stable"))  # radix sort for 16 bits: seven times torch.sort
    latent_offsets = torch.zeros(n_latents + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(pairs.latents, minlength=n_latents), 0, out=latent_offsets[1:])
    return Groups(order, pairs.tokens[order], latent_offsets)


def sum_rows(groups: Groups, weights: Tensor, rows: Tensor, out: Tensor) -> None:
    """out[i] = sum over the pairs j of latent i of weights_j rows[token_j].

    weights [pair] in the order of Pairs; rows [token, d_in]; out [latent, d_in] is written whole.
    """
    matrix = _csr(groups.latent_offsets, groups.tokens, weights[groups.order], (len(out), len(rows)))
    torch.addmm(out, matrix, rows, beta=0, out=out)


def adam(
    params: Tensor, grad: Tensor, moments: tuple[Tensor, Tensor], rule: AdamRule, unit: Tensor | None, norm: Tensor | None = None
) -> Tensor:
    """One step of params down the clipped grad (overwritten), then the rows of `unit` divided by their norms; grad's norm."""
    norm = torch.linalg.vector_norm(grad) if norm is None else norm
    divisor = None if rule.largest_norm is None else (norm / rule.largest_norm).clamp_min_(1.0).float()  # as the fused one wants
    torch._fused_adam_(
        [params], [grad], [moments[0]], [moments[1]], [], [torch.tensor(float(rule.step))],
        lr=rule.lr, beta1=rule.beta1, beta2=rule.beta2, eps=rule.eps,
        weight_decay=0.0, amsgrad=False, maximize=False, grad_scale=divisor,
    )
    if unit is not None:
        unit.div_(torch.linalg.vector_norm(unit, dim=1, keepdim=True))
    return norm


def _csr(offsets: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(offsets, columns, values, shape, check_invariants=False)
