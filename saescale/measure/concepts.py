"""Which concepts a dictionary has a latent for: the latent of each, chosen on one half of the documents, scored on the other.

A concept is a name in a category. On the choosing half, for every latent that fires on its occurrences and every threshold theta
(a share of the latent's maximum there),

    recall      share of the occurrences on which the latent exceeds the threshold
    precision   recall / (recall + NEGATIVES * false)            at a FIXED prevalence of 1 to NEGATIVES
    false       how often it exceeds it on other tokens: a tenth of them occurrences of the other names of the category, a
                tenth tokens that spell the end of the name and end no name, the rest any token of no name (which also
                stands in for an empty pool)
    F1          2 recall precision / (recall + precision)

and the (latent, theta) of highest F1 is the concept's (ties: smaller theta, then smaller latent). Its F1 at that threshold on the
scoring half is the score. The prevalence is fixed because at that of the text a fixed rate of false positives would fail rare
concepts and pass frequent ones by construction, and presence would rise with frequency whatever the dictionary holds.

The same function labels the controls: an untrained dictionary, single coordinates, and permuted labels (`places.permuted`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saescale.measure.firings import Activity, Codes, Concepts, Firings
from saescale.measure.places import Places

# Of the latent's maximum on the choosing half. 0 alone is unspecific in small dictionaries; without 0.75 most concepts
# of the bundled model choose the last entry.
THETAS = (0.0, 0.25, 0.5, 0.75)
MIN_PER_HALF = 10
ROWS = 500_000  # (concept, latent) rows judged at once


class Dictionary(NamedTuple):
    """`encode` maps inputs [token, d_in] to ActivePairs (SAE.encode_pairs) or to dense latents [token, n_latents]; `prompted`
    int64 [concept, candidate] are the latents most active on each concept's prompt (-1: none), None: not asked."""

    encode: Callable[[Tensor], Codes]
    n_latents: int
    thetas: tuple[float, ...] = THETAS
    prompted: np.ndarray | None = None


class Labels(NamedTuple):
    """What one dictionary holds; arrays are [concept]. Scores are nan with fewer than MIN_PER_HALF occurrences in a half."""

    latent: np.ndarray  # int64, -1: no latent fired on it
    theta: np.ndarray  # float64, nan: no latent
    recall: np.ndarray
    precision: np.ndarray
    score: np.ndarray
    f1_natural: np.ndarray  # at the prevalence of the text
    prompt_score: np.ndarray  # of the best of the prompt's latents, chosen and scored in the same way; nan: not asked
    n_alive: int  # latents that fired on any place


class Choice(NamedTuple):
    latent: np.ndarray  # int64 [concept], -1: none
    theta: np.ndarray  # int64 [concept], index into thetas


def label(dictionary: Dictionary, rows: Callable[[np.ndarray], Tensor], places: Sequence[Places], concepts: Concepts,
          progress: Callable[[float], None] = lambda _: None) -> list[Labels]:
    """The labels of one dictionary for each of `places`, which differ in their names alone (as they are, and permuted).

    `rows(places)` gives the inputs [len(places), d_in] at these indices of the places. Three passes at most: the maxima of the
    choosing half, its firings above each share of them, and the firings of the scoring half for the latents that were chosen.
    """
    members = [np.flatnonzero(places[0].choosing), np.flatnonzero(~places[0].choosing)]
    halves = [Activity(dictionary.encode, rows, m) for m in members]
    n, n_thetas = dictionary.n_latents, len(dictionary.thetas)
    share = _Share(progress, 2 * halves[0].n_blocks + halves[1].n_blocks)
    highest = np.zeros(n, dtype=np.float32)
    for _, latent, value in halves[0]:
        np.maximum.at(highest, latent, value)
        share.step()
    limits = np.float32(dictionary.thetas)[:, None] * highest
    before = [Firings(p, 0, n, n_thetas) for p in places]
    for place, latent, value in halves[0]:
        _count(before, limits, place, latent, value, np.True_)
        share.step()
    chosen = [_choose(f, concepts, *f.pairs(concepts)) for f in before]
    asked = [None if dictionary.prompted is None else _choose(f, concepts, *_listed(dictionary.prompted)) for f in before]
    wanted, alive = np.zeros(n, dtype=bool), highest > 0
    for choice in (c for c in (*chosen, *asked) if c is not None):
        wanted[choice.latent[choice.latent >= 0]] = True
    after = [Firings(p, 1, n, n_thetas) for p in places]
    for place, latent, value in halves[1]:
        alive[latent] = True
        _count(after, limits, place, latent, value, wanted[latent])
        share.step()
    few = places[0].occurrences.min(axis=0)[concepts.name] < MIN_PER_HALF
    return [_labels(dictionary, f, concepts, chosen[i], asked[i], few)._replace(n_alive=int(alive.sum()))
            for i, f in enumerate(after)]


