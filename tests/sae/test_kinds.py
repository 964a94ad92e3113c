"""What each kind of SAE promises beside its gradients: published traps, starts, inference."""

from dataclasses import fields

import pytest
import torch

from saescale import kinds as facts
from saescale.sae import kernels
from saescale.sae.kernels.select import above, batch_top_k
from saescale.sae.kinds import KINDS
from saescale.sae.kinds.matryoshka import group_ends
from saescale.sae.model import SAE, InputSample, init
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

JUMPS = {"jumprelu": dict(sparsity_coeff=5.0, bandwidth=0.5), "jumprelu_tanh": dict(sparsity_coeff=5.0)}


def inputs(n_tokens=256, d_in=16, seed=0):
    x = torch.randn(n_tokens, d_in, generator=torch.Generator().manual_seed(seed)) + 0.3
    return x * (d_in / x.square().sum(1).mean()).sqrt()


def started(kind, n_latents=64, **knobs):
    x = inputs()
    return Trainable.create(SAESpec(kind, 16, n_latents, **knobs), 0, InputSample.of(x)), x


def test_every_kind_that_may_be_asked_for_exists_and_takes_the_settings_said_of_it():
    assert KINDS.keys() == facts.KINDS.keys()
    for name, kind in KINDS.items():
        taken = {field.name for field in fields(kind)} - {"dead_after_tokens"}
        assert taken == facts.KINDS[name].settings, name
        assert len(kind.vectors) == facts.KINDS[name].vectors


def test_kinds_that_select_over_the_batch_say_so():
    """Half a batch gives other pairs exactly for these, so a planner must not split their batches."""
    for name, spec in {"topk": dict(k=3), "batchtopk": dict(k=3), "matryoshka": dict(k=3)}.items():
        trainable, x = started(name, **spec)
        x = x * torch.linspace(0.2, 2, len(x)).unsqueeze(1)
        pre_acts = trainable.sae.pre_acts(x)
        whole = trainable.sae.kind.select(trainable, pre_acts).latents
        parts = torch.cat([trainable.sae.kind.select(trainable, part).latents for part in pre_acts.split(128)])
        assert facts.KINDS[name].selects_over_batch == (not torch.equal(whole, parts)), name


@pytest.mark.parametrize("shape", [(1, 9), (7, 33), (64, 256), (50, 1000)], ids=str)
@pytest.mark.parametrize("share", [0.01, 0.2, 0.9])
def test_batch_top_k_keeps_the_largest_of_all_in_the_order_of_memory(shape, share):
    pre_acts = torch.randn(shape, generator=torch.Generator().manual_seed(1)) - 0.2
    n_kept = max(1, int(share * pre_acts.numel()))
    pairs = batch_top_k(pre_acts, n_kept)
    expected = torch.zeros(pre_acts.numel())
    largest = pre_acts.flatten().topk(n_kept)
    expected[largest.indices] = largest.values.relu()
    dense = torch.zeros(shape)
    dense[pairs.tokens, pairs.latents] = pairs.values
    assert torch.equal(dense.flatten(), expected)
    assert (pairs.tokens * shape[1] + pairs.latents).diff().gt(0).all()
    assert torch.equal(pairs.row_offsets.diff(), (dense > 0).sum(1))


def test_batch_top_k_breaks_ties_by_the_order_of_memory_and_keeps_what_is_no_number():
    pre_acts = torch.full((4, 32), 1.0)
    pre_acts[2, 5] = 2.0
    pairs = batch_top_k(pre_acts, 3)
    assert (pairs.tokens * 32 + pairs.latents).tolist() == [0, 1, 69]
    pre_acts[3, 3] = float("nan")
    assert 3 in batch_top_k(pre_acts, 2).tokens
    assert len(batch_top_k(-pre_acts.nan_to_num(1.0), 5).values) == 0


def test_above_is_a_comparison_with_the_threshold_itself():
    pre_acts = torch.tensor([[0.5, 0.6, -1.0], [0.7, 0.2, float("nan")]])
    assert above(pre_acts, torch.tensor([0.5, 0.5, 0.0])).latents.tolist() == [1, 0, 2]


# --- batchtopk and matryoshka


