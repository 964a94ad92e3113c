"""Which concepts a dictionary has a latent for: the words to ask about, and the score of each.

A concept is a word of at least two tokens (a single token is already a direction of the residual stream, so even an
untrained dictionary finds it). Its score is the F1 of "the latent exceeds theta * its own maximum" against "this is
the last token of the word", for the best latent and theta on half of the documents, measured on the other half.

Two controls belong beside every score: the same dictionary untrained (pass its encode function: part of the effect
is geometry, a random dictionary hashes contexts) and shuffled labels (`shuffled_labels`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from saescale.measure.words import Words

# Of the latent's maximum on the choosing half. 0 alone is unspecific in small dictionaries; without 0.75 most concepts
# of the bundled model choose the last entry.
THETAS = (0.0, 0.25, 0.5, 0.75)
MIN_TOKENS = 2
MIN_PER_HALF = 10
BIN_DECADES = 0.25


class ActivePairs(Protocol):
    """Activations as (token, latent, value), whatever the number of latents per token; each field is [pair]."""

    values: Tensor
    tokens: Tensor  # row of the block
    latents: Tensor


Codes = ActivePairs | tuple[Tensor, Tensor] | Tensor


def frequency_range(sizes: Iterable[int]) -> tuple[float, float]:
    """(0.3 / n_max, 3 / n_min): where the presence of a concept can change across these dictionary sizes."""
    sizes = sorted(sizes)
    if not sizes or sizes[0] < 1:
        raise ValueError(f"sizes={sizes} are not dictionary sizes: give at least one n_latents of 1 or more.")
    return 0.3 / sizes[-1], 3.0 / sizes[0]


def document_halves(document: np.ndarray) -> np.ndarray:
    """bool [token]: True in the half used to choose latents. All tokens of a document share a half.

    The half is the top bit of a hash (splitmix64) of the document's index.
    """
    z = (np.asarray(document).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) >> np.uint64(63) == 1


def select_concepts(
    train: Words, scoring: Words, half: np.ndarray, limits: tuple[float, float], per_bin: int = 100, at_least: int = 100
) -> tuple[list[dict], np.ndarray]:
    """The concepts to score, rarest first, and the concept at each scoring token.

    `train` are the words of the tokens the dictionaries were trained on: frequency = occurrences / tokens there, and
    it must lie within `limits`. `scoring` are the words of the tokens to score on, `half` their `document_halves`.
    A concept has at least two letters, two tokens in every spelling, and MIN_PER_HALF occurrences in each half.
    At most `per_bin` are kept per quarter decade of frequency, by a hash of the name, so another corpus of the same
    kind keeps most of them.

    Returns ([{"name", "n_tokens", "count", "frequency"}], int32 [token] index into that list, -1 = none).
    """
    if half.shape != (scoring.n_stream,):
        raise ValueError(f"half has shape {half.shape}, the scoring stream {scoring.n_stream} tokens: give one each.")
    count = np.bincount(train.name, minlength=len(train.names))
    in_train = {name: i for i, name in enumerate(train.names)}
    to_train = np.array([in_train.get(name, -1) for name in scoring.names], dtype=np.int64)
    frequency = np.append(count, 0)[to_train] / max(train.n_stream, 1)  # -1, not in the training tokens, reads the 0
    fit = (frequency >= max(limits[0], 1e-300)) & (frequency <= limits[1]) & _scorable(scoring, half)
    fit[fit] &= train.fewest_tokens[to_train[fit]] >= MIN_TOKENS
    kept = _spread(np.flatnonzero(fit), frequency, scoring.names, per_bin)
    if len(kept) < at_least:
        raise ValueError(
            f"{len(kept)} words of {MIN_TOKENS} or more tokens occur {limits[0]:.1e} to {limits[1]:.1e} times a token "
            f"and {MIN_PER_HALF} times in each half of {scoring.n_stream} scoring tokens; {at_least} are needed. "
            "Score on more tokens, or add a larger dictionary: rarer words then count."
        )
    concepts = [
        {"name": scoring.names[i], "n_tokens": int(train.n_tokens[to_train[i]]), "count": int(count[to_train[i]]),
         "frequency": float(frequency[i])}
        for i in kept
    ]  # fmt: skip
    concept_of_name = np.full(len(scoring.names), -1, dtype=np.int32)
    concept_of_name[kept] = np.arange(len(kept))
    concept_of = np.full(scoring.n_stream, -1, dtype=np.int32)
    concept_of[scoring.last] = concept_of_name[scoring.name]
    return concepts, concept_of


def _scorable(scoring: Words, half: np.ndarray) -> np.ndarray:
    """bool [name]: two letters, MIN_TOKENS in every spelling, MIN_PER_HALF occurrences in each half."""
    in_a = np.bincount(scoring.name[half[scoring.last]], minlength=len(scoring.names))
    in_b = np.bincount(scoring.name, minlength=len(scoring.names)) - in_a
    letters = np.array([sum(map(str.isalpha, name)) for name in scoring.names], dtype=np.int64)
    return (np.minimum(in_a, in_b) >= MIN_PER_HALF) & (scoring.fewest_tokens >= MIN_TOKENS) & (letters >= 2)


def _spread(candidates: np.ndarray, frequency: np.ndarray, names: list[str], per_bin: int) -> np.ndarray:
    """At most `per_bin` candidates per bin of log frequency, first by the hash of their names; rarest first."""
    order = sorted(candidates.tolist(), key=lambda i: hashlib.sha256(names[i].encode()).digest())
    bins: dict[int, list[int]] = {}
    for i in order:
        bins.setdefault(int(np.floor(np.log10(frequency[i]) / BIN_DECADES)), []).append(i)
    kept = [i for members in bins.values() for i in members[:per_bin]]
    return np.array(sorted(kept, key=lambda i: (frequency[i], names[i])), dtype=np.int64)


def shuffled_labels(concept_of: np.ndarray, half: np.ndarray, seed: int = 0) -> np.ndarray:
    """Control: the same number of occurrences of every concept in each half, at random positions."""
    rng = np.random.default_rng(seed)
    shuffled = np.array(concept_of)
    for side in (half, ~half):
        shuffled[side] = rng.permutation(concept_of[side])
    return shuffled


def score_dictionary(
    encode: Callable[[Tensor], Codes],
    blocks: Iterable[Tensor],
    half: np.ndarray,
    concept_of: np.ndarray,
    n_latents: int,
) -> dict:
    """Held-out F1 of every concept's best latent in one dictionary.

    `encode` maps a block [token, d_in] to ActivePairs (SAE.encode_pairs), to (values, indices), both [token, k]
    (SAE.encode_sparse), or to dense latents [token, n_latents] (SAE.encode). `blocks` are the scoring activations in
    order; `half` bool [token] and `concept_of` int32 [token] are theirs.
    On the half where `half` is True: threshold = theta * the latent's maximum there; the (latent, theta) of highest
    F1 = 2 hits / (fired + occurrences) is chosen for each concept (ties: smaller theta, then smaller latent). `f1`
    is that latent's F1 at that same threshold on the other half.

    Returns arrays [concept]: f1 (nan with fewer than MIN_PER_HALF occurrences in a half), f1_choosing, latent (-1: no
    latent fired on it), theta; and n_alive, the latents that fired anywhere in the blocks.
    """
    firings = _Firings(n_latents)
    done = 0
    with torch.inference_mode():
        for block in blocks:
            rows = slice(done, done + len(block))
            done = rows.stop
            if done > min(len(half), len(concept_of)):
                break
            firings.add(encode(block), half[rows], concept_of[rows])
    if done != len(half) or len(concept_of) != len(half):
        raise ValueError(
            f"half has {len(half)} labels, concept_of {len(concept_of)}, the blocks {done} tokens or more: "
            "give one per token."
        )
    return firings.scores(_counts(half, concept_of))


def _counts(half: np.ndarray, concept_of: np.ndarray) -> np.ndarray:
    """Occurrences [half (0 = choosing), concept]."""
    n_concepts = int(concept_of.max(initial=-1)) + 1
    sides = [concept_of[side & (concept_of >= 0)] for side in (half, ~half)]
    return np.stack([np.bincount(c, minlength=n_concepts) for c in sides])


def _active(codes: Codes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, latent, value) of every positive activation of a block."""
    if isinstance(codes, Tensor):
        row, latent = torch.nonzero(codes > 0, as_tuple=True)
        return row.numpy(), latent.numpy(), codes[row, latent].float().numpy()
    if isinstance(codes, tuple) and len(codes) == 2:
        values, indices = codes
        rows = torch.arange(len(values)).repeat_interleave(values.shape[1])
        values, latents = values.reshape(-1), indices.reshape(-1)
    else:
        values, rows, latents = codes.values, codes.tokens, codes.latents
    positive = np.flatnonzero(values.numpy() > 0)
    return rows.numpy()[positive], latents.numpy()[positive], values.float().numpy()[positive]