class _Share:
    """Says after each block what share of them is done."""

    def __init__(self, progress: Callable[[float], None], total: int) -> None:
        self.progress, self.total, self.done = progress, max(total, 1), 0

    def step(self) -> None:
        self.done += 1
        self.progress(self.done / self.total)


def _count(firings: Sequence[Firings], limits: np.ndarray, place: np.ndarray, latent: np.ndarray, value: np.ndarray,
           wanted: np.ndarray) -> None:
    level = (value > limits[:, latent]).sum(axis=0)  # of [theta, latent]
    keep = (level > 0) & wanted
    for f in firings:
        f.add(place[keep], latent[keep], level[keep])


def _listed(prompted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    concept, column = np.nonzero(prompted >= 0)
    return concept, prompted[concept, column]


def _choose(firings: Firings, concepts: Concepts, concept: np.ndarray, latent: np.ndarray) -> Choice:
    """Per concept, the row and theta of highest F1 on the choosing half, of those that hit it at all."""
    category = firings.categories(concepts)
    best, theta = np.zeros(len(concept)), np.zeros(len(concept), dtype=np.int64)
    for start in range(0, len(concept), ROWS):
        part = slice(start, start + ROWS)
        f1 = firings.rates(concepts, category, concept[part], latent[part]).f1
        theta[part] = np.argmax(f1, axis=1)  # the first: the smaller theta
        best[part] = f1.max(axis=1)
    order = np.lexsort((latent, theta, -best, concept))
    order = order[best[order] > 0]
    of, first = np.unique(concept[order], return_index=True)
    chosen = Choice(np.full(len(concepts.name), -1, dtype=np.int64), np.zeros(len(concepts.name), dtype=np.int64))
    chosen.latent[of], chosen.theta[of] = latent[order[first]], theta[order[first]]
    return chosen


def _labels(dictionary: Dictionary, firings: Firings, concepts: Concepts, chosen: Choice, asked: Choice | None,
            few: np.ndarray) -> Labels:
    found = _held_out(firings, concepts, chosen, few)
    prompt = np.full(len(few), np.nan) if asked is None else _held_out(firings, concepts, asked, few)[2]
    theta = np.where(chosen.latent >= 0, np.float64(dictionary.thetas)[chosen.theta], np.nan)
    return Labels(chosen.latent, theta, *found, prompt, 0)


def _held_out(firings: Firings, concepts: Concepts, chosen: Choice, few: np.ndarray) -> list[np.ndarray]:
    """recall, precision, F1 and F1 at the text's prevalence [concept] of what was chosen; 0 where nothing was."""
    some = np.flatnonzero(chosen.latent >= 0)
    latent, theta = chosen.latent[some], chosen.theta[some]
    rates = firings.rates(concepts, firings.categories(concepts), some, latent)
    values = [rate[np.arange(len(some)), theta] for rate in rates] + [firings.natural_f1(concepts, some, latent, theta)]
    out = [np.full(len(few), np.nan) for _ in values]
    for filled, value in zip(out, values, strict=True):
        filled[~few] = 0.0
        filled[some] = np.where(few[some], np.nan, value)
    return out


def coordinates(mean: Tensor) -> Dictionary:
    """Control without a dictionary: every coordinate of the inputs about its mean [d_in], upwards and downwards, as a latent.

    Without theta = 0: a coordinate lies above its mean half of the time.
    """
    def encode(x: Tensor) -> Tensor:
        return torch.cat([x - mean, mean - x], dim=1).clamp_min_(0)

    return Dictionary(encode, 2 * len(mean), THETAS[1:])
