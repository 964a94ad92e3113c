"""Solving a penalty's weight for an l0."""

import math

import pytest
import torch

from saescale.sae import control
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable


def scalars(coeff):
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in control.scalars(coeff).items()}


def test_too_many_active_latents_raise_the_weight_and_too_few_lower_it():
    for l0, rises in ((64.0, True), (16.0, False)):
        own = scalars(0.5)
        control.follow(own, l0, 32.0, 1e-2)
        assert (float(own["sparsity_coeff"]) > 0.5) == rises


def test_at_the_wanted_l0_the_weight_rests():
    own = scalars(0.5)
    control.follow(own, 32.0, 32.0, 1e-2)
    assert float(own["sparsity_coeff"]) == pytest.approx(0.5)


def test_an_l0_of_zero_is_an_error_like_another():
    own = scalars(0.5)
    control.follow(own, 0.0, 32.0, 1e-2)
    assert 0 < float(own["sparsity_coeff"]) < 0.5


def test_the_set_point_goes_geometrically_from_half_of_the_latents_to_the_target():
    assert control.set_point(8, 1024, 0.0) == 512
    assert control.set_point(8, 1024, 0.5) == pytest.approx(math.sqrt(512 * 8))
    assert control.set_point(8, 1024, 1.0) == 8


@pytest.mark.parametrize("far_off", [0.02, 10.0], ids=["begins too weak", "begins too strong"])
@pytest.mark.parametrize("kind", ["relu_l1", "jumprelu", "jumprelu_tanh", "gated"])
def test_the_wanted_l0_is_reached_from_a_weight_far_off(kind, far_off):
    knobs = {"bandwidth": 0.5} if kind == "jumprelu" else {}
    spec = SAESpec(kind, 16, 128, sparsity_coeff=far_off, target_l0=6, **knobs)
    generator = torch.Generator().manual_seed(3)
    directions = torch.nn.functional.normalize(torch.randn(64, 16, generator=generator), dim=1)
    x = (torch.rand(40_000, 64, generator=generator) < 3 / 64) * (0.5 + torch.rand(40_000, 64, generator=generator)) @ directions
    x *= (16 / x.square().sum(1).mean()).sqrt()
    trainable = Trainable.create(spec, 0, InputSample.of(x))
    for i in range(500):
        trainable.step(x[i * 64 % 40_000:][:64], 1e-2 * min(1, (500 - i) / 100), min(1.0, i / 50))
    l0 = (trainable.sae.encode(x[:4000]) > 0).sum(1).float().mean()
    assert l0 == pytest.approx(6, rel=0.12)
    found = float(trainable.sae.own["sparsity_coeff"])
    assert found not in (far_off, 0.0) and trainable.read_stats()["sparsity_coeff"] == found


def test_a_weight_beyond_every_number_is_infinite_and_no_error():
    own = scalars(0.5)
    for _ in range(3):
        control.follow(own, 1000.0, 2.0, 1e3)  # a learning rate that diverges: log weight 200, 580, 1122
    assert float(own["sparsity_coeff"]) == math.inf
