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

from saescale.measure.firings import Activity, Codes, Concepts, Firings, Rates
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
    f1_natural: np.ndarray  # F1 at the prevalence of the text, of the latent and threshold that are best by that measure
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
    chosen = [_choices(dictionary, f, concepts) for f in before]
    wanted, alive = np.zeros(n, dtype=bool), highest > 0
    for choice in (c for choices in chosen for c in choices if c is not None):
        wanted[choice.latent[choice.latent >= 0]] = True
    after = [Firings(p, 1, n, n_thetas) for p in places]
    for place, latent, value in halves[1]:
        alive[latent] = True
        _count(after, limits, place, latent, value, wanted[latent])
        share.step()
    few = places[0].occurrences.min(axis=0)[concepts.name] < MIN_PER_HALF
    return [_labels(dictionary, f, concepts, chosen[i], few)._replace(n_alive=int(alive.sum())) for i, f in enumerate(after)]


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


class Choices(NamedTuple):
    """By F1 at the fixed prevalence, by F1 at the text's, and by the first among the latents of a prompt (None: not asked)."""

    fixed: Choice
    natural: Choice
    prompt: Choice | None


Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of rows (concept, latent) to F1 [row, theta]


def _choices(dictionary: Dictionary, firings: Firings, concepts: Concepts) -> Choices:
    fixed, natural = _measures(firings, concepts)
    pairs, n = firings.pairs(concepts), len(concepts.name)
    prompt = None
    if dictionary.prompted is not None:
        concept, column = np.nonzero(dictionary.prompted >= 0)
        prompt = _choose(fixed, n, concept, dictionary.prompted[concept, column])
    return Choices(_choose(fixed, n, *pairs), _choose(natural, n, *pairs), prompt)


def _measures(firings: Firings, concepts: Concepts) -> tuple[Measure, Measure]:
    category = firings.categories(concepts)
    return (lambda concept, latent: firings.rates(concepts, category, concept, latent).f1,
            lambda concept, latent: firings.natural_f1(concepts, concept, latent))


def _choose(measure: Measure, n_concepts: int, concept: np.ndarray, latent: np.ndarray) -> Choice:
    """Per concept, the row and theta of highest F1, of those that hit it at all."""
    best, theta = np.zeros(len(concept)), np.zeros(len(concept), dtype=np.int64)
    for start in range(0, len(concept), ROWS):
        part = slice(start, start + ROWS)
        f1 = measure(concept[part], latent[part])
        theta[part] = np.argmax(f1, axis=1)  # the first: the smaller theta
        best[part] = f1.max(axis=1)
    order = np.lexsort((latent, theta, -best, concept))
    order = order[best[order] > 0]
    of, first = np.unique(concept[order], return_index=True)
    chosen = Choice(np.full(n_concepts, -1, dtype=np.int64), np.zeros(n_concepts, dtype=np.int64))
    chosen.latent[of], chosen.theta[of] = latent[order[first]], theta[order[first]]
    return chosen


def _labels(dictionary: Dictionary, firings: Firings, concepts: Concepts, chosen: Choices, few: np.ndarray) -> Labels:
    category = firings.categories(concepts)

    def rates(concept: np.ndarray, latent: np.ndarray) -> Rates:
        return firings.rates(concepts, category, concept, latent)

    found = _held_out(rates, chosen.fixed, few)
    prompt = np.full(len(few), np.nan) if chosen.prompt is None else _held_out(rates, chosen.prompt, few)[2]
    natural = _held_out(lambda *rows: [firings.natural_f1(concepts, *rows)], chosen.natural, few)[0]
    theta = np.where(chosen.fixed.latent >= 0, np.float64(dictionary.thetas)[chosen.fixed.theta], np.nan)
    return Labels(chosen.fixed.latent, theta, *found, natural, prompt, 0)


def _held_out(measures: Callable[[np.ndarray, np.ndarray], Sequence[np.ndarray]], chosen: Choice,
              few: np.ndarray) -> list[np.ndarray]:
    """[concept] of what was chosen, per measure; 0 where nothing was, nan where there were too `few` occurrences."""
    some = np.flatnonzero(chosen.latent >= 0)
    out = []
    for value in measures(some, chosen.latent[some]):
        filled = np.zeros(len(few))
        filled[some] = value[np.arange(len(some)), chosen.theta[some]]
        out.append(np.where(few, np.nan, filled))
    return out


def coordinates(mean: Tensor) -> Dictionary:
    """Control without a dictionary: every coordinate of the inputs about its mean [d_in], upwards and downwards, as a latent.

    Without theta = 0: a coordinate lies above its mean half of the time.
    """
    def encode(x: Tensor) -> Tensor:
        return torch.cat([x - mean, mean - x], dim=1).clamp_min_(0)

    return Dictionary(encode, 2 * len(mean), THETAS[1:])
