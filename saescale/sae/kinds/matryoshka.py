"""Matryoshka BatchTopK: nested dictionaries that share their latents."""

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from saescale.sae import kernels
from saescale.sae.kernels import Pairs
from saescale.sae.kinds.batchtopk import BatchTopK
from saescale.sae.kinds.topk import Backward
from saescale.sae.shards import Share

if TYPE_CHECKING:
    from saescale.sae.model import SAE
    from saescale.sae.step import Trainable

GROUPS = (1 / 32, 1 / 16, 1 / 8, 1 / 4)  # shares of the latents, in their order; the last group is the rest


def group_ends(n_latents: int) -> list[int]:
    """Where each group ends: 1/32, 3/32, 7/32, 15/32 of the latents, and all of them."""
    return [*(round(n_latents * share) for share in accumulate(GROUPS)), n_latents]


@dataclass(frozen=True)
class Matryoshka(BatchTopK):
    """As BatchTopK, one selection over all latents, but the loss is the mean over five prefixes of the dictionary of
    |x - x_hat of the prefix's latents|^2 (averaged over tokens), plus AuxK on the residual of the whole.

    Source: Bussmann et al. 2025, prefixes as in SAEBench; equal weights, without a term for b_dec alone.
    """

    name: ClassVar[str] = "matryoshka"
    training_architecture: ClassVar[str | None] = "matryoshka_batchtopk"

    def objective(self, sae: "SAE", x: Tensor, x_hat: Tensor, pairs: Pairs) -> Tensor:  # noqa: ARG002
        rows, n_prefixes = nested(pairs, Share(0, sae.n_latents, sae.n_latents), len(x))
        return prefixes(kernels.of(x).decode(rows, sae.W_dec), x - sae.b_dec, n_prefixes).square().sum(2).mean(1)

    def backward(self, trainable: "Trainable", pairs: Pairs, x_enc: Tensor, active: Tensor) -> Backward:
        grads, backend, n_tokens = trainable.grads, trainable.kernels, len(x_enc)
        W_dec, n_latents = trainable.sae.W_dec, trainable.sae.n_latents
        rows, n_prefixes = nested(pairs, trainable.share, n_tokens)
        minus_es = prefixes(backend.decode(rows, W_dec), x_enc, n_prefixes)
        loss = minus_es.square().sum() / (n_tokens * n_prefixes)
        minus_e = minus_es[:, -1].contiguous()
        pulls = minus_es.flip(1).cumsum(1).flip(1).div_(n_prefixes)  # on a group: of every prefix that holds it
        flat = pulls.view(n_tokens * n_prefixes, -1)
        d_z = backend.dots(rows, W_dec, flat)
        d_z.mul_(active).mul_(2 / n_tokens)
        backend.sum_rows(backend.group_by_latent(rows, n_latents), pairs.values * (2 / n_tokens), flat, grads.W_dec)
        groups = backend.group_by_latent(pairs, n_latents)
        backend.sum_rows(groups, d_z, x_enc, grads.W_enc.T)
        return Backward(minus_e, pulls[:, 0], d_z, loss, groups)


def nested(pairs: Pairs, share: Share, n_tokens: int) -> tuple[Pairs, int]:
    """The pairs (ordered by token, then latent) with a row for each (token, group) instead of each token, and the groups.

    share: which latents of the dictionary the pairs count from 0.
    """
    ends, latents = group_ends(share.n_latents), pairs.latents + share.first
    rows = pairs.tokens * len(ends)
    for end in ends:
        rows = rows + (latents >= end)
    offsets = torch.searchsorted(rows, torch.arange(n_tokens * len(ends) + 1, device=rows.device))
    return pairs._replace(tokens=rows, row_offsets=offsets), len(ends)


def prefixes(decoded: Tensor, x: Tensor, n_prefixes: int) -> Tensor:
    """x_hat - x by prefix [token, prefix, d_in], from decoded groups [token * prefix, d_in]."""
    return decoded.view(len(x), n_prefixes, -1).cumsum(1).sub_(x.unsqueeze(1))
