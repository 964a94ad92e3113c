"""How often latents fire on names, on tokens that end like them, and on any token, and the recall and precision that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from saescale.measure.places import Places
from saescale.measure.tally import Table, Tally

NEGATIVES = 100.0  # tokens without the concept for each with it
HARD_SHARE = 0.1  # of the negatives, for each of the two hard pools
CHUNK = 2048
KEEP_PAIRS = 20_000_000  # activations of a half kept between its two passes; more are computed again


class ActivePairs(Protocol):
    """Activations as (token, latent, value), whatever the number of latents per token; each field is [pair]."""

    values: Tensor
    tokens: Tensor  # row of the block
    latents: Tensor


Codes = ActivePairs | Tensor
Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # place, latent, value


@dataclass(frozen=True)
class Concepts:
    """int32 [concept] each: its name (an index into those of the places) and its category."""

    name: np.ndarray
    category: np.ndarray


class Activity:
    """The activations of one dictionary at some of the places; kept after the first pass where they are few."""

    def __init__(self, encode: Callable[[Tensor], Codes], rows: Callable[[np.ndarray], Tensor], members: np.ndarray) -> None:
        self.encode, self.rows, self.members = encode, rows, members
        self._kept: list[Pairs] | None = None

    @property
    def n_blocks(self) -> int:
        return -(-len(self.members) // CHUNK)

    def __iter__(self) -> Iterator[Pairs]:
        if self._kept is not None:
            yield from self._kept
            return
        kept, n_pairs = list[Pairs](), 0
        with torch.inference_mode():
            for start in range(0, len(self.members), CHUNK):
                part = self.members[start:start + CHUNK]
                row, latent, value = active(self.encode(self.rows(part)))
                pairs = part[row], latent.astype(np.int32), value
                n_pairs += len(row)
                kept.append(pairs) if n_pairs <= KEEP_PAIRS else kept.clear()
                yield pairs
        self._kept = kept if n_pairs <= KEEP_PAIRS else None


def active(codes: Codes) -> Pairs:
    """(row, latent, value) of every positive activation of a block."""
    if isinstance(codes, Tensor):
        row, latent = torch.nonzero(codes > 0, as_tuple=True)
        return row.numpy(), latent.numpy(), codes[row, latent].float().numpy()
    positive = np.flatnonzero(codes.values.numpy() > 0)
    return codes.tokens.numpy()[positive], codes.latents.numpy()[positive], codes.values.float().numpy()[positive]


class Rates(NamedTuple):
    """float64 [row, theta] each."""

    recall: np.ndarray
    precision: np.ndarray
    f1: np.ndarray


class Firings:
    """Firings of one dictionary in one half (0 = choosing, 1 = scoring): first `add` all of them, then ask."""

    def __init__(self, places: Places, half: int, n_latents: int, n_thetas: int) -> None:
        self.places, self.half, self.n = places, half, n_latents
        self._tallies = {pool: Tally(n_thetas) for pool in ("name", "ending", "random")}
        mine = places.choosing == (half == 0)
        self.n_name = np.bincount(places.name[mine & (places.name >= 0)], minlength=places.n_names)
        n_endings = int(places.ending_of.max(initial=-1)) + 1
        self.n_ending = np.bincount(places.ending[mine & (places.ending >= 0)], minlength=n_endings + 1)
        self.n_random = int((mine & places.at_random).sum())

    def add(self, place: np.ndarray, latent: np.ndarray, level: np.ndarray) -> None:
        """Firings at these places; `level` 1 or more says how many of the thresholds each exceeds."""
        for pool, group in (("name", self.places.name), ("ending", self.places.ending)):
            on = group[place]
            inside = on >= 0
            self._tallies[pool].add(on[inside].astype(np.int64) * self.n + latent[inside], level[inside])
        drawn = self.places.at_random[place]
        self._tallies["random"].add(latent[drawn], level[drawn])

    @cached_property
    def names(self) -> Table:
        """By name * n_latents + latent; so are endings."""
        return self._tallies["name"].table()

    @cached_property
    def endings(self) -> Table:
        return self._tallies["ending"].table()

    @cached_property
    def randoms(self) -> Table:
        return self._tallies["random"].table()

    def pairs(self, concepts: Concepts) -> tuple[np.ndarray, np.ndarray]:
        """(concept, latent) of every latent that fires on a concept."""
        low = concepts.name.astype(np.int64) * self.n
        concept, row = self.names.rows(low, low + self.n)
        return concept, self.names.key[row] % self.n

    def categories(self, concepts: Concepts) -> tuple[Table, np.ndarray]:
        """Firings by category * n_latents + latent, and the places of each category."""
        low = concepts.name.astype(np.int64) * self.n
        concept, row = self.names.rows(low, low + self.n)
        key = concepts.category[concept].astype(np.int64) * self.n + self.names.key[row] % self.n
        size = np.bincount(concepts.category, self.n_name[concepts.name]).astype(np.int64)
        return Table.summed(key, self.names.counts[row]), size

    def rates(self, concepts: Concepts, category: tuple[Table, np.ndarray], concept: np.ndarray, latent: np.ndarray) -> Rates:
        """Of each (concept, latent) row at every threshold; `category` are the `categories` of these concepts."""
        name, group = concepts.name[concept].astype(np.int64), concepts.category[concept].astype(np.int64)
        ending = self.places.ending_of[name].astype(np.int64)
        own = self.names[name * self.n + latent]
        recall = own / np.maximum(self.n_name[name], 1)[:, None]
        at_random = self.randoms[latent] / max(self.n_random, 1)
        false = at_random.copy()
        for fired, size in ((category[0][group * self.n + latent] - own, category[1][group] - self.n_name[name]),
                            (self.endings[ending * self.n + latent], np.where(ending >= 0, self.n_ending[ending], 0))):
            rate = fired / np.maximum(size, 1)[:, None]
            false += np.where(size[:, None] > 0, HARD_SHARE * (rate - at_random), 0)
        precision = _share(recall, recall + NEGATIVES * false)
        return Rates(recall, precision, _share(2 * recall * precision, recall + precision))

    @cached_property
    def fired(self) -> Table:
        """By latent: firings in all of this half, what was not looked at made up by its share; float64."""
        of, latent = self.names.key // self.n, self.names.key % self.n
        weight = self.places.occurrences[self.half] / np.maximum(self.n_name, 1)
        other = self.places.others[self.half] / max(self.n_random, 1)
        counts = np.concatenate([self.names.counts * weight[of][:, None], self.randoms.counts * other])
        return Table.summed(np.concatenate([latent, self.randoms.key]), counts)

    def natural_f1(self, concepts: Concepts, concept: np.ndarray, latent: np.ndarray) -> np.ndarray:
        """float64 [row, theta]: 2 hits / (fired + occurrences) at the prevalence of the text, in this half.

        Noisy where the text is much longer than what was looked at.
        """
        name = concepts.name[concept].astype(np.int64)
        occurrences = self.places.occurrences[self.half][name][:, None]
        hits = self.names[name * self.n + latent] / np.maximum(self.n_name[name], 1)[:, None] * occurrences
        return _share(2 * hits, self.fired[latent] + occurrences)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)
