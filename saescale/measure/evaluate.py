"""What a trained dictionary is worth, on one fixed held-out set that is the same for every run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saescale.activations.live import Source
from saescale.activations.lm import LanguageModel
from saescale.activations.tokens import TokenSplit
from saescale.measure import metrics
from saescale.sae.model import SAE

CHUNK = 2048
LM_METRICS = ("ce_clean", "ce_with_sae", "ce_zero_ablated", "delta_ce", "ce_recovered")


@dataclass(frozen=True)
class HeldOut:
    """The held-out set at mean square norm d_in, and the language model's losses around it (None: synthetic, no losses).

    `eval_block`: n_tokens (rounded up to whole forward batches) and ce_tokens of it for the language model.
    """

    tokens: TokenSplit
    source: Source
    lm: LanguageModel | None
    scale: float
    eval_block: dict[str, int]

    @cached_property
    def n_batches(self) -> int:
        return self.tokens.batches_for(self.eval_block["n_tokens"])

    @cached_property
    def x(self) -> Tensor:
        """float32 [token, d_in]."""
        return torch.cat([self.source.batch(i) for i in range(self.n_batches)]).mul_(self.scale)

    @cached_property
    def documents(self) -> Tensor:
        return torch.from_numpy(self.tokens.flat(self.n_batches).documents.astype(np.int64))

    @cached_property
    def mean(self) -> Tensor:
        return self.x.double().mean(0).float()

    @cached_property
    def ce_batches(self) -> list[tuple[Tensor, Tensor]]:
        """(token ids [sequence, n_ctx], kept positions) of the forward batches the language model is scored on."""
        chosen = range(self.tokens.batches_for(self.eval_block["ce_tokens"]))
        return [(torch.from_numpy(np.array(self.tokens.batch(i))).long(), torch.from_numpy(self.tokens.kept(i))) for i in chosen]

    @cached_property
    def ce_documents(self) -> Tensor:
        """Document of every scored prediction: one from each kept position whose next token is text too."""
        n = self.tokens.batch_sequences
        rows = [torch.from_numpy(self.tokens.documents[i * n:(i + 1) * n].astype(np.int64))[:, None].expand(*kept.shape)[:, :-1][
            kept[:, :-1] & kept[:, 1:]] for i, (_, kept) in enumerate(self.ce_batches)]
        return torch.cat(rows)

    def losses(self, replace: Any, everywhere: bool = False) -> Tensor:
        """Token losses [prediction] in nats; `replace` maps activations [token, d_in] (unscaled) at the kept positions, or
        everywhere, None leaves them."""
        out = []
        for ids, kept in self.ce_batches:
            def patch(value: Tensor, kept: Tensor = kept) -> Tensor:
                value = value.clone()
                at = torch.ones_like(kept) if everywhere else kept
                value[at] = replace(value[at])
                return value

            losses = self.lm.token_losses(ids, None if replace is None else patch)
            out.append(losses[kept[:, :-1] & kept[:, 1:]])
        return torch.cat(out)

    @cached_property
    def ce_clean(self) -> Tensor:
        return self.losses(None)

    @cached_property
    def ce_zero_ablated(self) -> Tensor:
        """Zero at every position, also where no SAE stands, as the evaluators of SAELens and dictionary_learning do."""
        return self.losses(torch.zeros_like, everywhere=True)


class Firing(NamedTuple):
    """What each latent did over the held-out set: position at which it first fired (-1: never), tokens on which it fired."""

    first: Tensor  # int64 [n_latents]
    count: Tensor  # int64 [n_latents]


@torch.no_grad()
def evaluate(sae: SAE, held_out: HeldOut) -> tuple[dict[str, float | None], Firing]:
    """All metrics of the record, with the exported inference function, and when and how often each latent fired.

    The SAE encodes where it lies, CHUNK tokens at a time; the held-out set and what is counted stay on the host.
    """
    x, documents = held_out.x, held_out.documents
    first, count = torch.full((sae.n_latents,), len(x), dtype=torch.int64), torch.zeros(sae.n_latents, dtype=torch.int64)
    errors, objectives, l0 = [], [], []
    for start in range(0, len(x), CHUNK):
        error, objective, latents, tokens = on_host(sae, x[start:start + CHUNK])
        errors.append(error)
        objectives.append(objective)
        first.scatter_reduce_(0, latents, tokens + start, "amin")
        count += torch.bincount(latents, minlength=sae.n_latents)
        l0.append(torch.bincount(tokens, minlength=len(error)))
    first[first == len(x)] = -1
    error, one = torch.cat(errors), torch.ones(len(x), dtype=torch.float64)
    spread = metrics.squared_error(x, held_out.mean)
    found = {
        "objective": metrics.ratio(torch.cat(objectives), spread, documents),
        "fvu": metrics.ratio(error, spread, documents),
        "mse": metrics.ratio(error / x.shape[1], one, documents),
        "l0": metrics.ratio(torch.cat(l0), one, documents),
        **_language_model(sae, held_out),
    }
    numbers = {k: r.value for k, r in found.items()} | {f"{k}_se": r.se for k, r in found.items()}
    numbers |= {"variance": float(spread.mean() / x.shape[1]), "n_held_out_tokens": len(x),
                "n_documents": len(documents.unique()), "n_ce_tokens": len(held_out.ce_documents) if held_out.lm else 0}
    return {k: v if math.isfinite(v) else None for k, v in numbers.items()}, Firing(first, count)


def on_host(sae: SAE, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of x [token, d_in] on the host, encoded where the SAE lies: squared error [token], objective [token], and latent and token
    of every active pair [pair], all on the host again."""
    x = x.to(sae.W_dec.device)
    pairs = sae.encode_pairs(x)
    x_hat = sae.decode_pairs(pairs)
    active = pairs.values > 0
    found = metrics.squared_error(x, x_hat), sae.objective(x, x_hat, pairs), pairs.latents[active], pairs.tokens[active]
    return tuple(tensor.cpu() for tensor in found)


def _language_model(sae: SAE, held_out: HeldOut) -> dict[str, metrics.Ratio]:
    """Losses in nats per token with the activations as they are, replaced by the reconstruction, and zeroed."""
    if held_out.lm is None:
        return dict.fromkeys(LM_METRICS, metrics.Ratio(math.nan, math.nan))

    def reconstruct(rows: Tensor) -> Tensor:
        return (sae.reconstruct((rows * held_out.scale).to(sae.W_dec.device)) / held_out.scale).to(rows.device)

    clean, zero, documents = held_out.ce_clean, held_out.ce_zero_ablated, held_out.ce_documents
    spliced = held_out.losses(reconstruct)
    one = torch.ones(len(clean))
    return {"ce_clean": metrics.ratio(clean, one, documents), "ce_with_sae": metrics.ratio(spliced, one, documents),
            "ce_zero_ablated": metrics.ratio(zero, one, documents),
            "delta_ce": metrics.ratio(spliced - clean, one, documents),
            "ce_recovered": metrics.ce_recovered(clean, spliced, zero, documents)}
