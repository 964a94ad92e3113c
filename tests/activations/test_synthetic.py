"""Synthetic activations: what fires, how often, and that the truth can be found again."""

import numpy as np
import pytest
import torch

from saescale.activations.stream import Stream
from saescale.activations.synthetic import SyntheticSource, Truth, rates, truth
from saescale.measure.recovery import best_alignment, latents_per_feature
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

SETTINGS = {"source": "synthetic", "seed": 0, "n_tokens": 40_960, "n_features": 200, "d_in": 24, "zipf_exponent": 1.1,
            "mean_l0": 4.0, "max_rate": 0.6, "magnitude_low": 0.5, "magnitude_high": 1.5, "hierarchy_roots": 0,
            "hierarchy_branching": 3, "manifold_fraction": 0.0, "noise": 0.0, "batch_tokens": 4096}


def science(dtype="float32", **changes):
    return {"activations": {**SETTINGS, **changes}, "data": {"activation_dtype": dtype}, "eval": {"n_tokens": 5000}}


def fired(source, n_batches=10):
    """bool [token, feature] of the first forward batches."""
    out = np.zeros((n_batches * 4096, len(source.truth.rates)), dtype=bool)
    for i in range(n_batches):
        tokens, features = source.firings(np.random.default_rng(i))
        out[i * 4096 + tokens, features] = True
    return out


def test_rates_follow_zipf_up_to_the_largest_and_sum_to_the_mean_l0():
    found = rates(SETTINGS)
    assert found.sum() == pytest.approx(4.0) and found[0] == 0.6 and (np.diff(found) <= 0).all()
    assert found[99] / found[49] == pytest.approx(2**-1.1)


@pytest.mark.parametrize("roots", [0, 5])
def test_features_fire_at_their_rates_with_and_without_a_hierarchy(roots):
    source = SyntheticSource(science(hierarchy_roots=roots), "train")
    seen, p = fired(source), source.truth.rates
    z = (seen.mean(0) - p) / np.sqrt(p * (1 - p) / len(seen))
    assert np.abs(z).max() < 5 and 0.8 < z.std() < 1.2


def test_without_a_hierarchy_features_fire_independently():
    seen = fired(SyntheticSource(science(), "train"))
    both, p = (seen[:, 0] & seen[:, 1]).mean(), seen.mean(0)
    assert both == pytest.approx(p[0] * p[1], rel=0.05)


