"""Cards of latents: where each fires most, how its activations are spread, what it writes, and what it became in other sizes.

A card is made of one pass over the activations of a text, for as many latents of a dictionary as are asked for; what is kept in
memory is where those latents fire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saescale.measure.contexts import Activity, Text, context
from saescale.records.latents import CARD_SCHEMA
from saescale.sae.model import SAE

N_TOP, N_BUCKETS, PER_BUCKET, N_BINS = 12, 5, 3, 20
N_LOGITS, N_NEAREST = 10, 5
SAME_DIRECTION = 0.7  # decoder cosine from which a latent of another dictionary counts as one that this latent became
RESIDUAL = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")  # hooks whose directions the unembedding can read


def activities(sae: SAE, blocks: Iterable[Tensor], latents: Sequence[int]) -> dict[int, Activity]:
    """Where each of `latents` fires over blocks [token, d_in], which the SAE takes as they are, in one pass."""
    check_latents(sae.n_latents, latents)
    place = torch.full((sae.n_latents,), -1, dtype=torch.int64)
    place[torch.tensor(list(latents), dtype=torch.int64)] = torch.arange(len(latents))
    found, done = [], 0
    with torch.inference_mode():
        for block in blocks:
            pairs = sae.encode_pairs(block)
            of = place[pairs.latents]
            chosen = (of >= 0) & (pairs.values > 0)
            found.append((of[chosen].numpy(), pairs.tokens[chosen].numpy() + done, pairs.values[chosen].float().numpy()))
            done += len(block)
    of, positions, values = (np.concatenate(part) for part in zip(*found, strict=True))
    return {latent: Activity(positions[of == i], values[of == i], done) for i, latent in enumerate(latents)}


def check_latents(n_latents: int, latents: Sequence[int]) -> None:
    if not latents or len(set(latents)) != len(latents):
        raise ValueError(f"latents {list(latents)}: give one or more, each once.")
    outside = [i for i in latents if not 0 <= i < n_latents]
    if outside:
        raise ValueError(f"latent {outside[0]} does not exist: this dictionary has {n_latents}, numbered 0 to {n_latents - 1}.")


def examples(text: Text, activity: Activity, seed: int = 0) -> dict[str, Any]:
    """Top contexts, histogram and samples by strength of one latent.

    top      the N_TOP sequences with the highest activation, one place each (ties: the earlier), so that one document that
             repeats a line does not fill the card
    buckets  N_BUCKETS equal intervals (low, high] from 0 to the maximum, with their counts and PER_BUCKET places drawn at random
    """
    highest, positions, values = activity.highest, activity.positions, activity.values
    order = np.lexsort((positions, -values))
    _, first = np.unique(text.tokens.sequences[positions[order]], return_index=True)
    top = positions[order][np.sort(first)[:N_TOP]]
    share = values / np.float32(highest or 1.0)
    bucket = np.minimum(np.ceil(share * N_BUCKETS).astype(int) - 1, N_BUCKETS - 1)
    rng = np.random.default_rng(seed)
    buckets = []
    for b in range(N_BUCKETS):
        inside = positions[bucket == b]
        drawn = np.sort(rng.choice(inside, min(PER_BUCKET, len(inside)), replace=False))
        buckets.append({"low": highest * b / N_BUCKETS, "high": highest * (b + 1) / N_BUCKETS, "n": len(inside),
                        "examples": [context(text, activity, int(p)) for p in drawn]})
    bins = np.minimum(np.ceil(share * N_BINS).astype(int) - 1, N_BINS - 1)
    return {"n_fired": len(positions), "firing_rate": len(positions) / activity.n_tokens, "max": highest,
            "state": "alive" if len(positions) else "silent", "histogram": np.bincount(bins, minlength=N_BINS).tolist(),
            "top": [context(text, activity, int(p)) for p in top], "buckets": buckets}


def unit_rows(W_dec: Tensor) -> Tensor:
    """[latent, d_in] with rows of length 1; a row of zeros stays one."""
    return W_dec / W_dec.norm(dim=1, keepdim=True).clamp_min(1e-30)


def neighbours(directions: Tensor, others: Tensor) -> list[dict[str, Any]]:
    """For each of directions [m, d_in]: the latents of another dictionary, others [latent, d_in], nearest by decoder cosine."""
    cosine = unit_rows(directions) @ unit_rows(others).T
    values, latents = cosine.topk(min(N_NEAREST, len(others)), dim=1)
    n_same = (cosine >= SAME_DIRECTION).sum(1)
    return [{"n_same_direction": int(n), "same_direction_from": SAME_DIRECTION,
             "nearest": [[int(i), round(float(c), 4)] for c, i in zip(*row, strict=True)]}
            for n, *row in zip(n_same, values, latents, strict=True)]


def logit_effects(effects: Tensor, pieces: Sequence[str]) -> dict[str, list]:
    """The tokens a direction raises and lowers most, of its direct effects [vocabulary]: [[token, effect], ...] each."""
    n = min(N_LOGITS, len(effects))
    sides = {"top": effects.topk(n), "bottom": effects.topk(n, largest=False)}
    return {side: [[pieces[int(i)], round(float(v), 4)] for v, i in zip(*found, strict=True)] for side, found in sides.items()}


@dataclass(frozen=True)
class Relative:
    """Another dictionary of the sweep, to look for a latent in."""

    run_id: str
    seed: int
    W_dec: Tensor


def cards(sae: SAE, text: Text, blocks: Iterable[Tensor], latents: Sequence[int], relatives: Iterable[Relative],
          direct: Callable[[Tensor], Tensor] | None) -> list[dict[str, Any]]:
    """What can be said of each of `latents` of one dictionary, all but what it is called by (`described`).

    `relatives` are read one after another, so that one of them is in memory at a time. `direct` maps directions [m, d_in] to
    logits [m, vocabulary] (LanguageModel.direct_logits); None where the hook does not write into the residual stream.
    """
    found = activities(sae, blocks, latents)
    if next(iter(found.values())).n_tokens != len(text):
        raise ValueError(f"{len(text)} tokens of text for {next(iter(found.values())).n_tokens} activations: give one for each.")
    directions = sae.W_dec[torch.tensor(list(latents))]
    effects = [None] * len(latents) if direct is None else list(direct(directions))
    near = [[{"run_id": r.run_id, "n_latents": len(r.W_dec), "seed": r.seed, **said} for said in neighbours(directions, r.W_dec)]
            for r in relatives]
    return [{**examples(text, found[latent]),
             "decoder_norm": float(directions[i].norm()),
             "logits": None if effects[i] is None else logit_effects(effects[i], text.pieces),
             "neighbours": [of_all[i] for of_all in near]}
            for i, latent in enumerate(latents)]


def described(card: Mapping[str, Any], run_id: str, latent: int, science: Mapping[str, Any], text: Mapping[str, Any],
              concept: Mapping[str, Any] | None) -> dict[str, Any]:
    """The card as it is stored: whose latent, on which text, and the concept whose best latent it is (None: not asked)."""
    return {"schema": CARD_SCHEMA, "run_id": run_id, "latent": latent, "kind": science["sae"]["kind"],
            "n_latents": science["sae"]["n_latents"], "seed": science["train"]["seed"], "hook_name": science["lm"]["hook_name"],
            "n_tokens_trained": science["train"]["n_tokens"], "text": dict(text),
            "concept": None if concept is None else dict(concept), **card}
