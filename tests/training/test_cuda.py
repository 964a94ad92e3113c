"""Training on a GPU: `make test-cuda`. Nothing here runs where torch sees no GPU, so read it before you trust it."""

import json

import pytest
import torch

from saescale.campaign import devices
from saescale.measure.evaluate import evaluate
from saescale.sae import kernels
from saescale.sae.model import InputSample, init
from saescale.sae.spec import SAESpec
from saescale.training import fleet, train
from saescale.training.ahead import Ahead
from saescale.training.finish import Bench
from saescale.training.probe import probe

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")]
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs here")
CPU, CUDA = ("cluster.device=cpu", "cluster.kernels=cpu"), ("cluster.device=cuda", "cluster.kernels=torch")
WITHIN = 0.002  # of the final held-out fvu: the tolerance between kernels
MADE_BY = ("device", "kernels")
AUTO = ("cluster.device=auto", "cluster.kernels=cpu")  # triton where it is installed
every_how = pytest.mark.parametrize("how", [CUDA, AUTO], ids=["torch kernels", "auto"])


def fvu_of(bed, *overrides):
    return {r.run_id: metrics(bed, r)["fvu"] for r in bed.plan(*overrides).runs}


def metrics(bed, run):
    return json.loads((bed.store.run_dir(run.run_id) / "result.json").read_text())["metrics"]


def environments(bed, *overrides):
    results = [json.loads((bed.store.run_dir(r.run_id) / "result.json").read_text()) for r in bed.plan(*overrides).runs]
    return {tuple(r["environment"][name] for name in MADE_BY) for r in results}


def trained(bed, *overrides):
    outcome = bed.launch(*overrides)
    assert outcome.exit_code == 0, outcome.messages
    return bed.left_by(bed.plan(*overrides))


def stopped_after(monkeypatch, n_blocks):
    """The training loop saves and ends after so many blocks."""
    left, original = iter([True] * n_blocks), train.next_step
    monkeypatch.setattr(train, "next_step", lambda *args: original(*args) if next(left, False) else None)


@every_how
def test_a_fleet_with_trunk_and_branches_trained_on_a_gpu_ends_at_the_held_out_error_of_the_processor(bed, how):
    kinds = ("sae=topk", "sae.n_latents=24,40")
    alone = bed.another("alone")
    trained(alone, *kinds, *CPU)
    trained(bed, *kinds, *how)
    wanted = kernels.resolve("auto", "cuda") if how is not CUDA else "torch"
    assert environments(bed, *kinds) == {(torch.cuda.get_device_name(), wanted)}
    assert fvu_of(bed, *kinds) == pytest.approx(fvu_of(alone, *kinds), rel=WITHIN)


@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka", "relu_l1", "jumprelu", "gated"])
def test_every_other_kind_trained_on_a_gpu_ends_at_the_held_out_error_of_the_processor(bed, kind):
    keeps = ["sae.k=4"] if kind in ("batchtopk", "matryoshka") else []
    one = (f"sae={kind}", "sae.n_latents=40", "train.n_tokens=19200", *keeps)
    alone = bed.another("alone")
    trained(alone, *one, *CPU)
    trained(bed, *one, *CUDA)
    assert fvu_of(bed, *one) == pytest.approx(fvu_of(alone, *one), rel=WITHIN)


@every_how
def test_the_same_job_on_the_same_gpu_gives_the_same_bits(bed, how):
    again = bed.another("again")
    assert trained(bed, *how) == trained(again, *how)


def test_steps_recorded_as_a_graph_give_the_bits_of_steps_that_are_not(bed, monkeypatch):
    again = bed.another("again")
    recorded = trained(bed, *AUTO)
    monkeypatch.setattr(fleet, "is_recorded", lambda _: False)
    assert trained(again, *AUTO) == recorded


@every_how
def test_a_job_stopped_and_resumed_on_a_gpu_gives_the_bits_of_an_undisturbed_one(bed, monkeypatch, how):
    again = bed.another("again")
    with monkeypatch.context() as m:
        stopped_after(m, 1)
        assert again.launch(*how).exit_code == 3
    assert trained(again, *how) == trained(bed, *how)


