import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from saescale.measure import concepts as module
from saescale.measure.concepts import THETAS, Dictionary, coordinates, label
from saescale.measure.firings import HARD_SHARE, NEGATIVES, Concepts
from saescale.measure.places import Places, permuted
from saescale.measure.score import most_active


def made_places(name, choosing, ending=None, at_random=None, n_names=None, category=None):
    """Places that are the whole text: every token is looked at, all of no name are drawn."""
    name, choosing = np.asarray(name, dtype=np.int32), np.asarray(choosing, dtype=bool)
    n_names = n_names or int(name.max()) + 1
    occurrences = np.stack([np.bincount(name[s & (name >= 0)], minlength=n_names) for s in (choosing, ~choosing)])
    free = name < 0
    ending = np.full(len(name), -1, dtype=np.int32) if ending is None else np.asarray(ending, dtype=np.int32)
    places = Places(np.arange(len(name)), choosing, name, ending, free if at_random is None else np.asarray(at_random, bool),
                    occurrences, np.array([(free & choosing).sum(), (free & ~choosing).sum()]),
                    np.zeros(n_names, np.int32) if ending.max() >= 0 else np.full(n_names, -1, np.int32))
    group = np.zeros(n_names, np.int32) if category is None else np.asarray(category, np.int32)
    return places, Concepts(np.arange(n_names, dtype=np.int32), group)


def labels_of(acts, places, concepts, encode=lambda x: x, thetas=THETAS, prompted=None):
    x = torch.as_tensor(np.asarray(acts), dtype=torch.float32)
    return label(Dictionary(encode, x.shape[1], thetas, prompted), lambda p: x[torch.from_numpy(p)], [places], concepts)[0]


def slow_rates(fires, name, ending, places, concepts, c):
    """recall, precision, F1 of boolean firings [token] of one half, over its own tokens."""
    is_c = name == concepts.name[c]
    mates = np.isin(name, concepts.name[concepts.category == concepts.category[c]]) & ~is_c & (name >= 0)
    recall = fires[is_c].mean()
    base = fires[name < 0].mean()
    false = base
    for pool in (mates, ending == places.ending_of[concepts.name[c]]):
        if pool.any() and not (pool is not mates and places.ending_of[concepts.name[c]] < 0):
            false += HARD_SHARE * (fires[pool].mean() - base)
    precision = recall / (recall + NEGATIVES * false) if recall else 0.0
    f1 = 2 * recall * precision / (recall + precision) if recall else 0.0
    natural = 2 * (fires & is_c).sum() / (fires.sum() + is_c.sum())
    return recall, precision, f1, natural


def slow_labels(acts, places, concepts):
    """latent, theta, recall, precision, F1 by the fixed prevalence, and F1 at the text's of what is best by that."""
    out = []
    own = places.choosing
    for c in range(len(concepts.name)):
        best, natural = (0.0, -1, np.nan, (0.0,) * 3), (0.0, 0.0)
        for t in THETAS:
            fires = acts > np.float32(t) * acts[own].max(axis=0)
            for j in range(acts.shape[1]):
                chose = slow_rates(fires[own, j], places.name[own], places.ending[own], places, concepts, c)
                held = slow_rates(fires[~own, j], places.name[~own], places.ending[~own], places, concepts, c)
                if chose[2] > best[0] + 1e-12:
                    best = (chose[2], j, t, held[:3])
                if chose[3] > natural[0] + 1e-12:
                    natural = (chose[3], held[3])
        out.append((best[1], best[2], *best[3], natural[1]))
    return [np.array(column) for column in zip(*out, strict=True)]


def random_case(seed, n_tokens=3000, n_latents=20, n_names=6, with_endings=True):
    rng = np.random.default_rng(seed)
    acts = np.maximum(rng.normal(size=(n_tokens, n_latents)) - 1.2, 0) * rng.exponential(size=n_latents)
    name = np.where(rng.random(n_tokens) < 0.2, rng.integers(0, n_names, n_tokens), -1).astype(np.int32)
    for c in range(n_names):
        acts[name == c, c] += rng.random((name == c).sum()) * 2
    acts = acts.astype(np.float32)
    acts[rng.random(acts.shape) < 0.6] = 0
    ending = np.where((name < 0) & (rng.random(n_tokens) < 0.1), rng.integers(0, 2, n_tokens), -1) if with_endings else None
    places, concepts = made_places(name, rng.random(n_tokens) < 0.5, ending, category=np.arange(n_names) % 2)
    if with_endings:
        places = dataclasses.replace(places, ending_of=np.resize(np.array([0, 1, -1], np.int32), n_names))
    return acts, places, concepts