@dataclass
class _Firings:
    """Sparse counts of one dictionary in one pass over its codes."""

    n_latents: int
    n_fired: np.ndarray = field(init=False)  # int64 [half, latent], activations above 0
    highest: np.ndarray = field(init=False)  # float32 [latent], maximum on the choosing half so far
    strong: list = field(default_factory=list)  # (other half?, latent, value) that may pass a threshold above 0
    on_concept: list = field(default_factory=list)  # (other half?, latent, value, concept), at every concept's token

    def __post_init__(self) -> None:
        self.n_fired = np.zeros((2, self.n_latents), dtype=np.int64)
        self.highest = np.zeros(self.n_latents, dtype=np.float32)

    def add(self, codes: Codes, half: np.ndarray, concept_of: np.ndarray) -> None:
        row, latent, value = _active(codes)
        latent = latent.astype(np.int32)
        other = ~half[row]
        for side, mine in enumerate((~other, other)):
            self.n_fired[side] += np.bincount(latent[mine], minlength=self.n_latents)
        np.maximum.at(self.highest, latent[~other], value[~other])
        # The maximum only grows, so what is below the smallest threshold now stays below it: memory stays small.
        may_pass = value > min(t for t in THETAS if t > 0) * self.highest[latent]
        self.strong.append((other[may_pass], latent[may_pass], value[may_pass]))
        concept = concept_of[row]
        on = concept >= 0
        self.on_concept.append((other[on], latent[on], value[on], concept[on]))

    def _fired(self) -> np.ndarray:
        """int64 [theta, half, latent]: activations above theta * highest."""
        fired = np.zeros((len(THETAS), *self.n_fired.shape), dtype=np.int64)
        for t, theta in enumerate(THETAS):
            if theta == 0:
                fired[t] = self.n_fired
                continue
            for other, latent, value in self.strong:
                above = value > np.float32(theta) * self.highest[latent]
                cell = other[above] * self.n_latents + latent[above]
                fired[t] += np.bincount(cell, minlength=2 * self.n_latents).reshape(2, -1)
        return fired

    def scores(self, occurrences: np.ndarray) -> dict:
        fired = self._fired()
        other, latent, value, concept = (np.concatenate(part) for part in zip(*self.on_concept, strict=True))
        own = ~other
        latent_of, theta_of, f1_choosing = self._choose(latent[own], value[own], concept[own], fired, occurrences[0])
        limit = np.float32(THETAS)[theta_of] * self.highest[latent_of]
        hit = other & (latent == latent_of[concept]) & (value > limit[concept])
        hits = np.bincount(concept[hit], minlength=len(latent_of))
        f1 = 2.0 * hits / np.maximum(fired[theta_of, 1, latent_of] + occurrences[1], 1)
        none = latent_of < 0
        f1[none] = 0.0
        f1[occurrences.min(axis=0) < MIN_PER_HALF] = np.nan
        return {
            "f1": f1,
            "f1_choosing": f1_choosing,
            "latent": latent_of,
            "theta": np.where(none, np.nan, np.float64(THETAS)[theta_of]),
            "n_alive": int((self.n_fired.sum(axis=0) > 0).sum()),
        }

    def _choose(self, latent, value, concept, fired, occurrences) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Latent, index of theta and F1 of the best pair of every concept, over the pairs that hit it at all."""
        rows = []
        for t, theta in enumerate(THETAS):
            above = value > np.float32(theta) * self.highest[latent]
            cell, hits = np.unique(concept[above].astype(np.int64) * self.n_latents + latent[above], return_counts=True)
            of, with_latent = cell // self.n_latents, cell % self.n_latents
            f1 = 2.0 * hits / (fired[t, 0, with_latent] + occurrences[of])
            rows.append(np.stack([of, -f1, np.full(len(of), t), with_latent]))
        table = np.concatenate(rows, axis=1)
        table = table[:, np.lexsort(table[::-1])]
        best_of, first = np.unique(table[0].astype(np.int64), return_index=True)
        latent_of = np.full(len(occurrences), -1, dtype=np.int64)
        theta_of = np.zeros(len(occurrences), dtype=np.int64)
        f1_choosing = np.zeros(len(occurrences))
        latent_of[best_of], theta_of[best_of] = table[3, first].astype(np.int64), table[2, first].astype(np.int64)
        f1_choosing[best_of] = -table[1, first]
        return latent_of, theta_of, f1_choosing


def concepts_record(corpus: str, concepts: list[dict], dictionaries: list[dict], results: list[dict]) -> dict:
    """The contents of runs/<sweep>/concepts.json, which analysis/presence reads.

    `dictionaries` [{"run_id", "n_latents", "n_alive", "seed", "trained"}] and `results` (of `score_dictionary`) in one
    order. A concept with too few occurrences in a half has the score null.
    """
    if len(dictionaries) != len(results):
        raise ValueError(f"{len(dictionaries)} dictionaries, {len(results)} results: give one result per dictionary.")
    if any(len(result["f1"]) != len(concepts) for result in results):
        raise ValueError(f"A result does not score {len(concepts)} concepts: give results on one list of concepts.")
    return {
        "schema": 1,
        "definition": {
            "thetas": list(THETAS),
            "min_tokens": MIN_TOKENS,
            "min_per_half": MIN_PER_HALF,
            "score": "F1 at the word's last token, on the half of the documents not used to choose latent and theta",
            "frequency": "occurrences by token sequence / tokens the dictionaries were trained on",
        },
        "corpus": corpus,
        "dictionaries": dictionaries,
        "concepts": concepts,
        "scores": [[None if np.isnan(s) else round(float(s), 6) for s in result["f1"]] for result in results],
    }
