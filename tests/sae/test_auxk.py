"""The auxiliary loss for dead latents."""

import pytest
import torch

from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

DEAD = [2, 7, 8]


@pytest.fixture
def x():
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)) + 0.5
    return x * (16 / x.square().sum(1).mean()).sqrt()


def trainable_with_dead(x, **knobs):
    """Latents DEAD never fire on x, although some of their pre-activations are above zero."""
    knobs = {"k": 4, "k_aux": 2, "dead_after_tokens": 500, "grad_clip": None, **knobs}
    trainable = Trainable.create(SAESpec("topk", 16, 40, **knobs), 0, InputSample.of(x))
    trainable.sae.b_enc += 3.0
    trainable.sae.b_enc[DEAD] = 0.3
    assert not (trainable.sae.encode(x)[:, DEAD] > 0).any()
    trainable.memory.tokens_since_fired[DEAD] = 500 - len(x)
    return trainable


def gradients(trainable, x):
    terms = trainable.compute_gradients(x)
    return terms, trainable.grads.clone()


def test_gradients_of_the_aux_loss_reach_encoder_and_decoder_of_dead_latents_and_of_no_other(x):
    _, without = gradients(trainable_with_dead(x, aux_coeff=0.0), x)
    terms, with_aux = gradients(trainable_with_dead(x, aux_coeff=1.0), x)
    assert terms.aux_loss > 0
    live = [i for i in range(40) if i not in DEAD]
    for name in ("W_dec", "W_enc", "b_enc"):
        before, after = without.params()[name], with_aux.params()[name]
        before, after = (before.T, after.T) if name == "W_enc" else (before, after)
        assert torch.equal(before[live], after[live]), name
        assert not before[DEAD].any(), name
        assert (after[DEAD].view(3, -1).norm(dim=1) > 0).all(), name


def test_dead_latents_take_no_part_in_the_step_before_they_are_dead(x):
    trainable = trainable_with_dead(x)
    trainable.memory.tokens_since_fired[DEAD] = 500 - len(x) - 1
    terms, grads = gradients(trainable, x)
    assert terms.aux_loss == 0.0
    assert not grads.W_dec[DEAD].any()


def test_b_dec_is_not_added_to_the_reconstruction_of_the_residual(x):
    """With x, b_dec and the encoder bias moved together nothing but b_dec changes, so the aux loss must not change."""
    here, there = trainable_with_dead(x), trainable_with_dead(x)
    shift = torch.linspace(-2, 2, 16)
    there.sae.b_dec += shift
    assert there.compute_gradients(x + shift).aux_loss == pytest.approx(float(here.compute_gradients(x).aux_loss), rel=1e-4)


def test_the_aux_loss_of_dead_latents_that_answer_nothing_is_the_residual_over_its_spread(x):
    trainable = trainable_with_dead(x)
    trainable.sae.b_enc[DEAD] = -50.0  # e_hat = 0
    e = x - trainable.sae.reconstruct(x)
    expected = e.square().sum() / (e - e.mean(0)).square().sum()
    assert trainable.compute_gradients(x).aux_loss == pytest.approx(expected.item(), rel=1e-5)


def test_the_aux_loss_is_weighted_by_the_variance_of_the_inputs(x):
    """OpenAI: MSE / variance + coeff * aux; times the total variance this is sum of squares + coeff * variance * aux."""
    terms = trainable_with_dead(x, aux_coeff=0.25).compute_gradients(x)
    variance = (x - x.mean(0)).square().sum(1).mean()
    assert float(terms.loss - terms.sum_sq_error) == pytest.approx(0.25 * variance.item() * float(terms.aux_loss), rel=1e-5)


def test_a_residual_without_spread_gives_an_aux_loss_of_zero():
    x = torch.ones(1, 16)
    trainable = trainable_with_dead(x)
    terms = trainable.compute_gradients(x)
    assert terms.aux_loss == 0.0
    assert torch.isfinite(trainable.grad).all()


def test_the_aux_loss_brings_dead_latents_back_to_life():
    """Half the latents start far below zero; more features than live latents wait for them."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(48, 16, generator=generator), dim=1)
    x = (torch.rand(20_000, 48, generator=generator) < 2 / 48).float() @ directions
    x *= (16 / x.square().sum(1).mean()).sqrt()

    def n_dead(aux_coeff):
        spec = SAESpec("topk", 16, 40, k=3, k_aux=8, dead_after_tokens=1000, aux_coeff=aux_coeff)
        trainable = Trainable.create(spec, 0, InputSample.of(x))
        trainable.sae.b_enc[20:] = -4.0
        for batch in x.split(100):
            trainable.step(batch, 3e-3)
        return trainable.read_stats()["n_dead"]

    assert n_dead(0.0) >= 15
    assert n_dead(1 / 32) <= n_dead(0.0) / 2