@pytest.mark.parametrize("before, after", [(CUDA, CPU), (CPU, CUDA)], ids=["from GPU to processor", "from processor to GPU"])
def test_a_trunk_begun_on_one_kind_of_device_goes_on_on_the_other_and_says_so(bed, monkeypatch, capfd, before, after):
    alone = bed.another("alone")
    trained(alone, *CPU)
    with monkeypatch.context() as m:
        stopped_after(m, 1)
        assert bed.launch(*before).exit_code == 3
    trained(bed, *after)
    assert "the same to rounding, not bit for bit" in capfd.readouterr().err
    assert fvu_of(bed) == pytest.approx(fvu_of(alone), rel=WITHIN)


def test_blocks_read_ahead_give_the_bits_of_blocks_read_when_they_are_asked_for(bed, monkeypatch):
    again = bed.another("again")
    ahead = trained(bed, *CUDA)
    monkeypatch.setattr(train, "Ahead", lambda read, _after, device: Ahead(read, lambda _: None, device))
    assert trained(again, *CUDA) == ahead


def test_a_block_read_ahead_is_the_block_that_was_read():
    rows = torch.randn(6, 4096, 64, generator=torch.Generator().manual_seed(0))
    blocks = Ahead(lambda i: rows[i], lambda i: i + 1 if i < 5 else None, torch.device("cuda"))
    for i in range(6):
        block = blocks.get(i)
        busy = torch.randn(1024, 1024, device="cuda")
        for _ in range(20):
            busy = (busy @ busy).clamp(-1, 1)
        assert block.is_cuda and torch.equal(block.cpu(), rows[i])


def test_live_activations_of_a_gpu_are_those_it_harvests(bare):
    live = bare.another_empty("live")
    harvested = trained(bare, *CUDA)
    assert trained(live, *CUDA, "activations=live") == harvested


def test_a_dictionary_measured_on_a_gpu_has_the_numbers_of_the_processor(bed):
    run = bed.plan("sae.n_latents=40").runs[0]
    bench = Bench(bed.store, run.science, {**run.execution, "lm_device": "cpu"})
    sae = init(SAESpec.of(run.science), 0, InputSample.of(bench.held_out.x[:2048].clone()))
    (ours, firing), (theirs, expected) = evaluate(sae.to("cuda"), bench.held_out), evaluate(sae, bench.held_out)
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert (firing.count - expected.count).abs().sum() <= 1e-3 * expected.count.sum()
    assert (firing.first == expected.first).float().mean() > 0.95


def test_a_probe_measures_the_memory_of_the_gpu(bed):
    run = bed.plan("sae.n_latents=40").runs[0]
    found = probe(dict(run.science), "auto", torch.device("cuda"))
    assert found["tokens_per_s"] > 0 and 0 < found["peak_gb"] < 2


@two_gpus
@pytest.mark.parametrize("above", [(), ("cluster.shard_above_gb=0",)], ids=["placed", "sharded"])
def test_two_ranks_with_a_gpu_each_end_at_the_held_out_error_of_one(bed, above):
    kinds = ("sae=topk", "sae.n_latents=24,40", "train.n_tokens=19200")
    two = ("cluster=local", "cluster.workers=1", "cluster.ranks=2", *above)
    alone = bed.another("alone")
    trained(alone, *kinds, *CUDA)
    trained(bed, *kinds, *CUDA, *two, "activations=live")
    assert fvu_of(bed, *kinds) == pytest.approx(fvu_of(alone, *kinds), rel=WITHIN)


@pytest.mark.skipif(torch.cuda.device_count() != 1, reason="not exactly one GPU here")
def test_two_ranks_on_one_gpu_are_refused_in_one_sentence(bed, monkeypatch):
    monkeypatch.setattr(devices, "gpus_here", lambda: (devices.GPU("Card", 8e9, 8e9),) * 2)  # else the plan refuses it
    outcome = bed.launch(*CUDA, "cluster=local", "cluster.workers=1", "cluster.ranks=2")
    assert outcome.exit_code == 3
    assert "this job has 2 ranks and 1 GPU: each rank needs one of its own" in " ".join(outcome.messages)