@pytest.mark.parametrize("seed", range(3))
def test_counting_in_one_pass_per_half_equals_a_slow_dense_reference(seed, monkeypatch):
    acts, places, concepts = random_case(seed, with_endings=seed > 0)
    monkeypatch.setattr("saescale.measure.firings.CHUNK", 257)
    monkeypatch.setattr("saescale.measure.tally.COMPACT", 500)
    monkeypatch.setattr(module, "ROWS", 7)
    found = labels_of(acts, places, concepts)
    latent, theta, recall, precision, f1, natural = slow_labels(acts, places, concepts)
    assert found.latent.tolist() == latent.tolist()
    assert found.theta.tolist() == theta.tolist()
    for fast, slow in ((found.recall, recall), (found.precision, precision), (found.score, f1), (found.f1_natural, natural)):
        assert fast == pytest.approx(slow)
    assert found.n_alive == (acts > 0).any(axis=0).sum()


def test_what_is_kept_between_passes_changes_nothing(monkeypatch):
    acts, places, concepts = random_case(5)
    kept = labels_of(acts, places, concepts)
    calls = []
    monkeypatch.setattr("saescale.measure.firings.KEEP_PAIRS", 10)
    again = labels_of(acts, places, concepts, encode=lambda x: calls.append(len(x)) or x)
    for a, b in zip(kept, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert sum(calls) == 2 * places.choosing.sum() + (~places.choosing).sum()


def test_every_form_of_codes_gives_one_result():
    acts, places, concepts = random_case(4)

    def pairs(x):
        token, latent = torch.nonzero(x, as_tuple=True)
        return SimpleNamespace(values=x[token, latent], tokens=token, latents=latent)

    for a, b in zip(labels_of(acts, places, concepts), labels_of(acts, places, concepts, encode=pairs), strict=True):
        np.testing.assert_array_equal(a, b)


def planted(rng, n, rates):
    """Names at these rates in random halves of a stream of n tokens."""
    name = np.full(n, -1, dtype=np.int32)
    for c, rate in enumerate(rates):
        name[rng.random(n) < rate] = c
    return made_places(name, rng.random(n) < 0.5, category=np.zeros(len(rates)))


def test_a_planted_latent_is_found_with_the_threshold_that_separates_it():
    rng = np.random.default_rng(0)
    places, concepts = planted(rng, 20_000, [0.01])
    acts = np.where(rng.random((20_000, 50)) < 0.05, rng.random((20_000, 50)), 0)
    acts[:, 17] = np.where(rng.random(20_000) < 0.2, rng.uniform(0, 4.5, 20_000), 0)  # low activations say nothing: below .5 * 10
    acts[places.name == 0, 17] = rng.uniform(6, 10, (places.name == 0).sum())
    found = labels_of(acts, places, concepts)
    assert (found.latent[0], found.theta[0]) == (17, 0.5)
    assert (found.recall[0], found.precision[0], found.score[0]) == (1.0, 1.0, 1.0)


def test_the_same_latent_scores_the_same_on_a_rare_and_on_a_frequent_concept_unlike_at_the_prevalence_of_the_text():
    rng = np.random.default_rng(1)
    n = 200_000
    places, concepts = planted(rng, n, [0.02, 0.0005])
    acts = np.zeros((n, 2), dtype=np.float32)
    for c in (0, 1):
        acts[:, c] = (places.name == c) | ((places.name < 0) & (rng.random(n) < 0.002))
    found = labels_of(acts, places, concepts)
    assert found.score == pytest.approx([1 / 1.09, 1 / 1.09], abs=0.03)  # .9 of 100 negatives at .002: 0.18 false for each hit
    assert found.f1_natural[0] > 0.9 > 0.5 > found.f1_natural[1]


@pytest.mark.parametrize(("mate_rate", "same_category"), [(0.5, True), (0.5, False)])
def test_a_latent_for_the_whole_category_is_not_specific_to_one_of_it(mate_rate, same_category):
    rng = np.random.default_rng(2)
    n = 40_000
    places, concepts = planted(rng, n, [0.003, 0.003])
    if not same_category:
        concepts = Concepts(concepts.name, np.array([0, 1], np.int32))
    acts = ((places.name == 0) | ((places.name == 1) & (rng.random(n) < mate_rate)))[:, None].astype(np.float32)
    found = labels_of(acts, places, concepts)
    assert found.recall[0] == 1.0
    assert found.precision[0] == pytest.approx(1 / (1 + 10 * mate_rate) if same_category else 1.0, abs=0.03)


def test_a_latent_for_the_last_token_of_a_name_is_not_a_latent_for_the_name():
    rng = np.random.default_rng(3)
    n = 40_000
    name = np.where(rng.random(n) < 0.003, 0, -1)
    ending = np.where((name < 0) & (rng.random(n) < 0.001), 0, -1)
    places, concepts = made_places(name, rng.random(n) < 0.5, ending)
    acts = ((name == 0) | (ending == 0))[:, None].astype(np.float32)
    false = 0.8 * (acts[name < 0].mean()) + 0.1 * acts[name < 0].mean() + 0.1  # no other name: its share goes to any token
    found = labels_of(acts, places, concepts)
    assert found.precision[0] == pytest.approx(1 / (1 + 100 * false), abs=0.01)
    assert found.score[0] < 0.2


def test_a_latent_good_only_by_chance_on_the_choosing_half_scores_low_on_the_other():
    rng = np.random.default_rng(0)
    n, half = 6000, np.arange(6000) < 3000
    name = np.full(n, -1)
    name[rng.permutation(3000)[:30]] = 0
    name[3000 + rng.permutation(3000)[:30]] = 0
    acts = np.where(rng.random((n, 3)) < 0.01, 1.0, 0.0)
    acts[half, 2] = name[half] == 0
    found = labels_of(acts, *made_places(name, half))
    assert found.latent[0] == 2
    assert found.score[0] < 0.1


def test_the_choice_knows_nothing_of_the_scoring_half():
    acts, places, concepts = random_case(1)
    before = labels_of(acts, places, concepts)
    acts[np.flatnonzero(~places.choosing & (places.name < 0))[0]] = 1e6  # a new maximum, on the other half only
    after = labels_of(acts, places, concepts)
    np.testing.assert_array_equal(before.latent, after.latent)
    np.testing.assert_array_equal(before.theta, after.theta)


def test_permuted_labels_keep_the_counts_of_each_half_and_score_nothing():
    rng = np.random.default_rng(2)
    places, concepts = planted(rng, 20_000, [0.01] * 5)
    acts = np.where(rng.random((20_000, 30)) < 0.002, rng.random((20_000, 30)), 0)
    acts[places.name >= 0, places.name[places.name >= 0]] = 1
    null = permuted(places)
    for side in (places.choosing, ~places.choosing):
        np.testing.assert_array_equal(np.bincount(null.name[side] + 1), np.bincount(places.name[side] + 1))
    assert not (null.at_random & (null.name >= 0)).any()
    assert labels_of(acts, places, concepts).score.min() > 0.8
    assert labels_of(acts, null, concepts).score.max() < 0.1


def test_too_few_occurrences_in_a_half_is_a_missing_score_and_no_hit_at_all_is_zero():
    half = np.arange(400) < 200
    name = np.full(400, -1)
    name[[*range(9), *range(200, 240)]] = 0
    name[[*range(50, 60), *range(300, 310)]] = 1
    acts = np.zeros((400, 2))
    acts[[*range(9), *range(200, 240)], 0] = 1
    found = labels_of(acts, *made_places(name, half))
    assert np.isnan([found.score[0], found.recall[0], found.f1_natural[0]]).all()
    assert (found.score[1], found.latent[1]) == (0.0, -1)
    assert np.isnan(found.theta[1])


def test_a_dead_dictionary_holds_nothing():
    found = labels_of(np.zeros((100, 3)), *made_places(np.zeros(100), np.arange(100) < 50))
    assert (found.score.tolist(), found.n_alive) == ([0.0], 0)


def test_only_the_latents_of_the_prompt_are_asked_in_the_papers_variant():
    acts, places, concepts = random_case(0)
    free = labels_of(acts, places, concepts)
    prompted = np.full((6, 2), -1)
    prompted[0] = [free.latent[0], 19]  # the very latent, and another
    prompted[1] = [(free.latent[1] + 7) % 20, -1]  # not it
    found = labels_of(acts, places, concepts, prompted=prompted)
    assert found.prompt_score[0] == found.score[0]
    assert 0 <= found.prompt_score[1] < found.score[1]
    assert (found.prompt_score[2:] == 0).all()
    assert np.isnan(free.prompt_score).all()


def test_the_most_active_latents_come_first_and_absent_ones_are_minus_one():
    x = torch.tensor([[0.0, 3.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    assert most_active(Dictionary(lambda x: x, 4), x, 2).tolist() == [[1, 3], [3, -1], [-1, -1]]


def test_a_coordinate_is_two_latents_about_its_mean():
    control = coordinates(torch.tensor([1.0, 0.0]))
    assert control.encode(torch.tensor([[3.0, -2.0]])).tolist() == [[2.0, 0.0, 0.0, 2.0]]
    assert (control.n_latents, 0.0 in control.thetas) == (4, False)