def test_a_child_fires_only_with_its_parent():
    seen = fired(SyntheticSource(science(hierarchy_roots=5), "train"), 2)
    for child in range(5, 200):
        assert not (seen[:, child] & ~seen[:, (child - 5) // 3]).any()
    assert seen[:, 5:].any(0).sum() > 100


def test_a_batch_is_the_sum_of_what_fires_times_its_directions(monkeypatch):
    source = SyntheticSource(science(magnitude_low=1.0, magnitude_high=1.0), "train")
    drawn = []
    firings = source.firings
    monkeypatch.setattr(source, "firings", lambda r: drawn.append(firings(r)) or drawn[-1])
    x = source.batch(3)
    tokens, features = drawn[0]
    expected = np.zeros((4096, 24))
    np.add.at(expected, tokens, source.truth.directions.numpy()[features].astype(float))
    assert torch.allclose(x.double(), torch.from_numpy(expected), atol=1e-5)
    assert (np.bincount(tokens, minlength=4096) == 0).any() and torch.equal(x[tokens.min() - 1] * 0, torch.zeros(24))


def test_a_feature_on_a_circle_fires_all_around_it_in_its_own_plane():
    block = science(n_features=1, mean_l0=0.5, manifold_fraction=1.0, magnitude_low=1.0, magnitude_high=1.0)
    known, x = truth(block), SyntheticSource(block, "train").batch(0)
    x = x[x.norm(dim=1) > 0]
    plane = torch.cat([known.directions, known.second])
    assert torch.allclose(plane @ plane.T, torch.eye(2), atol=1e-6)
    at = x @ plane.T
    assert torch.allclose(at @ plane, x, atol=1e-5) and torch.allclose(x.norm(dim=1), torch.ones(len(x)), atol=1e-5)
    quarter = (at > 0).long() @ torch.tensor([1, 2])
    assert torch.bincount(quarter, minlength=4).min() > len(x) / 5


def test_a_feature_on_a_sphere_fires_all_over_it_in_its_own_space():
    block = science(n_features=2, mean_l0=1.0, max_rate=0.9, manifold_fraction=1.0, manifold_dim=4, one_at_a_time=True,
                    magnitude_low=1.0, magnitude_high=1.0)  # fmt: skip
    known, source = truth(block), SyntheticSource(block, "train")
    x, feature = source.batch(0), source.fired(0)[1]
    for i in (0, 1):
        axes = torch.stack([known.directions[i], *known.more[:, i]])
        at = x[feature == i] @ axes.T
        assert torch.allclose(axes @ axes.T, torch.eye(4), atol=1e-5)
        assert torch.allclose(at @ axes, x[feature == i], atol=1e-5) and torch.allclose(at.norm(dim=1), torch.tensor(1.0))
        assert torch.allclose(at.T @ at / len(at), torch.eye(4) / 4, atol=0.03)


def test_one_at_a_time_every_token_has_one_feature_by_its_rate():
    source = SyntheticSource(science(mean_l0=1.0, one_at_a_time=True), "train")
    tokens, features = source.fired(0)
    assert (tokens == np.arange(4096)).all() and source.truth.rates.sum() == pytest.approx(1.0)
    seen = np.bincount(np.concatenate([source.fired(i)[1] for i in range(10)]), minlength=200)[:50] / 40_960
    assert seen == pytest.approx(source.truth.rates[:50], rel=0.25)


def test_a_latent_belongs_to_the_feature_whose_space_holds_most_of_it_or_to_none():
    axes = torch.eye(6)
    known = Truth(axes[[0, 1]], torch.stack([axes[[2, 3]]]), np.full(2, 0.1))  # feature 0: axes 0 and 2; feature 1: 1 and 3
    rows = torch.stack([axes[0] + axes[2], -axes[3], axes[1] + 0.2 * axes[0], axes[4], axes[0] + 2 * axes[5]])
    assert latents_per_feature(rows, known).tolist() == [1, 2]


def test_only_the_asked_for_share_of_features_lies_on_circles():
    assert int((truth(science(manifold_fraction=0.3)).second != 0).any(1).sum()) == 60
    assert not truth(science()).second.any()


def test_the_noise_has_its_root_mean_square_norm():
    a, b = SyntheticSource(science(), "train").batch(0), SyntheticSource(science(noise=0.5), "train").batch(0)
    assert float((b - a).square().sum(1).mean()) ** 0.5 == pytest.approx(0.5, rel=0.02)


def test_batches_are_a_function_of_seed_split_and_index_and_are_rounded_like_harvested_ones():
    one, again = SyntheticSource(science(), "train"), SyntheticSource(science(), "train")
    later = one.batch(7)
    one.batch(2)
    assert torch.equal(later, again.batch(7)) and torch.equal(one.batch(7), later)
    held_out = SyntheticSource(science(), "held_out")
    assert held_out.n_tokens == 8192 and one.n_tokens == 40_960
    others = [SyntheticSource(science(seed=1), "train").batch(7), one.batch(6), held_out.batch(0), one.batch(0)]
    assert len({float(x.sum()) for x in (later, *others)}) == 5
    rounded = SyntheticSource(science("bfloat16"), "train").batch(7)
    assert rounded.dtype == torch.float32 and torch.equal(rounded, later.bfloat16().float())


def test_the_directions_come_back_from_the_science_block_alone():
    found = truth(science(noise=0.1)).directions
    assert torch.equal(found, SyntheticSource(science(), "train").truth.directions)
    assert torch.allclose(found.norm(dim=1), torch.ones(200), atol=1e-6)
    assert not torch.equal(found, truth(science(seed=1)).directions)


def test_the_best_decoder_cosine_of_each_direction_worked_by_hand():
    W_dec, directions = torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    found, row = best_alignment(W_dec, Truth(directions, torch.zeros(1, 3, 2), np.full(3, 0.1)), torch.arange(3))
    assert torch.allclose(found, torch.tensor([1.0, 0.5**0.5, -(0.5**0.5)])) and row.tolist() == [0, 1, 1]


def test_a_dictionary_recovers_the_frequent_features_and_presence_falls_with_rank():
    block = science(n_features=400, d_in=48, n_tokens=60_000)
    source = SyntheticSource(block, "train")
    x0 = source.batch(0)
    stream = Stream(source, 0, (48 / float(x0.square().sum(1).mean())) ** 0.5)
    spec = SAESpec("topk", 48, 128, k=4, dead_after_tokens=4096)
    trained = Trainable.create(spec, 0, InputSample.of(x0 * stream.scale))
    for step in range(400):
        trained.step(stream.read(step * 256, 256), 8e-3 * min(1, (400 - step) / 80))
    present = best_alignment(trained.sae.W_dec, truth(block), torch.arange(400))[0] > 0.7
    by_rank = present.float().split([20, 80, 300])
    shares = [float(part.mean()) for part in by_rank]
    assert shares[0] == 1.0 and shares[0] > shares[1] > shares[2] and shares[2] < 0.2, shares
