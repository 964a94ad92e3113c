"""Kernels in Triton: the functions of kernels.torch_device for CUDA, or with TRITON_INTERPRET=1 for a processor (slow: tests).

What is not here is shared with that module. No function waits for the device; results have the same bits every time.
"""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from saescale.sae.kernels import AdamRule, Groups, Pairs, pre_activations, rounded_products, torch_device
from saescale.sae.kernels import triton_kernels as kernels

FIXED_SHAPES = True
LANES = 1024  # of top_k: more than twice k, so that few entries besides the k largest reach the k-th of the lanes' maxima
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # there a program costs milliseconds, however much it reads
BLOCK, TILE = (2**14, 2**16) if INTERPRETED else (4096, 4096)  # entries a program reads at once, of one row and of several
COLUMNS = 512  # of a sum of rows in one program: narrow, so that many rows are read at once where a latent has many pairs
DIGITS = ((28, 8), *((shift, 16) for shift in range(24, -1, -4)))  # (shift, values) of the digits of a 31-bit key

above, positive = torch_device.above, torch_device.positive


@dataclass(frozen=True)
class Products:
    """Pre-activations that are not written out: product [token, latent] bf16 + bias [latent]."""

    product: Tensor
    bias: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.product.shape

    def __len__(self) -> int:
        return len(self.product)


def products(x: Tensor, W_enc: Tensor, b_enc: Tensor, precision: str) -> Tensor | Products:
    """What top_k and batch_top_k read. In bf16 the selection adds the bias as it reads, which saves writing fp32."""
    if precision == "float32":
        return pre_activations(x, W_enc, b_enc, precision)
    return Products(rounded_products(x, W_enc), b_enc)


def _launch(kernel: Any, grid: tuple[int, ...], like: Tensor, *arguments: Any, **sizes: Any) -> None:
    with torch.cuda.device(like.device) if like.is_cuda else nullcontext():
        kernel[grid](*arguments, **sizes)


def _read(pre_acts: Tensor | Products) -> tuple[Tensor, Tensor, bool]:
    """product, bias (anything where there is none), whether there is one."""
    if isinstance(pre_acts, Products):
        return pre_acts.product, pre_acts.bias, True
    return pre_acts.contiguous(), pre_acts, False


