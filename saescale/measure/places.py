"""Which tokens of a text are looked at to label a dictionary: bounded numbers of them, whatever the length of the text.

Of each half of the documents: the occurrences of every name (PER_NAME at most), tokens of no name drawn at random (AT_RANDOM),
and tokens that spell what a name ends with and end no name (PER_ENDING for each such token). The last two and the occurrences
of the other names of a category are what precision is measured against, so that its cost does not grow with the text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from saescale.activations.occurrences import Occurrences

PER_NAME = 150  # per half: a standard error of at most 0.04 of the recall
AT_RANDOM = 60_000  # per half: false positive rates down to 1e-5
PER_ENDING = 150  # per half and token


@dataclass(frozen=True)
class Places:
    """The tokens that are looked at, in order of the stream."""

    token: np.ndarray  # int64 [place], index into the stream, ascending
    choosing: np.ndarray  # bool [place], in the half that chooses latents and thresholds; else in the half that scores them
    name: np.ndarray  # int32 [place], the name that ends here; -1: none
    ending: np.ndarray  # int32 [place], index into the distinct endings, where a name could end and none does; else -1
    at_random: np.ndarray  # bool [place], drawn among the tokens of no name
    occurrences: np.ndarray  # int64 [half (0 = choosing), name], in all of the text
    others: np.ndarray  # int64 [half], tokens of no name in all of the text
    ending_of: np.ndarray  # int32 [name], index of its ending; -1: it never occurs

    @property
    def n_names(self) -> int:
        return self.occurrences.shape[1]


def document_halves(document: np.ndarray) -> np.ndarray:
    """bool [token]: True in the half used to choose latents. All tokens of a document share a half.

    The half is the top bit of a hash (splitmix64) of the document's index.
    """
    z = (np.asarray(document).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) >> np.uint64(63) == 1


def choose_places(found: Occurrences, tokens: np.ndarray, choosing: np.ndarray, seed: int = 0) -> Places:
    """The places of a stream `tokens` [token] whose names are `found`; `choosing` bool [token] are its halves."""
    if choosing.shape != tokens.shape:
        raise ValueError(f"choosing has shape {choosing.shape}, the stream {tokens.shape}: give one half per token.")
    rng = np.random.default_rng(seed)
    endings, ending_of = np.unique(found.last_token[found.last_token >= 0], return_inverse=True)
    of_name = np.full(len(found.names), -1, dtype=np.int32)
    of_name[found.last_token >= 0] = ending_of
    name = np.full(len(tokens), -1, dtype=np.int32)
    name[found.last] = found.name
    free = np.flatnonzero(name < 0)
    picked = np.zeros(len(tokens), dtype=bool)
    picked[_at_most(found.last, found.name, choosing[found.last], PER_NAME, rng)] = True
    at_random = _at_most(free, np.zeros(len(free), np.int32), choosing[free], AT_RANDOM, rng)
    by_token = np.full(int(tokens.max(initial=0)) + 2, -1, dtype=np.int32)
    by_token[endings] = np.arange(len(endings))
    ending = by_token[tokens[free]]
    hard, ending = free[ending >= 0], ending[ending >= 0]
    hard_picked = _at_most(hard, ending, choosing[hard], PER_ENDING, rng)
    picked[at_random] = picked[hard_picked] = True
    token = np.flatnonzero(picked)
    is_random, is_hard = np.isin(token, at_random), np.isin(token, hard_picked)
    return Places(token, choosing[token], name[token], np.where(is_hard, by_token[tokens[token]], -1).astype(np.int32), is_random,
                  by_half(found.name, choosing[found.last], len(found.names)),
                  np.array([choosing[free].sum(), (~choosing[free]).sum()]), of_name)


def by_half(group: np.ndarray, choosing: np.ndarray, n_groups: int) -> np.ndarray:
    """int64 [half (0 = choosing), group]: how many there are."""
    return np.stack([np.bincount(group[side], minlength=n_groups) for side in (choosing, ~choosing)])


def _at_most(token: np.ndarray, group: np.ndarray, choosing: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """At most `limit` of the tokens of each (group, half), drawn at random."""
    order = rng.permutation(len(token))
    cell = group[order].astype(np.int64) * 2 + choosing[order]
    sort = np.argsort(cell, kind="stable")
    cell = cell[sort]
    rank = np.arange(len(cell)) - np.searchsorted(cell, cell)
    return token[order[sort[rank < limit]]]


def permuted(places: Places, seed: int = 0) -> Places:
    """The same places with as many occurrences of every name, at random among occurrences and the tokens drawn at random."""
    rng = np.random.default_rng(seed)
    name, at_random = places.name.copy(), places.at_random.copy()
    for side in (places.choosing, ~places.choosing):
        pool = np.flatnonzero(side & ((places.name >= 0) | places.at_random))
        order = rng.permutation(pool)
        name[pool], at_random[pool] = places.name[order], places.at_random[order]
    return replace(places, name=name, at_random=at_random, ending=np.where(name >= 0, -1, places.ending))
