"""The features of a synthetic corpus as concepts: how often each fires, where, and in groups in which they seldom meet.

The labeller of real models knows one name per token; several features fire on every synthetic one. So features are labelled in
groups that together fire on GROUP_RATE of the tokens at most: inside a group a token has one feature, the few with two are left
out, and every other token stands for "without". A feature more frequent than that is a group of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saescale.activations.occurrences import Occurrences
from saescale.activations.synthetic import SyntheticSource

GROUP_RATE = 0.5
PER_BIN = 100  # features asked about per quarter decade of frequency, as of words
BIN_DECADES = 0.25


@dataclass(frozen=True)
class Features:
    """What fires in the training text, and which features are asked about."""

    count: np.ndarray  # int64 [feature], firings in the whole training text
    n_tokens: int  # of it
    asked: np.ndarray  # int64 [concept], features by falling frequency
    token: np.ndarray  # int64 [firing], of asked features in the scored beginning of the text
    concept: np.ndarray  # int32 [firing], index into asked
    n_scored: int  # tokens that are scored

    @property
    def frequency(self) -> np.ndarray:
        """float64 [concept]."""
        return self.count[self.asked] / self.n_tokens

    @classmethod
    def of(cls, source: SyntheticSource, n_batches: int, limits: tuple[float, float]) -> Features:
        """Features whose frequency lies within `limits`, at most PER_BIN per quarter decade; the first `n_batches` are scored."""
        size = source.settings["batch_tokens"]
        count = np.zeros(len(source.truth.rates), dtype=np.int64)
        kept = []
        for index in range(source.n_batches):
            token, feature = source.fired(index)
            count += np.bincount(feature, minlength=len(count))
            if index < n_batches:
                kept.append((token + index * size, feature.astype(np.int32)))
        asked = _spread(count / source.n_tokens, limits)
        concept_of = np.full(len(count), -1, dtype=np.int32)
        concept_of[asked] = np.arange(len(asked))
        token, feature = (np.concatenate(part) for part in zip(*kept, strict=True))
        concept = concept_of[feature]
        inside = concept >= 0
        return cls(count, source.n_tokens, asked, token[inside], concept[inside], n_batches * size)

    def groups(self) -> list[np.ndarray]:
        """Concepts [member] of each group."""
        out, rate = [], np.inf
        for concept, frequency in enumerate(self.frequency):
            if rate + frequency > GROUP_RATE:
                out.append([])
                rate = 0.0
            out[-1].append(concept)
            rate += frequency
        return [np.array(members) for members in out]

    def occurrences(self, members: np.ndarray) -> tuple[Occurrences, np.ndarray]:
        """(firings of the members of a group on tokens where just one of them fires, bool [token] where two or more do)."""
        index = np.full(len(self.asked), -1, dtype=np.int32)
        index[members] = np.arange(len(members))
        mine = index[self.concept] >= 0
        token, name = self.token[mine], index[self.concept[mine]]
        crowded = np.bincount(token, minlength=self.n_scored) > 1
        alone = ~crowded[token]
        token, name = token[alone], name[alone]
        one, names = np.ones(len(members), dtype=np.int32), [str(self.asked[m]) for m in members]
        return Occurrences(names, token, name, np.zeros(len(token), bool), one, one, -one), crowded


def _spread(frequency: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Features within the limits, evenly over the ranks of each bin, most frequent first."""
    inside = np.flatnonzero((frequency >= max(limits[0], 1e-300)) & (frequency <= limits[1]))
    inside = inside[np.argsort(-frequency[inside], kind="stable")]
    bins = np.floor(np.log10(frequency[inside]) / BIN_DECADES)
    kept = []
    for value in np.unique(bins):
        here = inside[bins == value]
        kept.append(here[np.unique(np.linspace(0, len(here) - 1, min(PER_BIN, len(here))).round().astype(int))])
    return np.concatenate(kept[::-1]) if kept else inside
