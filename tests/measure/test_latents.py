"""Cards of latents against counting by hand over dense activations."""

import numpy as np
import pytest
import torch

from saescale.activations.tokens import FlatTokens
from saescale.measure.contexts import Activity, Text, context
from saescale.measure.latents import (
    N_BINS,
    SAME_DIRECTION,
    Relative,
    activities,
    cards,
    examples,
    logit_effects,
    neighbours,
)
from saescale.sae.model import InputSample, init
from saescale.sae.spec import SAESpec

D, N_TOKENS, LENGTH = 8, 300, 10  # thirty sequences of ten tokens
PIECES = [f"w{i}" for i in range(30)]


def made_up(kind):
    x = torch.randn(N_TOKENS, D, generator=torch.Generator().manual_seed(3))
    spec = SAESpec("topk", D, 20, k=15, k_aux=2) if kind == "topk" else SAESpec("relu_l1", D, 20, sparsity_coeff=1.0)
    return init(spec, 1, InputSample.of(x)), x


@pytest.fixture
def text():
    r = np.random.default_rng(0)
    at = np.arange(N_TOKENS)
    return Text(FlatTokens(r.integers(0, 30, N_TOKENS).astype(np.int32), (at // 50).astype(np.int32),
                           (at // LENGTH).astype(np.int32)), PIECES)


def activity_of(values):
    values = np.asarray(values, dtype=np.float32)
    positions = np.flatnonzero(values)
    return Activity(positions, values[positions], len(values))


@pytest.mark.parametrize("kind", ["topk", "relu_l1"])
def test_one_pass_finds_the_activations_of_several_latents_as_the_dense_code_has_them(kind):
    sae, x = made_up(kind)
    found = activities(sae, x.split(37), [11, 2, 19])
    dense = sae.encode(x)
    for latent in (11, 2, 19):
        assert found[latent].n_tokens == N_TOKENS
        assert np.array_equal(found[latent].positions, np.flatnonzero(dense[:, latent] > 0))
        assert np.array_equal(found[latent].values, dense[dense[:, latent] > 0, latent].numpy())
        assert np.array_equal(found[latent].over(range(50, 90)), dense[50:90, latent].numpy())


@pytest.mark.parametrize("wrong", [[20], [-1], [3, 3], []])
def test_latents_that_do_not_exist_are_refused_with_what_is_allowed(wrong):
    sae, x = made_up("topk")
    with pytest.raises(ValueError, match="0 to 19|each once"):
        activities(sae, [x], wrong)


def test_a_window_stays_inside_the_sequence_the_model_read(text):
    assert text.window(43, 24, 8) == range(40, 50)
    assert text.window(45, 2, 1) == range(43, 47)
    assert text.window(0, 5, 3) == range(4) and text.window(299, 1, 5) == range(298, 300)


def test_a_context_shows_tokens_and_activations_around_its_peak(text):
    values = np.zeros(N_TOKENS)
    values[[44, 46]] = 2.0, 0.5
    found = context(text, activity_of(values), 44)
    assert found["tokens"] == [PIECES[i] for i in text.tokens.ids[40:50]]
    assert found["acts"] == [0, 0, 0, 0, 2.0, 0, 0.5, 0, 0, 0] and found["peak"] == 4
    assert found["document"] == 0 and found["position"] == 44


def test_top_contexts_are_the_highest_of_different_sequences(text):
    values = np.zeros(N_TOKENS)
    values[[14, 15, 3, 77, 205]] = 9.0, 8.0, 4.0, 4.0, 6.0  # 14 and 15 share a sequence; 3 and 77 tie
    top = examples(text, activity_of(values))["top"]
    assert [place["position"] for place in top] == [14, 205, 3, 77]


def test_histogram_and_buckets_count_every_activation_once_in_its_interval(text):
    r = np.random.default_rng(1)
    values = np.where(r.random(N_TOKENS) < 0.4, r.random(N_TOKENS) * 3, 0)
    found = examples(text, activity_of(values))
    fired = values[values > 0]
    edges = np.linspace(0, values.max(), N_BINS + 1)
    assert found["histogram"] == [int(((fired > a) & (fired <= b)).sum())
                                  for a, b in zip(edges[:-1], [*edges[1:-1], np.inf], strict=True)]
    assert sum(b["n"] for b in found["buckets"]) == found["n_fired"] == len(fired)
    assert found["firing_rate"] == len(fired) / N_TOKENS and found["max"] == pytest.approx(values.max())
    for bucket in found["buckets"]:
        assert len(bucket["examples"]) == min(3, bucket["n"])
        peaks = [place["acts"][place["peak"]] for place in bucket["examples"]]
        assert all(bucket["low"] < p <= bucket["high"] + 1e-5 for p in peaks)
    assert found == examples(text, activity_of(values))  # drawn again, the same places


def test_a_latent_that_never_fires_has_a_card_that_says_so(text):
    found = examples(text, activity_of(np.zeros(N_TOKENS)))
    assert found["state"] == "silent" and found["max"] == 0 and found["firing_rate"] == 0
    assert found["top"] == [] and sum(found["histogram"]) == 0 and all(b["examples"] == [] for b in found["buckets"])


def test_neighbours_are_those_of_highest_cosine_whatever_the_lengths_of_rows():
    r = torch.Generator().manual_seed(0)
    directions, others = torch.randn(3, D, generator=r), torch.randn(40, D, generator=r)
    others[7], others[9] = directions[1] * 5, directions[1] + 0.2
    found = neighbours(directions, others)
    for i in range(3):
        cosine = [float(directions[i] @ o / directions[i].norm() / o.norm()) for o in others]
        assert [n[0] for n in found[i]["nearest"]] == np.argsort(cosine)[::-1][:5].tolist()
        assert found[i]["n_same_direction"] == sum(c >= SAME_DIRECTION for c in cosine)
    assert found[1]["nearest"][0] == [7, 1.0] and found[1]["n_same_direction"] >= 2


def test_a_card_joins_activations_directions_and_the_other_dictionaries(text):
    sae, x = made_up("topk")
    other = Relative("other-run", 1, torch.cat([torch.zeros(4, D), sae.W_dec]))
    made = cards(sae, text, x.split(100), [5, 6], [other], lambda rows: rows @ torch.eye(D, 30))
    assert [card["neighbours"][0]["nearest"][0] for card in made] == [[9, 1.0], [10, 1.0]]
    raised = [token for token, _ in made[0]["logits"]["top"]]
    assert raised[:3] == [PIECES[i] for i in sae.W_dec[5].argsort(descending=True)[:3]]
    assert cards(sae, text, x.split(100), [5], [], None)[0]["logits"] is None


def test_text_and_activations_of_different_length_are_refused(text):
    sae, x = made_up("topk")
    with pytest.raises(ValueError, match="300 tokens of text for 299 activations"):
        cards(sae, text, [x[1:]], [5], [], None)


def test_logit_effects_name_the_tokens_raised_and_lowered_most():
    effects = torch.arange(30.0).roll(3)
    found = logit_effects(effects, PIECES)
    assert found["top"][0] == ["w2", 29.0] and found["bottom"][0] == ["w3", 0.0] and len(found["top"]) == 10
