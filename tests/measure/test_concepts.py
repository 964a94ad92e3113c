import dataclasses
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from saescale.measure import concepts as module
from saescale.measure.concepts import (
    concepts_record,
    document_halves,
    frequency_range,
    score_dictionary,
    select_concepts,
    shuffled_labels,
)
from saescale.measure.words import find_words, read_vocabulary


def test_all_tokens_of_a_document_share_a_half_and_about_half_of_the_documents_is_chosen():
    halves = document_halves(np.repeat(np.arange(4000), 3)).reshape(4000, 3)
    assert (halves == halves[:, :1]).all()
    assert 0.47 < halves[:, 0].mean() < 0.53
    assert 0.44 < (halves[1:, 0] == halves[:-1, 0]).mean() < 0.56


def stream(counts, tokens_per_word=2):
    """A token stream of `[.] w w` groups: word i (token 1+2i then 2+2i) occurs counts[i] times, shuffled."""
    names = [f"{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(len(counts))]
    pieces = ["."] + [p for name in names for p in (name, "z" if tokens_per_word == 2 else ".")]
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    tokens = np.stack([np.zeros_like(order), 1 + 2 * order, 2 + 2 * order], axis=1).reshape(-1)
    return np.append(tokens, 0), pieces


def found_in(counts, tokens_per_word=2):
    tokens, pieces = stream(counts, tokens_per_word)
    return find_words(tokens, np.zeros(len(tokens)), read_vocabulary(pieces))


def alternate(n):
    """Halves of word groups in turn, so that each half gets about half of every word."""
    return (np.arange(n) // 3) % 2 == 0


def test_frequency_is_counted_in_the_training_tokens_and_concepts_come_rarest_first():
    train, scoring = found_in([30, 60, 90]), found_in([200, 200, 200])
    found, concept_of = select_concepts(train, scoring, alternate(scoring.n_stream), (0, 1), at_least=1)
    assert [(c["name"], c["count"], c["n_tokens"]) for c in found] == [("aaz", 30, 2), ("abz", 60, 2), ("acz", 90, 2)]
    assert found[0]["frequency"] == pytest.approx(30 / (3 * 180 + 1))
    assert [int((concept_of == i).sum()) for i in range(3)] == [200, 200, 200]
    tokens, _ = stream([200, 200, 200])
    assert set(tokens[concept_of == 1].tolist()) == {4}


def test_concepts_outside_the_frequency_range_or_rare_in_a_half_are_left_out():
    train, scoring = found_in([10, 100, 1000]), found_in([200, 200, 200])
    f = 100 / train.n_stream
    half = alternate(scoring.n_stream)
    assert [c["name"] for c in select_concepts(train, scoring, half, (f * 0.9, f * 1.1), at_least=1)[0]] == ["abz"]
    one_sided = np.zeros(scoring.n_stream, dtype=bool)
    one_sided[scoring.last[scoring.name == 1][:9]] = True
    one_sided[scoring.last[scoring.name == 2][:10]] = True
    assert [c["name"] for c in select_concepts(train, scoring, one_sided, (0, 1), at_least=1)[0]] == ["acz"]


def _with_one_token(words):
    return dataclasses.replace(words, fewest_tokens=np.ones_like(words.fewest_tokens))


def test_a_run_of_underscores_is_no_concept():
    tokens = np.tile([0, 1, 1, 0, 2, 1], 100)
    words = find_words(tokens, np.zeros(600), read_vocabulary([".", "_", "ab"]))
    found, _ = select_concepts(words, words, np.arange(600) < 300, (0, 1), at_least=1)
    assert [c["name"] for c in found] == ["ab_"]


def test_a_word_with_a_single_token_spelling_anywhere_is_no_concept():
    scoring = found_in([200])
    pieces = [".", "aa", "z", "aaz"]
    tokens = np.array([0, 1, 2, 0, 1, 2, 0, 3, 0])
    train = find_words(tokens, np.zeros(9), read_vocabulary(pieces))
    with pytest.raises(ValueError, match="0 words of 2 or more"):
        select_concepts(train, scoring, alternate(scoring.n_stream), (0, 1), at_least=1)
    with pytest.raises(ValueError, match="0 words of 2 or more"):
        select_concepts(scoring, _with_one_token(scoring), alternate(scoring.n_stream), (0, 1), at_least=1)
    single = found_in([200, 200], tokens_per_word=1)
    with pytest.raises(ValueError, match="Score on more tokens"):
        select_concepts(single, single, alternate(single.n_stream), (0, 1), at_least=1)


def test_a_word_that_the_training_tokens_lack_is_no_concept():
    train, scoring = found_in([50, 90]), found_in([200, 200, 200])
    found, concept_of = select_concepts(train, scoring, alternate(scoring.n_stream), (1e-6, 1), at_least=1)
    assert [c["name"] for c in found] == ["aaz", "abz"]
    assert (concept_of >= 0).sum() == 400


def test_no_bin_of_frequency_gets_more_than_its_share_and_the_choice_is_stable():
    counts = [40] * 60 + [400] * 5
    words = found_in(counts)
    half = alternate(words.n_stream)
    first, _ = select_concepts(words, words, half, (0, 1), per_bin=20, at_least=1)
    assert Counter(c["count"] for c in first) == {40: 20, 400: 5}
    again, _ = select_concepts(words, words, half, (0, 1), per_bin=20, at_least=1)
    wider, _ = select_concepts(words, words, half, (0, 1), per_bin=30, at_least=1)
    assert first == again
    assert {c["name"] for c in first} < {c["name"] for c in wider}


def test_the_frequency_range_follows_the_smallest_and_the_largest_dictionary():
    assert frequency_range([1024, 256, 2048]) == (0.3 / 2048, 3 / 256)
    with pytest.raises(ValueError, match="at least one n_latents"):
        frequency_range([])


def score(acts, half, concept_of, block=7):
    blocks = torch.as_tensor(acts, dtype=torch.float32).split(block)
    half, concept_of = np.asarray(half, dtype=bool), np.asarray(concept_of, dtype=np.int32)
    return score_dictionary(lambda x: x, blocks, half, concept_of, len(acts[0]))


@pytest.fixture()
def few_are_enough(monkeypatch):
    monkeypatch.setattr(module, "MIN_PER_HALF", 1)


@pytest.mark.usefixtures("few_are_enough")
def test_f1_worked_by_hand():
    # Choosing half: latent 1 has maximum 8. theta 0 fires on tokens 0,1,2,3 (2 hits of 2: F1 = 4/6), theta .25 (> 2)
    # on 0,1,2 (F1 = 4/5), theta .5 (> 4) and .75 on 0 only (F1 = 2/3). So theta .25: threshold 2 on the other half,
    # whatever its maximum there: fires on 4 (hit), 5 (2.5, a hit) and 6 (100); occurrences 4, 5, 7: F1 = 2*2 / (3 + 3).
    latent = [8, 4, 2.5, 1, 3, 2.5, 100, 2]
    acts = np.stack([np.zeros(8), latent], axis=1)
    result = score(acts, [1] * 4 + [0] * 4, [0, 0, -1, -1, 0, 0, -1, 0], block=3)
    assert (result["latent"].tolist(), result["theta"].tolist()) == ([1], [0.25])
    assert result["f1_choosing"] == pytest.approx([0.8])
    assert result["f1"] == pytest.approx([4 / 6])
    assert result["n_alive"] == 1


def random_case(seed, n_tokens=3000, n_latents=20, n_concepts=6):
    rng = np.random.default_rng(seed)
    acts = np.maximum(rng.normal(size=(n_tokens, n_latents)) - 1.2, 0) * rng.exponential(size=n_latents)
    concept_of = np.where(rng.random(n_tokens) < 0.2, rng.integers(0, n_concepts, n_tokens), -1).astype(np.int32)
    for c in range(n_concepts):
        acts[concept_of == c, c] += rng.random((concept_of == c).sum()) * 2
    return acts.astype(np.float32), rng.random(n_tokens) < 0.5, concept_of


def slow_scores(acts, half, concept_of):
    out = []
    for c in range(concept_of.max() + 1):
        is_c, best = concept_of == c, (-1.0,)
        for theta in (0.0, 0.25, 0.5, 0.75):
            fires = acts > np.float32(theta) * acts[half].max(axis=0)
            for j in range(acts.shape[1]):
                f1 = [2 * (fires[s, j] & is_c[s]).sum() / (fires[s, j].sum() + is_c[s].sum()) for s in (half, ~half)]
                if f1[0] > best[0]:
                    best = (f1[0], f1[1], j, theta)
        out.append(best)
    return [list(column) for column in zip(*out, strict=True)]


@pytest.mark.parametrize("seed", range(3))
def test_sparse_counting_equals_a_slow_dense_reference(seed):
    acts, half, concept_of = random_case(seed)
    choosing, held, latent, theta = slow_scores(acts, half, concept_of)
    result = score(acts, half, concept_of, block=257)
    assert result["latent"].tolist() == latent
    assert result["theta"].tolist() == theta
    assert result["f1_choosing"] == pytest.approx(choosing)
    assert result["f1"] == pytest.approx(held)


def test_every_form_of_codes_and_any_block_size_give_one_result():
    acts, half, concept_of = random_case(4)
    dense = score(acts, half, concept_of)

    def encode(x):
        return x.topk(15, dim=1, sorted=False)

    def pairs(x):
        token, latent = torch.nonzero(x, as_tuple=True)
        return SimpleNamespace(values=x[token, latent], tokens=token, latents=latent)

    x = torch.tensor(acts)
    kept = torch.zeros_like(x).scatter(1, x.topk(15, dim=1)[1], x.topk(15, dim=1)[0])
    sparse = score_dictionary(encode, x.split(999), half, concept_of, 20)
    same = score_dictionary(lambda b: b, kept.split(64), half, concept_of, 20)
    grouped = score_dictionary(pairs, kept.split(101), half, concept_of, 20)
    for key in dense:
        np.testing.assert_array_equal(sparse[key], same[key])
        np.testing.assert_array_equal(grouped[key], same[key])
    assert not np.array_equal(dense["f1"], np.zeros(6))


def test_a_planted_latent_is_found_with_the_threshold_that_separates_it():
    rng = np.random.default_rng(0)
    n = 20_000
    concept_of = np.where(rng.random(n) < 0.01, 0, -1).astype(np.int32)
    acts = np.where(rng.random((n, 50)) < 0.05, rng.random((n, 50)), 0)
    acts[:, 17] = np.where(rng.random(n) < 0.2, rng.uniform(0, 4.5, n), 0)  # low activations say nothing: below .5 * 10
    acts[concept_of == 0, 17] = rng.uniform(6, 10, (concept_of == 0).sum())
    result = score(acts, rng.random(n) < 0.5, concept_of, block=1000)
    assert (result["latent"][0], result["theta"][0]) == (17, 0.5)
    assert result["f1"][0] == 1.0


def test_a_latent_good_only_by_chance_on_the_choosing_half_scores_low_on_the_other():
    rng = np.random.default_rng(0)
    n, half = 6000, np.arange(6000) < 3000
    concept_of = np.full(n, -1, dtype=np.int32)
    concept_of[rng.permutation(3000)[:30]] = 0
    concept_of[3000 + rng.permutation(3000)[:30]] = 0
    acts = np.where(rng.random((n, 3)) < 0.01, 1.0, 0.0)
    acts[half, 2] = concept_of[half] == 0
    result = score(acts, half, concept_of, block=1000)
    assert result["latent"][0] == 2
    assert result["f1_choosing"][0] == 1.0
    assert result["f1"][0] < 0.1


def test_the_threshold_comes_from_the_choosing_half_alone():
    acts, half, concept_of = random_case(1)
    before = score(acts, half, concept_of)
    acts[np.flatnonzero(~half & (concept_of < 0))[0]] = 1e6  # a new maximum, on the other half only
    after = score(acts, half, concept_of)
    np.testing.assert_array_equal(before["latent"], after["latent"])
    np.testing.assert_array_equal(before["theta"], after["theta"])
    np.testing.assert_array_equal(before["f1_choosing"], after["f1_choosing"])
    assert after["f1"] == pytest.approx(before["f1"], abs=0.01)


def test_shuffled_labels_keep_the_counts_of_each_half_and_score_low():
    rng = np.random.default_rng(2)
    n = 20_000
    half = rng.random(n) < 0.5
    concept_of = np.where(rng.random(n) < 0.05, rng.integers(0, 10, n), -1).astype(np.int32)
    acts = np.where(rng.random((n, 30)) < 0.02, rng.random((n, 30)), 0)
    acts[concept_of >= 0, concept_of[concept_of >= 0]] = 1
    shuffled = shuffled_labels(concept_of, half)
    for side in (half, ~half):
        np.testing.assert_array_equal(np.bincount(shuffled[side] + 1), np.bincount(concept_of[side] + 1))
    assert score(acts, half, concept_of, block=5000)["f1"].min() > 0.3
    assert score(acts, half, shuffled, block=5000)["f1"].max() < 0.15


def test_too_few_occurrences_in_a_half_is_a_missing_score_and_no_hit_at_all_is_zero():
    half = np.arange(400) < 200
    concept_of = np.full(400, -1, dtype=np.int32)
    concept_of[[*range(9), *range(200, 240)]] = 0
    concept_of[[*range(50, 60), *range(300, 310)]] = 1
    acts = np.zeros((400, 2))
    acts[[*range(9), *range(200, 240)], 0] = 1
    result = score(acts, half, concept_of)
    assert np.isnan(result["f1"][0])
    assert (result["f1"][1], result["latent"][1]) == (0.0, -1)
    assert np.isnan(result["theta"][1])
    record = concepts_record("text", [{"name": "a"}, {"name": "b"}], [{"run_id": "r"}], [result])
    assert record["scores"] == [[None, 0.0]]


def test_a_dead_dictionary_scores_zero():
    half, concept_of = np.arange(100) < 50, np.zeros(100, dtype=np.int32)
    result = score(np.zeros((100, 3)), half, concept_of)
    assert (result["f1"].tolist(), result["n_alive"]) == ([0.0], 0)


@pytest.mark.parametrize("n_rows", [90, 110])
def test_labels_for_another_number_of_tokens_are_refused(n_rows):
    with pytest.raises(ValueError, match="give one per token"):
        score(np.zeros((n_rows, 3)), np.arange(100) < 50, np.zeros(100))


def test_results_that_do_not_belong_to_the_concepts_or_dictionaries_are_refused():
    result = score(np.zeros((100, 3)), np.arange(100) < 50, np.zeros(100))
    with pytest.raises(ValueError, match="one result per dictionary"):
        concepts_record("text", [{"name": "a"}], [], [result])
    with pytest.raises(ValueError, match="one list of concepts"):
        concepts_record("text", [{"name": "a"}, {"name": "b"}], [{"run_id": "r"}], [result])