def top_k(pre_acts: Tensor | Products, k: int, only: Tensor | None = None) -> Pairs:
    """The k largest pre-activations of each token through a ReLU, k pairs per token. Exact; of equal ones the lower latents.

    Active pairs come first, in the order of their latents; where fewer are positive the rest have value 0 and latent 0.
    """
    product, bias, has_bias = _read(pre_acts)
    if product.dtype == torch.float64:
        return torch_device.top_k(product, k, only)
    n_tokens, n_latents = product.shape
    sizes = {"LANES": max(min(LANES, triton.next_power_of_2(n_latents)), triton.next_power_of_2(2 * k)),
             "CAPACITY": max(128, triton.next_power_of_2(2 * k)), "HAS_BIAS": has_bias, "HAS_ONLY": only is not None}
    found, columns = (product.new_empty(n_tokens, sizes["CAPACITY"], dtype=torch.int32) for _ in range(2))
    counts = product.new_empty(n_tokens, dtype=torch.int32)
    values = torch.zeros(n_tokens * k, device=product.device)
    latents = torch.zeros(n_tokens * k, dtype=torch.int64, device=product.device)
    read = (product, bias, bias if only is None else only.view(torch.uint8), n_latents, k, found, columns, counts)
    _launch(kernels.candidates, (n_tokens,), product, *read, **sizes)
    _launch(kernels.keep_largest, (n_tokens,), product, *read, values, latents, **sizes)
    row_offsets = torch.arange(0, n_tokens * k + 1, k, device=product.device)
    return Pairs(values, torch.arange(n_tokens * k, device=product.device) // k, latents, row_offsets)


def batch_top_k(pre_acts: Tensor | Products, n_kept: int) -> Pairs:
    """The n_kept largest pre-activations of the batch through a ReLU, in the order of memory. Exact, digit by digit."""
    product, bias, has_bias = _read(pre_acts)
    if product.dtype == torch.float64:
        return torch_device.batch_top_k(product, n_kept)
    n_tokens, n_latents = product.shape
    block = min(BLOCK // 4, triton.next_power_of_2(n_latents))
    edge = product.new_zeros((), dtype=torch.int64)  # in the end the largest key that n_kept keys reach
    for shift, n_steps in DIGITS:
        counts = product.new_zeros(n_steps, dtype=torch.int64)
        _launch(kernels.count_reaching, (n_tokens,), product, product, bias, n_latents, edge, counts, shift,
                BLOCK=block, STEPS=n_steps, HAS_BIAS=has_bias)
        edge = edge + (((counts >= n_kept).sum() - 1) << shift)
    larger, equal = (product.new_empty(n_tokens, dtype=torch.int32) for _ in range(2))
    _launch(kernels.count_rows, (n_tokens,), product, product, bias, n_latents, edge, larger, equal,
            BLOCK=block, HAS_BIAS=has_bias)
    spare = n_kept - larger.sum()
    equal_before = equal.cumsum(0) - equal
    kept_equal = torch.minimum((spare - equal_before).clamp_min(0), equal)
    row_offsets = product.new_zeros(n_tokens + 1, dtype=torch.int64)
    torch.cumsum(larger + kept_equal, 0, out=row_offsets[1:])
    values = torch.zeros(n_kept, device=product.device)
    latents = torch.zeros(n_kept, dtype=torch.int64, device=product.device)
    _launch(kernels.keep_rows, (n_tokens,), product, product, bias, n_latents, edge, kept_equal, row_offsets, values, latents,
            BLOCK=block, HAS_BIAS=has_bias)
    tokens = torch.searchsorted(row_offsets, torch.arange(n_kept, device=product.device), right=True) - 1
    return Pairs(values, tokens, latents, row_offsets)


def _for_fp32(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of torch_device of the same name takes weights in float64."""
    def chosen(pairs: Pairs, W_dec: Tensor, *rest: Tensor) -> Any:
        return (getattr(torch_device, function.__name__) if W_dec.dtype == torch.float64 else function)(pairs, W_dec, *rest)
    return chosen


def _pair_rows(pairs: Pairs, W_dec: Tensor, x: Tensor | None, *, decodes: bool, dots: bool) -> tuple[Tensor, Tensor]:
    n_tokens, d_in = len(pairs.row_offsets) - 1, W_dec.shape[1]
    out = W_dec.new_empty(n_tokens, d_in) if decodes else W_dec
    along = torch.empty_like(pairs.values) if dots else pairs.values
    width = triton.next_power_of_2(d_in)
    _launch(kernels.pair_rows, (n_tokens,), W_dec, pairs.values, pairs.latents, pairs.row_offsets, W_dec.contiguous(),
            W_dec if x is None else x.contiguous(), out, along, d_in,
            D=width, AT_ONCE=max(1, TILE // width), DECODES=decodes, SUBTRACTS=x is not None, DOTS=dots)
    return out, along


@_for_fp32
def decode(pairs: Pairs, W_dec: Tensor) -> Tensor:
    """sum_j value_j W_dec[latent_j] over the pairs of each token: [token, d_in], without b_dec."""
    return _pair_rows(pairs, W_dec, None, decodes=True, dots=False)[0]


@_for_fp32
def errors(pairs: Pairs, W_dec: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """decode(pairs) - x: [token, d_in], and its dot product with each pair's W_dec[latent_j]: [pair], 0 where the value is 0."""
    return _pair_rows(pairs, W_dec, x, decodes=True, dots=True)


@_for_fp32
def dots(pairs: Pairs, W_dec: Tensor, rows: Tensor) -> Tensor:
    """rows[token_j] . W_dec[latent_j] for each pair: [pair]; 0 where the value is 0. rows [token, d_in]."""
    return _pair_rows(pairs, W_dec, rows, decodes=False, dots=True)[1]


def group_by_latent(pairs: Pairs, n_latents: int) -> Groups:
    """The pairs ordered by latent, then as they are. Those of value 0 are in no group: they add nothing to any sum."""
    latents = pairs.latents.masked_fill(pairs.values == 0, n_latents)
    return torch_device.group_by_latent(pairs._replace(latents=latents), n_latents)


def sum_pairs(pairs: Pairs, weights: Tensor, n_latents: int) -> Tensor:
    """Sum of weights [pair] over the pairs of each latent: [latent]."""
    return sum_group(torch_device.group_by_latent(pairs, n_latents), weights)


def sum_group(groups: Groups, weights: Tensor) -> Tensor:
    """Sum of weights [pair] over the pairs of each latent: [latent]."""
    if weights.dtype == torch.float64:
        return torch_device.sum_group(groups, weights)
    sums = weights.new_empty(len(groups.latent_offsets) - 1)
    together = max(1, TILE // 512)
    _launch(kernels.sum_group, (triton.cdiv(len(sums), together),), weights, groups.order, groups.latent_offsets,
            weights.contiguous(), sums, len(sums), LATENTS=together, AT_ONCE=64)
    return sums


def sum_rows(groups: Groups, weights: Tensor, rows: Tensor, out: Tensor, only: Tensor | None = None) -> None:
    """out[i] = sum over the pairs j of latent i of weights_j rows[token_j]; rows that `only` [latent] leaves out stay."""
    if out.dtype == torch.float64:
        return torch_device.sum_rows(groups, weights, rows, out, only)
    assert out.is_contiguous()
    n_latents, d_in = out.shape
    width = min(COLUMNS, triton.next_power_of_2(d_in))
    _launch(kernels.sum_rows, (n_latents, triton.cdiv(d_in, width)), out, groups.order, groups.tokens, groups.latent_offsets,
            weights.contiguous(), rows.contiguous(), out if only is None else only.view(torch.uint8), out, d_in,
            D=width, AT_ONCE=TILE // width, HAS_ONLY=only is not None)
    return None


def adam(
    params: Tensor, grad: Tensor, moments: tuple[Tensor, Tensor], rule: AdamRule, unit: Tensor | None, norm: Tensor | None = None
) -> Tensor:
    """One step of params down the clipped grad, and the rows of `unit` back to norm 1, in one pass; grad's norm."""
    if params.dtype == torch.float64:
        return torch_device.adam(params, grad, moments, rule, unit, norm)
    norm = torch.linalg.vector_norm(grad) if norm is None else norm
    scale = torch.ones_like(norm) if rule.largest_norm is None else 1 / (norm / rule.largest_norm).clamp_min(1.0)
    step_size, root = torch_device.corrections(rule, params.device)
    numbers = torch.stack([scale.double(), step_size, 1 / root]).float()
    rates = (rule.beta1, 1 - rule.beta1, rule.beta2, 1 - rule.beta2, rule.eps)
    tensors = (params, grad, *moments, numbers)
    start = len(params) if unit is None else unit.storage_offset() - params.storage_offset()
    stop = start if unit is None else start + unit.numel()
    for first, last in ((0, start), (stop, len(params))):
        if first < last:
            _launch(kernels.adam, (triton.cdiv(last - first, BLOCK // 4),), params, *tensors, first, last, *rates,
                    BLOCK=BLOCK // 4)
    if unit is not None:
        width = triton.next_power_of_2(unit.shape[1])
        rows = max(1, TILE // (2 * width))
        _launch(kernels.adam_of_unit_rows, (triton.cdiv(len(unit), rows),), params, *tensors, start, *unit.shape, *rates,
                ROWS=rows, D=width)
    return norm
