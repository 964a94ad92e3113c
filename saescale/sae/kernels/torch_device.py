"""Kernels in plain torch for any device: the reference of the Triton ones, and what trains where Triton is missing.

No function waits for the device (but `positive`), none adds floats in an order that is left to chance.
"""

import torch
from torch import Tensor

from saescale.sae.kernels import AdamRule, Groups, Pairs, pre_activations

FIXED_SHAPES = True
PART = 2**26  # elements of what dots gathers at once
products = pre_activations


def top_k(pre_acts: Tensor, k: int, only: Tensor | None = None) -> Pairs:
    """The k largest pre-activations of each token through a ReLU, k pairs per token in the order of latents. Exact.

    Entries in float64 are ranked by their float32. only [latent] bool: the other latents count as 0.
    """
    n_tokens, n_latents = pre_acts.shape
    positions = _largest(_keys(pre_acts, only), k)
    values = pre_acts.reshape(-1)[positions].clamp_min_(0)
    latents = positions % n_latents
    if only is not None:
        values = values.masked_fill_(~only[latents], 0)
    return Pairs(values, positions // n_latents, latents, torch.arange(0, n_tokens * k + 1, k, device=pre_acts.device))


def batch_top_k(pre_acts: Tensor, n_kept: int) -> Pairs:
    """The n_kept largest pre-activations of the batch through a ReLU, in the order of memory. Exact."""
    n_tokens, n_latents = pre_acts.shape
    positions = _largest(_keys(pre_acts).view(1, -1), n_kept)
    tokens = positions // n_latents
    row_offsets = torch.searchsorted(tokens, torch.arange(n_tokens + 1, device=tokens.device))
    return Pairs(pre_acts.reshape(-1)[positions].clamp_min_(0), tokens, positions % n_latents, row_offsets)


def _keys(pre_acts: Tensor, only: Tensor | None = None) -> Tensor:
    """int32 whose order is that of ReLU(pre_acts), NaN above all."""
    acts = pre_acts.float().clamp_min(0)
    if only is not None:
        acts = torch.where(only, acts, 0.0)
    return acts.view(torch.int32) & 0x7FFFFFFF


def _largest(keys: Tensor, k: int) -> Tensor:
    """Flat positions, ascending, of the k largest of each row of keys [row, width]; of equal ones the first."""
    edge = keys.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
    larger, equal = keys > edge, keys == edge
    spare = k - larger.sum(1, keepdim=True)
    kept = larger | (equal & (equal.cumsum(1, dtype=torch.int32) <= spare))
    counted = kept.view(-1).cumsum(0, dtype=torch.int32)
    return torch.searchsorted(counted, torch.arange(1, len(keys) * k + 1, dtype=torch.int32, device=keys.device))


def positive(pre_acts: Tensor) -> Pairs:
    """Every pre-activation above zero (or NaN). Waits for the device: for inference."""
    return above(pre_acts, pre_acts.new_zeros(()))


def above(pre_acts: Tensor, thresholds: Tensor) -> Pairs:
    """Every pre-activation above its threshold (or NaN). Waits for the device: for inference."""
    tokens, latents = (~(pre_acts <= thresholds)).nonzero(as_tuple=True)
    row_offsets = torch.searchsorted(tokens, torch.arange(len(pre_acts) + 1, device=tokens.device))
    return Pairs(pre_acts[tokens, latents], tokens, latents, row_offsets)


def decode(pairs: Pairs, W_dec: Tensor) -> Tensor:
    """sum_j value_j W_dec[latent_j] over the pairs of each token: [token, d_in], without b_dec."""
    return _weighted_rows(pairs.latents, pairs.row_offsets, pairs.values, W_dec)


def _weighted_rows(indices: Tensor, offsets: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
    """Row i: sum of weights_p rows[indices_p] over p in [offsets_i, offsets_i+1), in this order."""
    return torch.embedding_bag(rows, indices, offsets, mode=0, per_sample_weights=weights, include_last_offset=True)[0]


def errors(pairs: Pairs, W_dec: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """decode(pairs) - x: [token, d_in], and its dot product with W_dec[latent_j] for each pair: [pair]."""
    minus_e = decode(pairs, W_dec).sub_(x)
    return minus_e, dots(pairs, W_dec, minus_e)


def dots(pairs: Pairs, W_dec: Tensor, rows: Tensor) -> Tensor:
    """rows[token_j] . W_dec[latent_j] for each pair: [pair]. rows [token, d_in]."""
    width = max(1, PART // W_dec.shape[1])
    parts = zip(pairs.tokens.split(width), pairs.latents.split(width), strict=True)
    return torch.cat([(rows[tokens] * W_dec[latents]).sum(1) for tokens, latents in parts])


def sum_pairs(pairs: Pairs, weights: Tensor, n_latents: int) -> Tensor:
    """Sum of weights [pair] over the pairs of each latent: [latent]."""
    return sum_group(group_by_latent(pairs, n_latents), weights)


def group_by_latent(pairs: Pairs, n_latents: int) -> Groups:
    """The pairs ordered by latent, then as they are."""
    latents, order = torch.sort(pairs.latents.int(), stable=True)
    bounds = torch.arange(n_latents + 1, dtype=torch.int32, device=latents.device)
    return Groups(order, pairs.tokens[order], torch.searchsorted(latents, bounds))


def sum_group(groups: Groups, weights: Tensor) -> Tensor:
    """Sum of weights [pair] over the pairs of each latent: [latent]."""
    return _weighted_rows(groups.order, groups.latent_offsets, torch.ones_like(weights), weights.unsqueeze(1)).squeeze(1)


def sum_rows(groups: Groups, weights: Tensor, rows: Tensor, out: Tensor, only: Tensor | None = None) -> None:
    """out[i] = sum over the pairs j of latent i of weights_j rows[token_j]; rows that `only` [latent] leaves out stay."""
    sums = _weighted_rows(groups.tokens, groups.latent_offsets, weights[groups.order], rows)
    out.copy_(sums if only is None else torch.where(only.unsqueeze(1), sums, out))


def adam(
    params: Tensor, grad: Tensor, moments: tuple[Tensor, Tensor], rule: AdamRule, unit: Tensor | None, norm: Tensor | None = None
) -> Tensor:
    """One step of params down the clipped grad (overwritten), then the rows of `unit` divided by their norms; grad's norm."""
    norm = torch.linalg.vector_norm(grad) if norm is None else norm
    if rule.largest_norm is not None:
        grad.div_((norm / rule.largest_norm).clamp_min(1.0))
    step_size, root = corrections(rule, params.device)
    exp_avg, exp_avg_sq = moments
    exp_avg.mul_(rule.beta1).add_(grad, alpha=1 - rule.beta1)
    exp_avg_sq.mul_(rule.beta2).addcmul_(grad, grad, value=1 - rule.beta2)
    params.sub_(grad.copy_(exp_avg_sq).sqrt_().div_(root).add_(rule.eps).reciprocal_().mul_(exp_avg).mul_(step_size))
    if unit is not None:
        unit.div_(torch.linalg.vector_norm(unit, dim=1, keepdim=True))
    return norm


def corrections(rule: AdamRule, device: torch.device) -> tuple[Tensor, Tensor]:
    """Adam's bias corrections, float64 [] on the device: lr / (1 - beta1^step) and sqrt(1 - beta2^step)."""
    lr, step = (value.double() if isinstance(value, Tensor) else torch.full((), value, dtype=torch.float64, device=device)
                for value in (rule.lr, rule.step))
    return lr / (1 - rule.beta1**step), (1 - rule.beta2**step).sqrt()
