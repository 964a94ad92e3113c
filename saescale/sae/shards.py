"""An SAE whose latents are dealt over ranks: which rank holds which, and the kernels that look beyond one share.

A rank holds a contiguous range of latents with all that is theirs (encoder column, decoder row, biases, moments, counters) and a
copy of b_dec and of what adapts. Selection, reconstruction and the gradient's norm are over all shares; the rest is local.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saescale.sae.kernels import AdamRule, Pairs
from saescale.sae.ranks import Ranks

if TYPE_CHECKING:
    from saescale.sae.model import SAE

FLAT = ("params", "exp_avg", "exp_avg_sq")  # of a training state: vectors laid out as model.views reads them


class Part(NamedTuple):
    """What one rank writes of one tensor: `ranges` of (first element, values) of the flattened whole of `shape`."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    ranges: list[tuple[int, Tensor]]

    @classmethod
    def whole(cls, tensor: Tensor) -> "Part":
        return cls(tuple(tensor.shape), tensor.dtype, [(0, tensor.view(-1))])


@dataclass(frozen=True)
class Share:
    """Latents [first, last) of n_latents."""

    first: int
    last: int
    n_latents: int

    @classmethod
    def of(cls, n_latents: int, rank: int, size: int) -> "Share":
        return cls(n_latents * rank // size, n_latents * (rank + 1) // size, n_latents)

    def __len__(self) -> int:
        return self.last - self.first

    def of_sae(self, sae: "SAE") -> "SAE":
        """Views of this share of a whole SAE."""
        own = {name: t[self.first:self.last] if t.ndim else t for name, t in sae.own.items()}
        mine = slice(self.first, self.last)
        return replace(sae, W_enc=sae.W_enc[:, mine], b_enc=sae.b_enc[mine], W_dec=sae.W_dec[mine], own=own)

    def ranges(self, d_in: int, n_vectors: int) -> Iterator[tuple[slice, slice]]:
        """(in a flat vector of this share, in that of the whole) for W_enc, W_dec, b_enc, b_dec and the kind's vectors."""
        mine = whole = 0
        for width in (d_in, d_in, 1, None, *[1] * n_vectors):
            if width is None:  # b_dec: everybody's
                yield slice(mine, mine + d_in), slice(whole, whole + d_in)
                mine, whole = mine + d_in, whole + d_in
            else:
                size, start = len(self) * width, whole + self.first * width
                yield slice(mine, mine + size), slice(start, start + size)
                mine, whole = mine + size, whole + self.n_latents * width

    def part_of(self, state: Mapping[str, Tensor], d_in: int, n_vectors: int) -> dict[str, Tensor]:
        """This share of the training state of a whole SAE, copied only where it lies in pieces."""
        parts = {name: torch.cat([state[name][whole] for _, whole in self.ranges(d_in, n_vectors)]) for name in FLAT}
        return {**state, **parts, "tokens_since_fired": state["tokens_since_fired"][self.first:self.last]}

    def to_write(self, state: Mapping[str, Tensor], d_in: int, n_vectors: int, is_first: bool) -> dict[str, Part]:
        """What the rank with this share writes of a training state, so that all ranks together write that of the whole."""
        parts = {}
        for name, tensor in state.items():
            if name in FLAT:
                ranges = list(self.ranges(d_in, n_vectors))
                size = 2 * d_in * self.n_latents + (1 + n_vectors) * self.n_latents + d_in
                kept = [r for i, r in enumerate(ranges) if i != 3 or is_first]
                parts[name] = Part((size,), tensor.dtype, [(whole.start, tensor[mine]) for mine, whole in kept])
            elif name == "tokens_since_fired":
                parts[name] = Part((self.n_latents,), tensor.dtype, [(self.first, tensor)])
            else:
                parts[name] = Part(tuple(tensor.shape), tensor.dtype, [(0, tensor.view(-1))] if is_first else [])
        return parts


class ShardedKernels:
    """The functions of a kernel module for one share of a dictionary. Those that are not here need to know of no other share.

    Pairs hold this share's latents alone, counted from 0, and those that are not positive are left out.
    """

    def __init__(self, kernels: ModuleType, ranks: Ranks, share: Share, b_dec: slice) -> None:
        """b_dec: where in the flat parameters the part lies that every rank has."""
        self.kernels, self.ranks, self.share, self.b_dec = kernels, ranks, share, b_dec

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernels, name)

    def top_k(self, pre_acts: Tensor, k: int, only: Tensor | None = None) -> Pairs:
        """The k largest of each token over all shares. Exact: every share offers its k largest, in one exchange.

        Of equal values those of the higher latents are kept. pre_acts may be of fewer columns, in ascending order. only [latent]
        bool: the other latents count as 0.
        """
        pre_acts = pre_acts if only is None else torch.where(only, pre_acts, 0.0)
        n_tokens, width = pre_acts.shape
        keys, values = pre_acts.new_zeros(n_tokens, k, dtype=torch.int64), pre_acts.new_zeros(n_tokens, k)
        mine = min(k, width)
        if mine:
            pairs = self.kernels.top_k(pre_acts, mine)
            values[:, :mine] = pairs.values.view(n_tokens, mine)
            rounded = values[:, :mine].float()  # float64 is ranked by its float32, as it is within a share
            keys[:, :mine] = _bits(rounded) << 32 | pairs.latents.view(n_tokens, mine) + self.share.first
            keys[:, :mine].masked_fill_(rounded == 0, 0)
        edge = _kth_largest(self.ranks.gather(keys).transpose(0, 1).reshape(n_tokens, -1), k)
        kept = keys >= edge.clamp_min(1).unsqueeze(1)
        keys = keys[kept]
        row_offsets = keys.new_zeros(n_tokens + 1)
        torch.cumsum(kept.sum(1), 0, out=row_offsets[1:])
        return Pairs(values[kept], kept.nonzero()[:, 0], (keys & 0xFFFFFFFF) - self.share.first, row_offsets)

    def batch_top_k(self, pre_acts: Tensor, n_kept: int) -> Pairs:
        """The n_kept largest positive ones of the batch over all shares, exact; of equal values the first by token and latent."""
        pairs = self.kernels.batch_top_k(pre_acts, min(n_kept, pre_acts.numel()))
        offer = pre_acts.new_zeros(2, n_kept, dtype=torch.int64)
        n_mine = len(pairs.values)
        offer[0, :n_mine] = _bits(pairs.values)
        offer[1, :n_mine] = pairs.tokens * self.share.n_latents + pairs.latents + self.share.first
        bits, places = self.ranks.gather(offer).transpose(0, 1).reshape(2, -1)
        edge = _kth_largest(bits.unsqueeze(0), n_kept)[0]
        equal = places[bits == edge].sort().values[: n_kept - int((bits > edge).sum())]
        last = equal[-1] if edge and len(equal) else -1
        kept = (offer[0] > edge) | ((offer[0] == edge) & (offer[1] <= last) & (offer[0] > 0))
        kept = kept[:n_mine]
        tokens = pairs.tokens[kept]
        row_offsets = torch.searchsorted(tokens, torch.arange(len(pre_acts) + 1, device=tokens.device))
        return Pairs(pairs.values[kept], tokens, pairs.latents[kept], row_offsets)

    def decode(self, pairs: Pairs, W_dec: Tensor) -> Tensor:
        return self.ranks.sum_(self.kernels.decode(pairs, W_dec))

    def errors(self, pairs: Pairs, W_dec: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        minus_e = self.decode(pairs, W_dec).sub_(x)
        return minus_e, self.kernels.dots(pairs, W_dec, minus_e)

    def adam(self, params: Tensor, grad: Tensor, moments: tuple[Tensor, Tensor], rule: AdamRule, unit: Tensor | None) -> Tensor:
        """Clips by the norm over all shares, in which b_dec counts once."""
        pieces = [grad[: self.b_dec.start], grad[self.b_dec.stop :], *([grad[self.b_dec]] if self.ranks.first else [])]
        squares = sum(float(torch.linalg.vector_norm(piece)) ** 2 for piece in pieces)
        norm = torch.tensor(self.ranks.totals(squares)[0], dtype=torch.float64).sqrt_().to(grad.dtype)
        return self.kernels.adam(params, grad, moments, rule, unit, norm)


def _kth_largest(rows: Tensor, k: int) -> Tensor:
    """[row] of rows [row, width] int64."""
    if rows.is_cpu:  # numpy selects int64 with SIMD
        return torch.from_numpy(np.partition(rows.numpy(), rows.shape[1] - k, axis=1)[:, rows.shape[1] - k])
    return rows.topk(k, dim=1, sorted=False).values.amin(1)


def _bits(values: Tensor) -> Tensor:
    """int64 whose order is that of values >= 0, NaN above all."""
    return values.abs().view(torch.int32 if values.dtype == torch.float32 else torch.int64).long()
