"""Steering on the bundled model: the clamp is the one of the paper, and nothing but the clamp."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from saescale.activations.folder import BUNDLED
from saescale.activations.lm import LanguageModel
from saescale.activations.tokens import TokenSplit
from saescale.activations.words import decoded_pieces
from saescale.measure.steer import activation, clamp, generate, parse_scales, prompt_ids, push, steered_texts
from saescale.measure.steering import (
    PREFIX_TOKENS,
    amounts,
    effect,
    log_probability,
    name_ids,
    prefixes,
    random_direction,
)
from saescale.sae import export
from saescale.sae.model import InputSample, init
from saescale.sae.spec import SAESpec

HOW = {"n_new": 5, "temperature": 0.0, "seed": 0}


@pytest.fixture(scope="module")
def lm():
    torch.set_num_threads(1)
    return LanguageModel(BUNDLED, "blocks.2.hook_resid_post")


@pytest.fixture(scope="module")
def tokenizer():
    return PreTrainedTokenizerFast(tokenizer_file=str(BUNDLED / "tokenizer.json"))


@pytest.fixture(scope="module")
def ids():
    text = "def load(self, name):\n    return self.values[name]\n\n\ndef close(self):\n    pass\n"
    tokens = Tokenizer.from_file(str(BUNDLED / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    return torch.tensor([[0, *tokens[:20]], [0, *tokens[4:24]]])


@pytest.fixture(scope="module", params=["topk", "relu_l1", "jumprelu"])
def sae(request, lm, ids):
    """An SAE of raw activations, its scale folded in as exported ones have it."""
    x = lm.activations(ids)[:, 1:].flatten(0, 1)
    scale = float((128 / x.square().sum(1).mean()).sqrt())
    own = {"topk": {"k": 4, "k_aux": 4}, "relu_l1": {"sparsity_coeff": 1.0},
           "jumprelu": {"sparsity_coeff": 1.0, "bandwidth": 0.5}}[request.param]
    return export.unscaled(init(SAESpec(request.param, 128, 64, **own), 0, InputSample.of(x * scale)), scale)


def busiest(sae, x):
    """The latent that fires on most tokens, but not on all."""
    share = (sae.encode(x.reshape(-1, x.shape[-1])) > 0).float().mean(0)
    return int(torch.where(share < 1, share, -torch.ones(())).argmax())


def test_the_activation_of_one_latent_is_that_of_the_dense_code(sae, lm, ids):
    x = lm.activations(ids)
    latent = busiest(sae, x)
    found = activation(sae, latent, x)
    assert found.shape == ids.shape and 0 < (found > 0).float().mean() < 1
    assert torch.equal(found.flatten(), sae.encode(x.flatten(0, 1))[:, latent])


def test_clamping_a_latent_to_what_it_is_leaves_every_logit(sae, lm, ids):
    x = lm.activations(ids)
    latent = busiest(sae, x)
    same = lm.logits(ids, clamp(sae, latent, activation(sae, latent, x)))
    assert torch.equal(same, lm.logits(ids))


def test_clamping_puts_the_multiple_in_the_code_and_keeps_the_error(sae, lm, ids):
    """Against the definition, computed densely: decode the code with one entry replaced, and add the error back."""
    x = lm.activations(ids)
    latent, target = busiest(sae, x), torch.tensor([3.5, -2.0])
    found = clamp(sae, latent, target)(x)
    rows = x[:, 1:].flatten(0, 1)
    code = sae.encode(rows)
    error = rows - sae.decode(code)
    code[:, latent] = target.repeat_interleave(x.shape[1] - 1)
    assert torch.allclose(found[:, 1:].flatten(0, 1), sae.decode(code) + error, atol=1e-4)
    assert torch.equal(found[:, 0], x[:, 0])


def test_the_hook_moves_along_the_decoder_direction_by_target_less_activation(sae, lm, ids):
    x = lm.activations(ids)
    latent = busiest(sae, x)
    moved = clamp(sae, latent, torch.tensor([4.0, 4.0]))(x) - x
    expected = (4.0 - activation(sae, latent, x))[..., None] * sae.W_dec[latent]
    assert torch.allclose(moved[:, 1:], expected[:, 1:], atol=1e-5) and (moved[:, 0] == 0).all()


def test_a_target_that_is_not_a_number_leaves_that_row_alone(sae, lm, ids):
    x = lm.activations(ids)
    latent = busiest(sae, x)
    found = clamp(sae, latent, torch.tensor([float("nan"), 9.0]))(x)
    assert torch.equal(found[0], x[0]) and not torch.equal(found[1], x[1])


def test_steering_changes_what_the_layers_above_say(sae, lm, ids):
    latent = busiest(sae, lm.activations(ids))
    assert (lm.logits(ids, clamp(sae, latent, torch.tensor([30.0, 30.0]))) - lm.logits(ids)).abs().max() > 0.1


def untouched(value):
    return value


def test_greedy_text_is_the_likeliest_token_again_and_again(lm, ids):
    rows = ids[:1]
    for _ in range(HOW["n_new"]):
        rows = torch.cat([rows, lm.logits(rows)[:, -1].argmax(1, keepdim=True)], 1)
    assert torch.equal(generate(lm, ids[:1], untouched, HOW), rows[:, ids.shape[1]:])


def test_drawn_text_depends_on_the_seed_alone_and_is_the_same_in_equal_rows(lm, ids):
    how = HOW | {"temperature": 1.5, "n_new": 12}
    two = generate(lm, ids[:1].repeat(2, 1), untouched, how)
    assert torch.equal(two[0], two[1]) and torch.equal(two[:1], generate(lm, ids[:1], untouched, how))
    assert not torch.equal(two[:1], generate(lm, ids[:1], untouched, how | {"seed": 1}))


@torch.no_grad()
def test_tokens_are_drawn_with_the_probabilities_of_the_model(lm, ids):
    """Share of the likeliest first token over many seeds, against its probability at that temperature."""
    p = (lm.logits(ids[:1])[0, -1] / 0.7).softmax(0)
    how = {"n_new": 1, "temperature": 0.7}
    drawn = [int(generate(lm, ids[:1], untouched, how | {"seed": s})) for s in range(60)]
    top = int(p.argmax())
    share, expected = drawn.count(top) / len(drawn), float(p[top])
    assert abs(share - expected) < 4 * (expected * (1 - expected) / len(drawn)) ** 0.5 + 1e-9


def test_the_first_text_is_the_model_left_alone_and_scale_by_scale_follows(sae, lm, ids, tokenizer):
    latent = busiest(sae, lm.activations(ids))
    prompt = ids[0].tolist()
    found = steered_texts(lm, sae, latent, 4.0, [0.0, 10.0], prompt, tokenizer, HOW)
    assert [text["scale"] for text in found] == [None, 0.0, 10.0]
    plain = generate(lm, ids[:1], untouched, HOW)[0].tolist()
    assert found[0]["text"] == tokenizer.decode([*prompt, *plain])[len(tokenizer.decode(prompt)):]


@pytest.mark.parametrize(("text", "scales"), [
    ("-10..10", [-10, -7.5, -5, -2.5, 0, 2.5, 5, 7.5, 10]), ("-10..10/5", [-10, -5, 0, 5, 10]),
    ("0..1/0.25", [0, .25, .5, .75, 1]), ("-5,0,2.5", [-5, 0, 2.5]), ("3", [3]), ("0..1/0.3", [0, .3, .6, .9])])
def test_scales_are_read_as_typed(text, scales):
    assert parse_scales(text) == scales


@pytest.mark.parametrize("text", ["", "ten", "1..", "5..1", "1..2..3", "0..1/0", "0..1/-1", "nan", "0..inf", "1,,2", "0..1/1e-9"])
def test_what_is_no_scale_is_refused_with_the_ways_to_say_one(text):
    with pytest.raises(ValueError, match="LOW..HIGH/STEP or numbers with commas"):
        parse_scales(text)


def test_a_prompt_without_a_token_and_one_too_long_are_refused(tokenizer):
    with pytest.raises(ValueError, match="has no token"):
        prompt_ids(tokenizer, "", 0, 100)
    with pytest.raises(ValueError, match="give a shorter prompt"):
        prompt_ids(tokenizer, "name = value " * 40, 0, 50)
    assert prompt_ids(tokenizer, "return", 0, 50)[0] == 0


def made_up_split(pieces):
    r = np.random.default_rng(0)
    rows = r.integers(1, len(pieces), (30, 64)).astype(np.int32)
    return TokenSplit(rows, np.full(30, 64, np.int32), np.arange(30, dtype=np.int32), 5)


def test_prefixes_end_where_a_word_begins_each_in_another_sequence(tokenizer):
    pieces = decoded_pieces(tokenizer)
    split = made_up_split(pieces)
    found = prefixes(split, pieces, 0, n=12)
    assert found.shape == (12, PREFIX_TOKENS) and (found[:, 0] == 0).all()
    origins = set()
    for row in found[:, 1:].tolist():
        [(sequence, at)] = [(i, p) for i, s in enumerate(split.sequences.tolist()) for p in range(64 - 31)
                            if s[p:p + PREFIX_TOKENS - 1] == row]
        origins.add(sequence)
        following = pieces[split.sequences[sequence, at + PREFIX_TOKENS - 1]]
        assert following[0] == " " and following[1].isalpha() and at >= 1
    assert len(origins) == 12 and torch.equal(found, prefixes(split, pieces, 0, n=12))


def test_a_text_without_such_places_is_refused(tokenizer):
    pieces = decoded_pieces(tokenizer)
    split = made_up_split(pieces)
    short = TokenSplit(split.sequences, np.full(30, 20, np.int32), split.documents, 5)
    with pytest.raises(ValueError, match="two or more are needed"):
        prefixes(short, pieces, 0)


def test_a_name_is_spelled_by_tokens_after_a_space(tokenizer):
    assert tokenizer.decode([*tokenizer.encode("x", add_special_tokens=False), *name_ids(tokenizer, "instead")]) == "x instead"
    with pytest.raises(ValueError, match="cannot be spelled"):
        name_ids(tokenizer, "")


def test_the_log_probability_of_a_name_is_the_sum_over_its_tokens(lm, ids):
    log_p = lm.logits(ids).log_softmax(2)
    expected = [sum(float(log_p[s, p - 1, ids[s, p]]) for p in range(18, 21)) for s in range(2)]
    assert log_probability(lm, ids, 3).tolist() == pytest.approx(expected, abs=1e-4)


def test_the_effect_of_a_scale_is_that_of_a_clamp_at_every_position(sae, lm, ids):
    """The fast path adds amounts computed once; the clamp reads the activations where the model runs."""
    x = lm.activations(ids)
    latent, scales, highest = busiest(sae, x), [-2.0, 0.0, 3.0], 1.7
    found = effect(lm, ids, 3, amounts(scales, highest, activation(sae, latent, x)), sae.W_dec[latent])
    for i, scale in enumerate(scales):
        hook = clamp(sae, latent, torch.full((2,), scale * highest))
        slow = log_probability(lm, ids, 3, hook) - log_probability(lm, ids, 3)
        assert found[i] == pytest.approx(slow.tolist(), abs=2e-4)
    assert np.abs(found[2]).max() > 0.01


def test_a_random_direction_is_as_long_as_its_latent_and_the_same_each_time(sae):
    drawn = random_direction(sae.W_dec[3], 5)
    assert float(drawn.norm()) == pytest.approx(float(sae.W_dec[3].norm()), rel=1e-5)
    assert torch.equal(drawn, random_direction(sae.W_dec[3], 5)) and not torch.equal(drawn, random_direction(sae.W_dec[3], 6))
    assert abs(float(torch.cosine_similarity(drawn, sae.W_dec[3], dim=0))) < 0.5


def test_the_hook_adds_nothing_at_the_first_position_and_leaves_its_input():
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    out = push(torch.ones(3), torch.ones(2, 4))(x)
    assert torch.equal(x, before) and torch.equal(out[:, 0], x[:, 0]) and torch.allclose(out[:, 1:], x[:, 1:] + 1)
