"""Trained dictionaries beside the best division of their latents, where one sphere fires at a time."""

import numpy as np
import pytest
import torch

from analysis.tiling import divide, left_on_sphere
from saescale.activations.stream import Stream
from saescale.activations.synthetic import SyntheticSource, truth
from saescale.measure.recovery import latents_per_feature
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

A = {"source": "synthetic", "seed": 0, "n_tokens": 262_144, "n_features": 200, "d_in": 64, "zipf_exponent": 2.0, "mean_l0": 1.0,
     "max_rate": 0.1, "magnitude_low": 1.0, "magnitude_high": 1.0, "hierarchy_roots": 0, "hierarchy_branching": 4,
     "manifold_fraction": 1.0, "manifold_dim": 4, "one_at_a_time": True, "noise": 0.0, "batch_tokens": 4096}
SCIENCE = {"activations": A, "data": {"activation_dtype": "float32"}, "eval": {"n_tokens": 16_384}}


def trained(n_latents, steps):
    source = SyntheticSource(SCIENCE, "train")
    x0 = source.batch(0)
    stream = Stream(source, 0, (64 / float(x0.square().sum(1).mean())) ** 0.5)
    spec = SAESpec("topk", 64, n_latents, k=1, dead_after_tokens=100 * n_latents)
    found = Trainable.create(spec, 0, InputSample.of(x0 * stream.scale))
    for step in range(steps):
        found.step(stream.read(step * 256, 256), 5e-3 * (64 / n_latents) ** 0.5 * min(1, (steps - step) / (0.2 * steps)))
    return found.sae, stream.scale


@pytest.mark.slow
def test_a_small_dictionary_divides_its_latents_as_the_best_division_does():
    sae, scale = trained(32, 1000)
    known = truth(SCIENCE)
    best = divide(known.rates, left_on_sphere(4, 40), 32)
    held = SyntheticSource(SCIENCE, "held_out")
    x = torch.cat([held.batch(i) for i in range(4)]) * scale
    with torch.inference_mode():
        fvu = float(((x - sae.decode_pairs(sae.encode_pairs(x))) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())
    spent = latents_per_feature(sae.W_dec, known)
    assert fvu == pytest.approx(best.loss, abs=0.03)
    assert abs(int((spent > 0).sum()) - best.discovered) <= 2 and spent.sum() >= 30
    assert np.abs(spent[:10] - best.latents[:10]).mean() < 2  # more than two thirds of the features have none in either
    assert spent[20:].sum() <= 2
