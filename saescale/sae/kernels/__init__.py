"""Kernels: one module per backend, the same handful of functions with the same signatures in each.

    top_k(pre_acts [token, latent], k)        -> Pairs, k per token
    positive(pre_acts [token, latent])        -> Pairs, every entry above zero
    decode(pairs, W_dec)                      -> [token, d_in]      sum_j value_j W_dec[latent_j]
    dots(pairs, e, W_dec)                     -> [pair]             e[token_j] . W_dec[latent_j]
    sum_pairs(pairs, weights, n_latents)      -> [latent]           sum of weights over the pairs of each latent
    group_by_latent(pairs, n_latents)         -> Groups             the order the next function needs, computed once
    sum_rows(groups, weights, rows, out)      -> None               out[i] = sum over pairs j of latent i: weights_j rows[token_j]

`out` is written whole: rows of latents without a pair become zero. `kernels.reference` is not a backend: it is the slow autograd
version of the losses that the tests compare with.
"""

from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from torch import Tensor

BACKENDS = ("cpu",)


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


def backend(name: str = "cpu") -> ModuleType:
    """The kernels called `name`. Raises ValueError when there are none."""
    if name not in BACKENDS:
        raise ValueError(f"kernels {name!r} do not exist: choose one of {', '.join(BACKENDS)}.")
    return import_module(f"saescale.sae.kernels.{name}")
