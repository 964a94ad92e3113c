"""What steering by a concept's latent does to the probability of the concept's name, beside controls.

The same places of held-out text are used for every concept and dictionary: places where some word begins. There the name's
log-probability (all its tokens, the latent clamped over prefix and name) is compared with that of the model left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saescale.activations.lm import LanguageModel
from saescale.activations.tokens import TokenSplit
from saescale.measure.latents import activities
from saescale.measure.steer import activation, push
from saescale.measure.subject import Subject
from saescale.sae.model import SAE

PREFIX_TOKENS, N_PREFIXES = 32, 24
SCALES = (-10.0, -5.0, -2.0, -1.0, 0.0, 1.0, 2.0, 5.0, 10.0)
ARMS = ("trained", "other", "random", "untrained")
RANDOM_SEED = 20_260_201  # of the random directions


def prefixes(split: TokenSplit, pieces: Sequence[str], bos: int | None, n: int = N_PREFIXES, seed: int = 0) -> Tensor:
    """int64 [n, PREFIX_TOKENS]: BOS and the tokens before a place where a word begins, each from another sequence of the split.

    Raises ValueError when the text has fewer than two such places.
    """
    begins = np.array([len(p) > 1 and p[0] == " " and p[1].isalpha() for p in pieces])
    head = [] if bos is None else [bos]
    width = PREFIX_TOKENS - len(head)
    rng, found = np.random.default_rng(seed), []
    for i in rng.permutation(len(split.sequences)):
        places = np.arange(width + 1, split.lengths[i])
        places = places[begins[split.sequences[i, places]]] if len(places) else places
        if len(places):
            p = int(rng.choice(places))
            found.append([*head, *split.sequences[i, p - width:p].tolist()])
        if len(found) == n:
            break
    if len(found) < 2:
        raise ValueError(f"the held-out text has {len(found)} sequences with a word after {width} tokens: two or more are "
                         "needed. Use longer windows (data.n_ctx) or more text.")
    return torch.tensor(found)


def name_ids(tokenizer: Any, name: str) -> list[int]:
    """The tokens that spell a name after a space. Raises ValueError when the vocabulary cannot."""
    for text in (f" {name}", name):
        ids = tokenizer.encode(text, add_special_tokens=False)
        spelled = tokenizer.decode([*tokenizer.encode("a", add_special_tokens=False), *ids])
        if ids and spelled.strip() == f"a {name}":
            return ids
    raise ValueError(f"the concept {name!r} cannot be spelled after a space in this model's vocabulary.")


def log_probability(lm: LanguageModel, rows: Tensor, n_name: int, replace: Any = None) -> Tensor:
    """[sequence]: log-probability (nats) of the last n_name tokens of rows [sequence, position], given what is before them."""
    return -lm.token_losses(rows, replace)[:, -n_name:].sum(1)


def effect(lm: LanguageModel, rows: Tensor, n_name: int, amounts: Tensor, direction: Tensor) -> np.ndarray:
    """[scale, prefix]: change of the name's log-probability when amounts [scale, prefix, position] of direction are added."""
    clean = log_probability(lm, rows, n_name)
    hook = push(direction, amounts.flatten(0, 1))
    steered = log_probability(lm, rows.repeat(len(amounts), 1), n_name, hook).view(len(amounts), -1)
    return (steered - clean).double().numpy()


def amounts(scales: Sequence[float], highest: float, f: Tensor) -> Tensor:
    """[scale, prefix, position]: what clamping to each multiple of the maximum adds, given activations f [prefix, position]."""
    return torch.tensor(scales, dtype=f.dtype)[:, None, None] * highest - f


def random_direction(like: Tensor, index: int) -> Tensor:
    """A random direction as long as `like` [d_in], the same for the same index."""
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(RANDOM_SEED + index))
    return drawn * (like.norm() / drawn.norm())


def maxima(sae: SAE, subject: Subject, latents: Sequence[int]) -> dict[int, float]:
    """The largest activation of some latents over the subject's text."""
    found = activities(sae, subject.blocks(), list(dict.fromkeys(latents)))
    return {latent: activity.highest for latent, activity in found.items()}


class Steering:
    """Effects of one dictionary's latents on concepts: arm by arm, over one set of scales and places."""

    def __init__(self, subject: Subject, scales: Sequence[float] = SCALES, n_prefixes: int = N_PREFIXES) -> None:
        self.subject, self.scales = subject, list(scales)
        split, bos = subject.inputs.corpus.held_out, subject.folder.bos_token_id
        self.prefixes = prefixes(split, subject.text.pieces, bos, n_prefixes)

    def of(self, sae: SAE, latent: int, highest: float, concept: str, random: int | None = None) -> dict[str, Any]:
        """The change of the concept's log-probability by scale, on the first and on the second half of the places.

        `random`: instead of the latent's direction the random one of that index, as long and added in the same amounts.
        """
        name = name_ids(self.subject.tokenizer, concept)
        rows = torch.cat([self.prefixes, torch.tensor(name).repeat(len(self.prefixes), 1)], 1)
        lm, direction = self.subject.lm, sae.W_dec[latent]
        with torch.inference_mode():
            x = lm.activations(rows)
            added = amounts(self.scales, highest, activation(sae, latent, x))
            if random is not None:
                direction = random_direction(direction, random)
            found = effect(lm, rows, len(name), added, direction)
            size = added[:, :, 1:].abs().mean((1, 2)) * direction.norm() / x[:, 1:].norm(dim=2).mean()
        half = len(self.prefixes) // 2
        return {"first": found[:, :half].mean(1).round(5).tolist(), "second": found[:, half:].mean(1).round(5).tolist(),
                "relative_size": [round(float(s), 4) for s in size]}
