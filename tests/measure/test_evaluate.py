"""Evaluation on made-up activations and a language model whose losses are known."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from saescale.activations.tokens import TokenSplit
from saescale.measure import evaluate as module
from saescale.measure.evaluate import HeldOut, evaluate
from saescale.sae import export
from saescale.sae.model import InputSample, init
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

D, N_CTX, SCALE = 8, 12, 0.5
SPECS = {"topk": SAESpec("topk", D, 24, k=3, k_aux=4), "relu_l1": SAESpec("relu_l1", D, 24, sparsity_coeff=2.0),
         "batchtopk": SAESpec("batchtopk", D, 24, k=3, k_aux=4),
         "jumprelu": SAESpec("jumprelu", D, 24, sparsity_coeff=2.0, bandwidth=0.5),
         "gated at an l0": SAESpec("gated", D, 24, sparsity_coeff=2.0, target_l0=3)}


def made_up_split():
    r = np.random.default_rng(0)
    lengths = r.integers(3, N_CTX + 1, 40).astype(np.int32)
    ids = r.integers(1, 50, (40, N_CTX)).astype(np.int32)
    return TokenSplit(ids, lengths, np.sort(r.integers(0, 9, 40)).astype(np.int32), 4)


class MadeUp:
    """Activations of 10 forward batches, off centre; the language model below computes the very same."""

    def __init__(self, tokens):
        self.tokens, self.counts = tokens, tokens.batch_token_counts
        self.table = torch.randn(50, D, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.3, 2, D) + 1

    def batch(self, index):
        return self.table[torch.from_numpy(self.tokens.batch(index)[self.tokens.kept(index)]).long()].clone()


class Loss:
    """A "language model" whose loss at a position is how far what stands at the hook is from what should stand there."""

    def __init__(self, table):
        self.table = table

    def token_losses(self, ids, replace=None):
        x = self.table[ids]
        seen = x if replace is None else replace(x)
        return (1 + (x - seen).square().sum(-1))[:, :-1]


@pytest.fixture
def held_out():
    tokens = made_up_split()
    source = MadeUp(tokens)
    return HeldOut(tokens, source, Loss(source.table), SCALE, {"n_tokens": 180, "ce_tokens": 60})


@pytest.fixture(params=SPECS)
def trained(request, held_out):
    trainable = Trainable.create(SPECS[request.param], 0, InputSample.of(held_out.x))
    for _ in range(60):
        trainable.step(held_out.x[torch.randperm(len(held_out.x), generator=torch.Generator().manual_seed(2))], 1e-2)
    return trainable


def by_hand(sae, held_out):
    """float64 arrays of the whole set: x, x_hat, dense latent activations."""
    acts = sae.encode(held_out.x).double().numpy()
    return held_out.x.double().numpy(), acts @ sae.W_dec.double().numpy() + sae.b_dec.double().numpy(), acts


def test_numbers_equal_a_float64_computation_over_the_whole_set(trained, held_out, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 37)  # chunks that divide nothing
    found, _ = evaluate(trained.sae, held_out)
    x, x_hat, acts = by_hand(trained.sae, held_out)
    spread = ((x - x.mean(0)) ** 2).sum()
    penalty = {"relu_l1": 2.0 * (acts * trained.sae.W_dec.double().norm(dim=1).numpy()).sum(),
               "jumprelu": 2.0 * (acts > 0).sum()}.get(trained.spec.kind, 0.0)  # and none where l0 is a constraint
    assert found["fvu"] == pytest.approx(((x - x_hat) ** 2).sum() / spread, rel=1e-4)
    assert found["objective"] == pytest.approx((((x - x_hat) ** 2).sum() + penalty) / spread, rel=1e-4)
    assert found["mse"] == pytest.approx(((x - x_hat) ** 2).mean(), rel=1e-4)
    assert found["variance"] == pytest.approx(spread / x.size, rel=1e-4)
    assert found["l0"] == pytest.approx((acts > 0).sum(1).mean())
    assert found["n_held_out_tokens"] == len(x) >= 180 > len(x) - 44


def test_first_fired_and_the_counts_are_those_of_positive_activations(trained, held_out, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 37)
    trained.sae.b_enc[5] = -1e9  # one latent that never fires
    _, (first, count) = evaluate(trained.sae, held_out)
    acts = by_hand(trained.sae, held_out)[2]
    expected = [next((p for p in range(len(acts)) if acts[p, i] > 0), -1) for i in range(24)]
    assert first.dtype == torch.int64 and first.tolist() == expected and expected[5] == -1
    assert count.tolist() == (acts > 0).sum(0).tolist() and count[5] == 0


def test_standard_errors_agree_with_resampling_documents(trained, held_out):
    found, _ = evaluate(trained.sae, held_out)
    x, x_hat, _ = by_hand(trained.sae, held_out)
    documents, r = held_out.documents.numpy(), np.random.default_rng(0)
    error, spread = ((x - x_hat) ** 2).sum(1), ((x - x.mean(0)) ** 2).sum(1)
    sums = np.array([[error[documents == d].sum(), spread[documents == d].sum()] for d in np.unique(documents)])
    draws = [sums[r.integers(0, len(sums), len(sums))].sum(0) for _ in range(4000)]
    assert found["fvu_se"] == pytest.approx(np.std([a / b for a, b in draws]), rel=0.3)


def test_losses_with_the_sae_are_those_of_its_reconstruction_at_the_kept_positions_alone(trained, held_out):
    found, _ = evaluate(trained.sae, held_out)
    tokens, source, errors, norms = held_out.tokens, held_out.source, [], []
    for i in range(held_out.tokens.batches_for(60)):
        rows = source.batch(i)
        error = (trained.sae.reconstruct(rows * SCALE) / SCALE - rows).square().sum(1)
        sequence = np.nonzero(tokens.kept(i))[0]
        last = np.append(sequence[1:] != sequence[:-1], True)  # the last kept token of a sequence predicts no text
        errors.append(error[torch.from_numpy(~last)])
        norms.append(rows.square().sum(1)[torch.from_numpy(~last)])
    assert found["n_ce_tokens"] == len(torch.cat(errors))
    assert found["ce_clean"] == pytest.approx(1)
    assert found["ce_with_sae"] == pytest.approx(1 + float(torch.cat(errors).mean()), rel=1e-4)
    assert found["ce_zero_ablated"] == pytest.approx(1 + float(torch.cat(norms).mean()), rel=1e-4)
    clean, spliced, zero = found["ce_clean"], found["ce_with_sae"], found["ce_zero_ablated"]
    assert found["ce_recovered"] == pytest.approx((zero - spliced) / (zero - clean), rel=1e-4)
    assert found["delta_ce"] == pytest.approx(spliced - clean, rel=1e-4)


def test_evaluating_leaves_the_training_state_and_the_held_out_set_as_they_were(trained, held_out):
    before = {k: t.clone() for k, t in trained.state_dict().items()}
    x = held_out.x.clone()
    once, (first, _) = evaluate(trained.sae, held_out)
    again, (second, _) = evaluate(trained.sae, held_out)
    assert all(torch.equal(t, before[k]) for k, t in trained.state_dict().items())
    assert torch.equal(held_out.x, x) and once == again and torch.equal(first, second)


def test_the_exported_sae_gives_the_same_fvu_on_raw_activations(trained, held_out, tmp_path):
    found, _ = evaluate(trained.sae, held_out)
    export.save(trained.sae, SCALE, tmp_path, {})
    raw = (held_out.x / SCALE).double()
    error = raw - export.load(tmp_path).reconstruct(raw.float()).double()
    assert found["fvu"] == pytest.approx(float(error.square().sum() / (raw - raw.mean(0)).square().sum()), rel=1e-4)


def test_a_number_that_cannot_be_had_is_null_and_not_zero(held_out):
    one = TokenSplit(held_out.tokens.sequences, held_out.tokens.lengths, np.zeros(40, np.int32), 4)
    lone = HeldOut(one, held_out.source, SimpleNamespace(token_losses=held_out.lm.token_losses), SCALE, held_out.eval_block)
    found, _ = evaluate(init(SPECS["topk"], 0, InputSample.of(held_out.x)), lone)
    assert found["fvu_se"] is None and found["n_documents"] == 1 and math.isfinite(found["fvu"])
