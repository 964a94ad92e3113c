"""Steps, statistics, state, forks."""

import math
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file, save_file

from saescale.sae import kernels
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

BACKENDS = [pytest.param(name, marks=pytest.mark.skipif(name != "cpu" and not find_spec(name), reason=f"{name} is not installed"))
            for name in kernels.BACKENDS]
SPECS = {
    "topk": SAESpec("topk", 24, 96, k=5, dead_after_tokens=200),
    "relu_l1": SAESpec("relu_l1", 24, 96, sparsity_coeff=2.0),
    "wide relu_l1": SAESpec("relu_l1", 24, 2048, sparsity_coeff=30.0),
    "batchtopk": SAESpec("batchtopk", 24, 96, k=5, dead_after_tokens=200),
    "matryoshka": SAESpec("matryoshka", 24, 96, k=5, dead_after_tokens=200),
    "jumprelu": SAESpec("jumprelu", 24, 96, sparsity_coeff=2.0, bandwidth=0.5),
    "jumprelu_tanh": SAESpec("jumprelu_tanh", 24, 96, sparsity_coeff=2.0),
    "gated": SAESpec("gated", 24, 96, sparsity_coeff=2.0),
    "wide gated at an l0": SAESpec("gated", 24, 1024, sparsity_coeff=30.0, target_l0=8),
    "wide jumprelu at an l0": SAESpec("jumprelu", 24, 1024, sparsity_coeff=30.0, bandwidth=1.0, target_l0=8),
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def batches(n, seed=0, n_tokens=32, d_in=24):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, n_tokens, d_in, generator=generator) + 0.2
    return x * (d_in / x.square().sum(-1).mean()).sqrt()


def train(trainable, xs, lr=1e-2):
    for x in xs:
        trainable.step(x, lr, 0.5)
    return trainable


def started(spec, seed=0):
    return Trainable.create(spec, seed, InputSample.of(batches(1)[0]))


def assert_same_bits(one, other):
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.fixture(autouse=True, params=BACKENDS)
def backend(request, monkeypatch):
    """Every test here once with each backend."""
    monkeypatch.setattr(Trainable.create.__func__, "__defaults__", (request.param,))
    return request.param


@every_spec
def test_a_clone_trained_alike_has_the_same_bits_and_shares_no_memory(spec):
    xs = batches(12)
    original = train(started(spec), xs[:6])
    fork = original.clone()
    kept = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    train(fork, xs[6:])
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, kept[name]), name
    train(original, xs[6:])
    assert_same_bits(original, fork)


def test_stepping_others_in_between_changes_no_bit():
    xs = batches(12)
    fleet = {name: started(spec) for name, spec in SPECS.items()}
    for x in xs:
        for member in fleet.values():
            member.step(x, 1e-2, 0.5)
    for name, spec in SPECS.items():
        assert_same_bits(train(started(spec), xs), fleet[name])


@every_spec
def test_a_batch_at_an_odd_address_gives_the_same_bits(spec):
    xs = batches(5)
    storage = torch.empty(xs.numel() + 1)
    shifted = storage[1:].view(xs.shape).copy_(xs)
    assert_same_bits(train(started(spec), xs), train(started(spec), shifted))


@every_spec
def test_state_saved_to_safetensors_and_loaded_continues_with_the_same_bits(spec, tmp_path):
    xs = batches(12)
    whole = train(started(spec), xs)
    half = train(started(spec), xs[:6])
    save_file(half.state_dict(), tmp_path / "state.safetensors")
    resumed = started(spec, seed=99)
    resumed.load_state_dict(load_file(tmp_path / "state.safetensors"))
    assert_same_bits(whole, train(resumed, xs[6:]))
    assert whole.read_stats() == resumed.read_stats()


def test_a_state_of_other_sizes_or_with_missing_tensors_is_refused_and_nothing_changes():
    trainable = started(SPECS["topk"])
    before = trainable.clone()
    with pytest.raises(ValueError, match=r"params has shape .* but these settings need"):
        trainable.load_state_dict(started(SPECS["wide relu_l1"]).state_dict())
    with pytest.raises(ValueError, match="a training state has exactly"):
        trainable.load_state_dict({"params": trainable.params})
    assert_same_bits(trainable, before)


def test_decoder_rows_stay_unit_for_topk_and_are_free_for_relu_l1():
    topk, relu = train(started(SPECS["topk"]), batches(30)), train(started(SPECS["relu_l1"]), batches(30))
    assert torch.allclose(topk.sae.W_dec.norm(dim=1), torch.ones(96), atol=1e-6)
    assert relu.sae.W_dec.norm(dim=1).std() > 1e-3


def test_the_gradient_of_unit_rows_is_orthogonal_to_them():
    trainable = train(started(SPECS["topk"]), batches(5))
    trainable.compute_gradients(batches(1, seed=3)[0])
    along = (trainable.grads.W_dec * trainable.sae.W_dec).sum(1)
    assert along.abs().max() < 1e-5 * trainable.grads.W_dec.norm(dim=1).max()


