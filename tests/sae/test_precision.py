"""train.precision=bfloat16: the encoder's product is rounded in training, and nothing else is."""

import pytest
import torch

from saescale.sae import kernels
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

KINDS = {"topk": {"k": 4, "dead_after_tokens": 10**6}, "relu_l1": {"sparsity_coeff": 1.0}}


def batches(n, d_in=32, n_tokens=128):
    """Sparse mixtures of 64 directions, so that there is something to learn."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(64, d_in, generator=generator)
    codes = torch.rand(n, n_tokens, 64, generator=generator) * (torch.rand(n, n_tokens, 64, generator=generator) < 0.05)
    x = codes @ directions
    return x * (d_in / x.square().sum(-1).mean()).sqrt()


def trained(kind, precision, xs):
    spec = SAESpec(kind, 32, 128, precision=precision, **KINDS[kind])
    trainable = Trainable.create(spec, 0, InputSample.of(xs[0]))
    for x in xs:
        trainable.step(x, 3e-3)
    return trainable


def fvu(sae, x):
    return float((sae.reconstruct(x) - x).square().sum() / (x - x.mean(0)).square().sum())


def test_the_encoders_product_is_rounded_to_a_hundredth_and_its_bias_is_not():
    x, W = torch.randn(50, 64), torch.randn(64, 33)
    exact = x.double() @ W.double()
    for precision, low, high in (("float32", 0.0, 1e-6), ("bfloat16", 1e-4, 1e-2)):
        found = kernels.pre_activations(x, W, torch.zeros(33), precision).double()
        assert low <= (found - exact).norm() / exact.norm() < high, precision
    shifted = kernels.pre_activations(x * 0, W, torch.full((33,), 1 / 3), "bfloat16")
    assert torch.equal(shifted, torch.full((50, 33), 1 / 3))


@pytest.mark.parametrize("kind", KINDS)
def test_training_with_a_bfloat16_encoder_ends_at_the_same_loss_with_other_bits(kind):
    xs = batches(400)
    held_out = batches(401)[-1]
    full, rounded = (trained(kind, precision, xs) for precision in ("float32", "bfloat16"))
    assert not torch.equal(full.params, rounded.params)
    assert rounded.params.dtype == torch.float32
    assert fvu(full.sae, held_out) < 0.6
    assert fvu(rounded.sae, held_out) == pytest.approx(fvu(full.sae, held_out), rel=0.02)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="train.precision='float16' is not known: choose one of float32, bfloat16"):
        SAESpec("topk", 8, 16, k=2, precision="float16")