@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka"])
def test_the_inference_threshold_is_the_running_mean_of_the_smallest_active_value(kind):
    trainable, _ = started(kind, k=3)
    smallest = []
    for seed in range(130):
        x = inputs(64, seed=seed)
        smallest.append(float(batch_top_k(trainable.sae.pre_acts(x), 3 * 64).values.min()))
        trainable.step(x, 1e-3)
    mean = smallest[0]
    for i, value in enumerate(smallest[1:]):
        mean += max(0.01, 1 / (i + 2)) * (value - mean)
    assert float(trainable.memory.own["threshold"]) == pytest.approx(mean, rel=1e-6)
    assert trainable.sae.own["threshold"] is trainable.memory.own["threshold"]
    assert float(trainable.state_dict()["threshold"]) == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka"])
def test_inference_by_threshold_keeps_about_k_and_does_not_depend_on_the_batch(kind):
    trainable, x = started(kind, k=3)
    assert (init(trainable.spec, 0, InputSample.of(x)).encode(x) > 0).sum(1).float().mean() == pytest.approx(3, rel=0.02)
    for seed in range(40):
        trainable.step(inputs(seed=seed), 1e-3)
    for _ in range(300):  # the weights rest, and the mean catches up
        trainable.step(x, 0.0)
    acts = trainable.sae.encode(x)
    assert (acts > 0).sum(1).float().mean() == pytest.approx(3, rel=0.05)
    assert torch.allclose(acts[:7], trainable.sae.encode(x[:7]), atol=1e-6)


def test_the_objective_of_matryoshka_is_the_mean_over_prefixes():
    trainable, x = started("matryoshka", k=4)
    sae = trainable.sae
    assert group_ends(64) == [2, 6, 14, 30, 64] and group_ends(1000) == [31, 94, 219, 469, 1000]
    acts = sae.encode(x)
    expected = torch.stack([(x - acts[:, :end] @ sae.W_dec[:end] - sae.b_dec).square().sum(1) for end in group_ends(64)]).mean(0)
    assert torch.allclose(sae.objective(x, sae.reconstruct(x), sae.encode_pairs(x)), expected, rtol=1e-4)


def test_early_latents_of_a_matryoshka_do_more_of_the_work():
    def fvu_of_prefix(kind):
        trainable, _ = started(kind, k=4)
        for seed in range(100):
            trainable.step(inputs(seed=seed), 1e-2)
        x, sae = inputs(seed=999), trainable.sae
        return ((x - sae.encode(x)[:, :14] @ sae.W_dec[:14] - sae.b_dec).square().sum() / (x - x.mean(0)).square().sum()).item()

    assert fvu_of_prefix("matryoshka") < 0.85 * fvu_of_prefix("batchtopk")


# --- jumprelu


@pytest.mark.parametrize("kind", JUMPS)
def test_thresholds_move_under_adam_by_the_learning_rate_and_stay_float32(kind):
    trainable, _ = started(kind, **JUMPS[kind])
    before = trainable.sae.own["log_threshold"].clone()
    for seed in range(50):
        trainable.step(inputs(seed=seed), 1e-2)
    moved = trainable.sae.own["log_threshold"] - before
    assert moved.abs().median() > 0.3 * 50 * 1e-2  # e-folds
    assert trainable.sae.own["log_threshold"].dtype == torch.float32
    assert trainable.sae.own["log_threshold"].data_ptr() >= trainable.params.data_ptr()  # a view of what Adam updates


def test_the_l0_penalty_alone_raises_thresholds_and_lowers_l0():
    weak, _ = started("jumprelu", sparsity_coeff=0.01, bandwidth=0.5)
    strong, _ = started("jumprelu", sparsity_coeff=2.0, bandwidth=0.5)
    for seed in range(300):
        for trainable in (weak, strong):
            trainable.step(inputs(seed=seed), 1e-2)
    assert strong.sae.own["log_threshold"].mean() > weak.sae.own["log_threshold"].mean() + 0.3
    assert float(strong.memory.last_l0) < 0.5 * float(weak.memory.last_l0)