def test_tokens_since_fired_counts_tokens_and_restarts_when_a_latent_fires():
    trainable = started(SPECS["topk"])
    trainable.sae.b_enc.fill_(-100.0)
    trainable.sae.b_enc[3] = 100.0
    for n_tokens in (32, 32, 10):
        trainable.compute_gradients(batches(1, n_tokens=n_tokens)[0])
    assert trainable.memory.tokens_since_fired[3] == 0
    assert trainable.memory.tokens_since_fired[4] == 74
    trainable.sae.b_enc[4] = 100.0
    trainable.compute_gradients(batches(1)[0])
    assert trainable.memory.tokens_since_fired[[3, 4, 5]].tolist() == [0, 0, 106]


def test_statistics_are_averages_over_the_steps_since_the_last_read():
    trainable, twin = started(SPECS["topk"]), started(SPECS["topk"])
    xs = batches(2)
    singles = []
    for x in xs:
        twin.step(x, 1e-3)
        singles.append(twin.read_stats())
    train(trainable, xs, lr=1e-3)
    both = trainable.read_stats()
    assert both["n_steps"] == 2
    for name in ("loss", "sum_sq_error", "l0", "grad_norm"):
        assert both[name] == pytest.approx((singles[0][name] + singles[1][name]) / 2), name
    assert math.isnan(trainable.read_stats()["loss"])


def test_the_reported_loss_is_that_of_the_weights_before_the_step():
    trainable = started(SPECS["relu_l1"])
    x = batches(1)[0]
    sae = trainable.sae.clone()
    trainable.step(x, 1e-2, sparsity_scale=1.0)
    acts = sae.encode(x)
    stats = trainable.read_stats()
    assert stats["loss"] == pytest.approx(sae.objective(x, sae.decode(acts), sae.encode_pairs(x)).mean().item(), rel=1e-5)
    assert stats["sum_sq_error"] == pytest.approx((x - sae.decode(acts)).square().sum(1).mean().item(), rel=1e-5)
    assert stats["l0"] == pytest.approx((acts > 0).sum(1).double().mean().item())


@every_spec
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_in_a_batch_shows_in_the_statistics(spec, bad):
    trainable = train(started(spec), batches(2))
    assert math.isfinite(trainable.read_stats()["loss"])
    x = batches(1)[0]
    x[3, 4] = bad
    trainable.step(x, 1e-3)
    assert not math.isfinite(trainable.read_stats()["loss"])


@every_spec
def test_a_weight_that_is_not_a_number_shows_in_the_statistics(spec):
    trainable = started(spec)
    trainable.sae.W_enc[3, 17] = float("nan")
    trainable.step(batches(1)[0], 1e-3)
    assert not math.isfinite(trainable.read_stats()["loss"])


def test_a_batch_of_another_width_or_dtype_is_refused():
    trainable = started(SPECS["topk"])
    with pytest.raises(ValueError, match=r"give float32 \[token, 24\]"):
        trainable.step(torch.zeros(4, 23), 1e-3)
    with pytest.raises(ValueError, match="float64"):
        trainable.step(torch.zeros(4, 24, dtype=torch.float64), 1e-3)


def test_the_moments_of_a_silent_latent_decay_to_zero_and_not_to_denormals():
    trainable = train(started(SPECS["topk"]), batches(2))
    trainable.sae.b_enc[7] = -1e6
    for _ in range(45):
        for x in batches(20):
            trainable.step(x, 0.0)
    start = 7 * 24  # row 7 of W_enc's storage
    assert torch.equal(trainable.adam.exp_avg[start : start + 24], torch.zeros(24))


def superposed(n_tokens, seed=0, n_features=64, d_in=24):
    generator = torch.Generator().manual_seed(7)
    directions = torch.nn.functional.normalize(torch.randn(n_features, d_in, generator=generator), dim=1)
    generator.manual_seed(seed)
    active = torch.rand(n_tokens, n_features, generator=generator) < 2.5 / n_features
    x = (active * (0.5 + torch.rand(n_tokens, n_features, generator=generator))) @ directions
    return x * (d_in / x.square().sum(1).mean()).sqrt()


@pytest.mark.parametrize(
    "spec, reached",
    [
        (SAESpec("topk", 24, 64, k=4), 0.15),
        (SAESpec("relu_l1", 24, 64, sparsity_coeff=0.5), 0.2),
        (SAESpec("batchtopk", 24, 64, k=4), 0.15),
        (SAESpec("matryoshka", 24, 64, k=4), 0.2),
        (SAESpec("jumprelu", 24, 64, sparsity_coeff=0.3, bandwidth=0.5), 0.2),
        (SAESpec("jumprelu_tanh", 24, 64, sparsity_coeff=0.3), 0.2),
        (SAESpec("gated", 24, 64, sparsity_coeff=0.3), 0.2),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_features_in_superposition_are_learned(spec, reached, backend):
    if spec.kind not in ("topk", "relu_l1") and backend != "cpu":
        pytest.skip("once for every kind is enough")
    x, held_out = superposed(50_000), superposed(2_000, seed=1)
    trainable = Trainable.create(spec, 0, InputSample.of(x))

    def fvu():
        return float(
            (held_out - trainable.sae.reconstruct(held_out)).square().sum() / (held_out - held_out.mean(0)).square().sum()
        )

    untrained = fvu()
    for i, batch in enumerate(x.split(250) * 3):
        trainable.step(batch, 1e-2 * min(1.0, (600 - i) / 120), min(1.0, i / 50))
    assert fvu() < reached < untrained / 3
