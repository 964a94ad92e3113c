"""Kernels: one module per backend, the same handful of functions with the same signatures in each.

    top_k(pre_acts [token, latent], k)        -> Pairs, k per token
    batch_top_k(pre_acts, n_kept)             -> Pairs, at most n_kept positive ones
    positive(pre_acts [token, latent])        -> Pairs, every entry above zero
    decode(pairs, W_dec)                      -> [token, d_in]      sum_j value_j W_dec[latent_j]
    errors(pairs, W_dec, x)                   -> [token, d_in], [pair]      decode - x, and its dot products with W_dec[latent_j]
    dots(pairs, W_dec, rows [token, d_in])    -> [pair]             rows[token_j] . W_dec[latent_j]
    sum_pairs(pairs, weights, n_latents)      -> [latent]           sum of weights over the pairs of each latent
    group_by_latent(pairs, n_latents)         -> Groups             the order the next function needs, computed once
    sum_rows(groups, weights, rows, out)      -> None               out[i] = sum over pairs j of latent i: weights_j rows[token_j]
    adam(params, grad, moments, rule, unit, norm)
                                              -> norm of grad       clip, Adam, and the rows of `unit` (or None) back to norm 1;
                                                                    norm: that to clip by, None: grad's own

`out` is written whole: rows of latents without a pair become zero. `kernels.reference` is not a backend: it is the slow autograd
version of the losses that the tests compare with.

Which backend computes is an execution setting, but bits depend on it: a trunk keeps the one it began with.
"""

import math
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

BACKENDS = ("cpu", "numba")


class Pairs(NamedTuple):
    """Active (token, latent) pairs, grouped by token; row_offsets as in CSR."""

    values: Tensor  # [pair]
    tokens: Tensor  # [pair] int64
    latents: Tensor  # [pair] int64
    row_offsets: Tensor  # [token + 1] int64


class Groups(NamedTuple):
    """The same pairs grouped by latent."""

    order: Tensor  # [pair] int64, positions in Pairs
    tokens: Tensor  # [pair] int64, in this order
    latent_offsets: Tensor  # [latent + 1] int64


class AdamRule(NamedTuple):
    """One update: step counts from 1; a grad whose norm exceeds largest_norm is scaled down to it (None: never)."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    largest_norm: float | None
    step: int


def resolve(name: str) -> str:
    """The backend that `name` (auto, cpu, numba) means on this machine: auto is numba where it is installed, else cpu."""
    if name == "auto":
        return "numba" if find_spec("numba") else "cpu"
    if name not in BACKENDS:
        raise ValueError(f"kernels {name!r} do not exist: choose one of auto, {', '.join(BACKENDS)}.")
    if name == "numba" and not find_spec("numba"):
        raise ValueError("the numba kernels are not installed: pip install 'saescale[fast]', or choose cluster.kernels=cpu.")
    return name


def backend(name: str = "cpu") -> ModuleType:
    """The kernels called `name`. Raises ValueError when there are none."""
    return import_module(f"saescale.sae.kernels.{resolve(name)}")


def pre_activations(x: Tensor, W_enc: Tensor, b_enc: Tensor, precision: str) -> Tensor:
    """x W_enc + b_enc: [token, latent] fp32, in memory that the next step of any SAE of this process overwrites.

    precision "bfloat16": x and W_enc are rounded to bf16 for this product, which accumulates in fp32 and is rounded to bf16 too;
    bias and result are fp32. What the encoder multiplies is the only thing this rounds: weights, decoder and gradients stay fp32.
    An SAE in float64 has its pre-activations in float64.
    """
    shape = (len(x), W_enc.shape[1])
    out = scratch("pre_acts", shape, x.dtype)
    if precision == "float32":
        return torch.addmm(b_enc, x, W_enc, out=out)
    rounded = torch.mm(x.bfloat16(), W_enc.bfloat16(), out=scratch("rounded", shape, torch.bfloat16))
    return out.copy_(rounded).add_(b_enc)


_scratch: dict[tuple[str, torch.dtype], Tensor] = {}


def scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory called `name` [shape], shared by all SAEs of this process, which step one after another: what it holds is undefined.

    Fresh memory of this size comes from the operating system page by page, which took 15 % of the time of the encoder matmul.
    """
    size, key = math.prod(shape), (name, dtype)
    if key not in _scratch or len(_scratch[key]) < size:
        _scratch[key] = torch.empty(size, dtype=dtype)
    return _scratch[key][:size].view(shape)