def test_of_rajamanoharan_the_step_reaches_thresholds_alone_and_of_anthropic_the_encoder_too():
    """A latent just below its threshold fires nowhere, but lies in the rectangle."""
    for kind, reaches_encoder in (("jumprelu", False), ("jumprelu_tanh", True)):
        trainable, x = started(kind, **{**JUMPS[kind], "bandwidth": 2.0}, **({"aux_coeff": 0.0} if reaches_encoder else {}))
        trainable.sae.own["log_threshold"].fill_(0.0)
        trainable.sae.W_enc[:, 5] *= 1e-3
        trainable.sae.b_enc[5] = 0.9
        trainable.compute_gradients(x)
        assert not (trainable.sae.encode(x)[:, 5] > 0).any()
        assert trainable.grads.own["log_threshold"][5] != 0
        assert bool(trainable.grads.W_enc[:, 5].any()) == reaches_encoder


def test_the_loss_on_silent_pre_activations_pulls_a_silent_latent_up():
    trainable, x = started("jumprelu_tanh", sparsity_coeff=1.0, aux_coeff=1.0)
    trainable.sae.b_enc[7] = -50.0
    trainable.compute_gradients(x)
    assert trainable.grads.b_enc[7] == pytest.approx(-float(trainable.sae.W_dec[7].norm()), rel=1e-4)


def test_anthropics_start_lets_every_latent_fire_equally_often():
    x = inputs(1024)
    sae = init(SAESpec("jumprelu_tanh", 16, 40_000, sparsity_coeff=1.0), 0, InputSample.of(x))
    rates = (sae.pre_acts(x) > 0.1).float().mean(0)
    assert rates.min() > 0.24 and rates.max() < 0.26  # 10,000 of 40,000
    assert torch.allclose(sae.W_enc, sae.W_dec.T * 16 / 40_000) and sae.W_dec.abs().max() <= 0.25
    few = init(SAESpec("jumprelu_tanh", 16, 50, sparsity_coeff=1.0), 0, InputSample.of(x))
    assert (few.pre_acts(x) > 0.1).float().mean() == pytest.approx(0.5, abs=0.01)


def test_thresholds_of_deepminds_start_at_the_bandwidth_scaled_with_the_inputs():
    sae = init(SAESpec("jumprelu", 16, 50, sparsity_coeff=1.0), 0)
    assert torch.allclose(sae.own["log_threshold"].exp(), torch.full((50,), 4e-3))
    assert not sae.b_dec.any()


# --- gated


def hand_made_gated():
    W_enc = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).T
    own = {"b_mag": torch.tensor([0.5, -9.0]), "r_mag": torch.tensor([0.0, 0.0])}
    return SAE(KINDS["gated"](sparsity_coeff=2.0), W_enc, torch.tensor([0.0, -1.0]), torch.eye(2), torch.zeros(2), own)


def test_gated_magnitudes_count_behind_open_gates_alone():
    sae, x = hand_made_gated(), torch.tensor([[1.0, 3.0], [-1.0, 2.0]])
    assert sae.encode(x).tolist() == [[1.5, 0.0], [0.0, 0.0]]  # the second latent's gate is open, its magnitude is not
    x_hat = sae.reconstruct(x)
    assert sae.objective(x, x_hat, sae.encode_pairs(x)).tolist() == [0.25 + 9 + 2.0 * (1 + 2), 1 + 4 + 2.0 * (0 + 1)]


def test_the_frozen_copy_of_the_decoder_takes_no_gradient_from_the_gates():
    """With every magnitude shut, all that is left of the loss for the decoder's rows is nothing."""
    trainable, x = started("gated", sparsity_coeff=1.0)
    trainable.sae.own["b_mag"].fill_(-100.0)
    terms = trainable.compute_gradients(x)
    assert terms.aux_loss > 0 and trainable.grads.W_enc.any()
    assert not trainable.grads.W_dec.any()


# --- all


@pytest.mark.parametrize("name", facts.KINDS)
def test_both_backends_train_a_kind_to_the_same_weights(name):
    pytest.importorskip("numba")
    knobs = dict(k=3) if facts.KINDS[name].keeps_k else dict(sparsity_coeff=1.0)
    spec = SAESpec(name, 16, 64, **knobs)
    trained = []
    for backend in kernels.BACKENDS:
        trainable = Trainable.create(spec, 0, InputSample.of(inputs()), backend)
        trainable.memory.last_touched.fill_(0)  # sparse, where there is a choice
        trainable.step(inputs(seed=1), 1e-3)
        trained.append(trainable)
    assert torch.allclose(trained[0].params, trained[1].params, atol=1e-5)
