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

Two kinds of backend. Those of a processor (`cpu`, `numba`) give as many pairs as there are. Those of a device (`torch`, `triton`;
FIXED_SHAPES) never wait for it: shapes follow from shapes, so top_k gives k pairs per token and batch_top_k exactly n_kept, those
that are not positive with value 0; of equal entries those of the lower token, then latent, are kept. They have besides

    products(x, W_enc, b_enc, precision)      -> what their top_k and batch_top_k read: pre-activations, written out or not
    top_k(pre_acts, k, only)                  -> Pairs, k per token   only [latent] bool: of these latents, the others count as 0
    sum_group(groups, weights [pair])         -> [latent]           sum_pairs, in the order of groups: the same bits every time
    sum_rows(groups, weights, rows, out, only)-> None               rows of out that `only` [latent] bool leaves out stay

Which backend computes is an execution setting, but bits depend on it: a trunk keeps the one it began with.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

BACKENDS = ("cpu", "numba")
DEVICE_BACKENDS = ("triton", "torch")


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
    """One update: step counts from 1; a grad whose norm exceeds largest_norm is scaled down to it (None: never).

    On a device lr and step may be tensors [] there, so that a captured step reads what they hold when it is replayed.
    """

    lr: float | Tensor
    beta1: float
    beta2: float
    eps: float
    largest_norm: float | None
    step: int | Tensor


def resolve(name: str, device: str | torch.device = "cpu") -> str:
    """The backend that `name` (auto, cpu, numba, triton, torch) means on this machine for tensors on `device`.

    auto: on a processor numba where it is installed, else cpu; on CUDA triton where it is installed, else torch.
    """
    kind = torch.device(device).type
    if name == "auto":
        if kind == "cpu":
            return "numba" if find_spec("numba") else "cpu"
        return "triton" if kind == "cuda" and find_spec("triton") else "torch"
    if name not in BACKENDS + DEVICE_BACKENDS:
        raise ValueError(f"kernels {name!r} do not exist: choose one of auto, {', '.join(BACKENDS + DEVICE_BACKENDS)}.")
    if name in BACKENDS and kind != "cpu":
        raise ValueError(f"the {name} kernels run on a processor, but this SAE trains on {device}: choose auto, triton or torch.")
    extra = {"numba": ("fast", "cpu"), "triton": ("gpu", "torch")}.get(name)
    if extra and not find_spec(name):
        raise ValueError(f"the {name} kernels are not installed: pip install 'saescale[{extra[0]}]', "
                         f"or choose cluster.kernels={extra[1]}.")
    if name == "triton" and kind != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"the triton kernels need a CUDA device, but this SAE trains on {device}: choose auto, cpu, numba or "
                         "torch (TRITON_INTERPRET=1 runs them on a processor, for tests).")
    return name


def backend(name: str = "cpu", device: str | torch.device = "cpu") -> ModuleType:
    """The kernels called `name`. Raises ValueError when there are none."""
    found = resolve(name, device)
    return import_module(f"saescale.sae.kernels.{found if found in BACKENDS else f'{found}_device'}")


def of(tensor: Tensor) -> ModuleType:
    """The kernels of inference for a tensor, wherever it lies: cpu on a processor, else torch."""
    return backend("cpu" if tensor.is_cpu else "torch", tensor.device)


def pre_activations(x: Tensor, W_enc: Tensor, b_enc: Tensor, precision: str) -> Tensor:
    """x W_enc + b_enc: [token, latent] fp32, in memory that the next step of any SAE of this process overwrites.

    precision "bfloat16": x and W_enc are rounded to bf16 for this product, which accumulates in fp32 and is rounded to bf16 too;
    bias and result are fp32. What the encoder multiplies is the only thing this rounds: weights, decoder and gradients stay fp32.
    An SAE in float64 has its pre-activations in float64.
    """
    out = scratch("pre_acts", (len(x), W_enc.shape[1]), x.dtype, x.device)
    if precision == "float32":
        return torch.addmm(b_enc, x, W_enc, out=out)
    return out.copy_(rounded_products(x, W_enc)).add_(b_enc)


def rounded_products(x: Tensor, W_enc: Tensor) -> Tensor:
    """x W_enc of precision bfloat16, still rounded and without bias: [token, latent] bf16, in memory used again as above."""
    out = scratch("rounded", (len(x), W_enc.shape[1]), torch.bfloat16, x.device)
    return torch.mm(x.bfloat16(), W_enc.bfloat16(), out=out)


_scratch: dict[tuple[str, torch.dtype, torch.device, int], Tensor] = {}
_lane = 0


def scratch(
    name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Tensor:
    """Memory called `name` [shape], shared by all SAEs of this process, which step one after another: what it holds is undefined.

    Fresh memory of this size comes from the operating system page by page, which took 15 % of the time of the encoder matmul.
    """
    size, key = math.prod(shape), (name, dtype, torch.device(device), _lane)
    if key not in _scratch or len(_scratch[key]) < size:
        _scratch[key] = torch.empty(size, dtype=dtype, device=device)
    return _scratch[key][:size].view(shape)


@contextmanager
def lane(number: int) -> Iterator[None]:
    """Inside it scratch memory is that of another lane: for SAEs that step at the same time, on streams of one device."""
    global _lane
    before, _lane = _lane, number
    try:
        yield
    finally:
        _lane = before


def scratch_in_use() -> list[Tensor]:
    """All of it: who captured addresses of scratch memory holds on to this."""
    return list(_scratch.values())


def forget_scratch() -> None:
    """Gives it back, once nobody steps or replays."""
    _scratch.clear()
