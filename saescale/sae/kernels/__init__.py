"""Kernels: one module per backend, the same handful of functions with the same signatures in each.

    top_k(pre_acts [token, latent], k)        -> Pairs, k per token
    positive(pre_acts [token, latent])        -> Pairs, every entry above zero
    decode(pairs, W_dec)                      -> [token, d_in]      sum_j value_j W_dec[latent_j]
    errors(pairs, W_dec, x)                   -> [token, d_in], [pair]      decode - x, and its dot products with W_dec[latent_j]
    sum_pairs(pairs, weights, n_latents)      -> [latent]           sum of weights over the pairs of each latent
    group_by_latent(pairs, n_latents)         -> Groups             the order the next function needs, computed once
    sum_rows(groups, weights, rows, out)      -> None               out[i] = sum over pairs j of latent i: weights_j rows[token_j]
    adam(params, grad, moments, rule, unit)   -> norm of grad       clip, Adam, and the rows of `unit` (or None) back to norm 1

`out` is written whole: rows of latents without a pair become zero. `kernels.reference` is not a backend: it is the slow autograd
version of the losses that the tests compare with.

Which backend computes is an execution setting, but bits depend on it: a trunk keeps the one it began with.
"""

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


_pre_acts = torch.empty(0)


def pre_acts_memory(n_tokens: int, n_latents: int) -> Tensor:
    """[token, latent], overwritten by the next step of any SAE of this process, which step one after another.

    Fresh memory of this size comes from the operating system page by page, which took 15 % of the time of the encoder matmul.
    """
    global _pre_acts
    if len(_pre_acts) < n_tokens * n_latents:
        _pre_acts = torch.empty(n_tokens * n_latents)
    return _pre_acts[: n_tokens * n_latents].view(n_tokens, n_latents)
