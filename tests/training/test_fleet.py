import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from saescale.activations.folder import BUNDLED
from saescale.activations.inputs import Inputs
from saescale.sae.export import unscaled
from saescale.sae.kernels import resolve
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable
from saescale.training import train

MIXED = ("sae.n_latents=16,40", "seed=0,1")
RELU = ("sae=relu_l1", "train.sparsity_warmup_tokens=6400")
GATED_AT_L0 = ("sae=gated", "sae.target_l0=6", "train.sparsity_warmup_tokens=6400")


@pytest.fixture
def steps(monkeypatch):
    """Every training step made, as the learning rate it was made with."""
    made, step = [], Trainable.step

    def counted(self, x, lr, sparsity_scale=1.0):
        made.append(lr)
        step(self, x, lr, sparsity_scale)

    monkeypatch.setattr(Trainable, "step", counted)
    return made


def test_a_run_in_a_fleet_is_the_run_alone_bit_for_bit(bed, steps):
    together = bed.plan(*MIXED)
    assert len(together.runs) == 8 and len({r.trunk_id for r in together.runs}) == 4
    assert bed.launch(*MIXED).exit_code == 0
    assert len(steps) == 4 * (240 + 30 + 60)  # each trunk once, each branch from its fork
    assert len(list((bed.store.root / "jobs").glob("train-*"))) == 1
    found = bed.left_by(together)
    alone = bed.another("alone")
    for n_latents, n_tokens, seed in ((16, 19200, 0), (16, 38400, 1), (40, 19200, 1), (40, 38400, 0)):
        one = (f"sae.n_latents={n_latents}", f"train.n_tokens={n_tokens}", f"seed={seed}")
        assert alone.launch(*one).exit_code == 0
        (run_id, left), = alone.left_by(alone.plan(*one)).items()
        assert left == found[run_id]


def test_a_job_is_not_all_done_before_its_last_run_is_evaluated(bed, monkeypatch):
    evaluate, shares, jobs = train.finish_run, [], []

    def noted(job, *args):
        shares.append(job.done / job.total)
        jobs.append(job)
        evaluate(job, *args)

    monkeypatch.setattr(train, "finish_run", noted)
    assert bed.launch("train.n_tokens=19200", "seed=0,1").exit_code == 0
    assert shares[0] < shares[1] < 0.9  # of runs of 150 steps: two blocks, then two evaluations
    assert jobs[-1].done == pytest.approx(jobs[-1].total)


def test_runs_of_both_kinds_and_other_rates_share_a_fleet(bed):
    mixed = ("sae=topk,relu_l1", "train.lr=0.005,0.002", "train.n_tokens=19200")
    assert bed.launch(*mixed).exit_code == 0
    assert len(list((bed.store.root / "jobs").glob("train-*"))) == 1
    found, alone = bed.left_by(bed.plan(*mixed)), bed.another("alone")
    one = ("sae=relu_l1", "train.lr=0.002", "train.n_tokens=19200")
    alone.launch(*one)
    (run_id, left), = alone.left_by(alone.plan(*one)).items()
    assert left == found[run_id]


def slow_loop(bed, run):
    """The run trained by nothing but Trainable.step over the stream, with its own schedule written out here."""
    inputs = Inputs(bed.store, run.science, run.execution)
    train = run.science["train"]
    trainable = Trainable.create(SAESpec.of(run.science), train["seed"], inputs.sample,
                                 resolve(run.execution["kernels"]))
    size, n = train["batch_tokens"], train["n_tokens"] // train["batch_tokens"]
    decay = round(0.2 * n)
    for i in range(n):
        lr = train["lr"] * min(1.0, (i + 1) * size / train["lr_warmup_tokens"])
        if i >= n - decay:
            lr = lr * (n - i) / decay
        ramp = train["sparsity_warmup_tokens"]
        trainable.step(inputs.stream.read(i * size, size), lr, min(1.0, (i + 1) * size / ramp) if ramp else 1.0)
    return unscaled(trainable.sae, inputs.scale)


@pytest.mark.parametrize("overrides", [(), RELU, GATED_AT_L0], ids=["topk", "relu_l1", "gated at an l0"])
def test_a_trunk_with_branches_gives_each_run_as_trained_alone_with_its_own_schedule(bed, overrides):
    bed.launch(*overrides)
    for run in bed.plan(*overrides).runs:
        weights = load_file(bed.store.run_dir(run.run_id) / "sae_weights.safetensors")
        alone = slow_loop(bed, run)
        kept = {"W_enc": alone.W_enc, "W_dec": alone.W_dec, "b_dec": alone.b_dec} | alone.kind.exported(alone)
        assert kept.keys() == weights.keys()
        for name, tensor in kept.items():
            assert torch.equal(tensor.contiguous(), weights[name].contiguous()), name


def test_without_decay_a_run_is_its_trunk_and_keeps_its_metrics(bed, steps):
    assert bed.launch("train.lr_decay_fraction=0.0", "train.n_tokens=19200").exit_code == 0
    assert len(steps) == 150
    (run,) = bed.plan("train.lr_decay_fraction=0.0", "train.n_tokens=19200").runs
    rows = [json.loads(line) for line in (bed.store.run_dir(run.run_id) / "metrics.jsonl").read_text().splitlines()]
    assert [(r["step"], r["n_steps"]) for r in rows] == [(128, 128), (150, 22)]


def test_rows_of_metrics_average_whole_blocks_and_the_end(bed):
    bed.launch()
    for run in bed.plan().runs:
        rows = [json.loads(line) for line in (bed.store.run_dir(run.run_id) / "metrics.jsonl").read_text().splitlines()]
        wanted = [(128, 128), (150, 22)] if run.steps == 150 else [(128, 128), (256, 128), (300, 44)]
        assert [(r["step"], r["n_steps"]) for r in rows] == wanted
        assert [r["tokens"] for r in rows] == [128 * step for step, _ in wanted]
        assert all(np.isfinite(list(r.values())).all() for r in rows)


def test_a_larger_budget_added_to_a_finished_sweep_goes_on_from_the_trunks_end(bed, steps):
    scratch = bed.another("scratch")
    scratch.launch()
    bed.launch("train.n_tokens=19200")
    short = bed.plan("train.n_tokens=19200").runs[0].run_id
    written = (bed.store.run_dir(short) / "result.json").stat().st_mtime_ns
    steps.clear()
    assert bed.launch().exit_code == 0
    assert len(steps) == 120 + 60  # trunk from 120 to 240, branch of 60: nothing before the first fork again
    assert bed.left_by(bed.plan()) == scratch.left_by(scratch.plan())
    assert (bed.store.run_dir(short) / "result.json").stat().st_mtime_ns == written


def test_a_smaller_budget_added_to_a_finished_sweep_is_the_run_from_scratch(bed, steps):
    scratch = bed.another("scratch")
    scratch.launch()
    bed.launch("train.n_tokens=38400")
    steps.clear()
    assert bed.launch().exit_code == 0
    assert len(steps) == 150
    assert bed.left_by(bed.plan()) == scratch.left_by(scratch.plan())


def test_a_finished_sweep_launched_again_trains_nothing(bed, steps):
    bed.launch()
    steps.clear()
    again = bed.launch()
    assert (again.started, again.exit_code, steps) == (0, 0, [])


DIVERGING = ("train.lr=0.005,1e30", "train.lr_power=0")


@pytest.mark.parametrize("kind", [(), ("sae=relu_l1", "sae.target_l0=5")], ids=["topk", "relu_l1 at an l0"])
def test_a_diverging_member_is_marked_failed_with_evidence_and_leaves_the_others_untouched(bed, kind):
    outcome = bed.launch(*kind, *DIVERGING)
    assert outcome.exit_code == 3
    runs = {r.run_id: r for r in bed.plan(*kind, *DIVERGING).runs}
    by_state = {s: [r for r in runs if outcome.states[r].state == s] for s in ("failed", "done")}
    assert [runs[r].science["train"]["lr"] for r in by_state["failed"]] == [1e30, 1e30]
    for r in by_state["failed"]:
        assert all(word in outcome.states[r].reason for word in ("diverged", "at step", "1e+30"))
        assert not (bed.store.run_dir(r) / "result.json").exists()
    alone, well = bed.another("alone"), (*kind, "train.lr=0.005", "train.lr_power=0")
    alone.launch(*well)
    left = alone.left_by(alone.plan(*well))
    assert {r: bed.left_by(bed.plan(*well))[r] for r in by_state["done"]} == left


def test_a_failed_run_is_left_alone_until_retry_is_asked_for(bed, steps):
    bed.launch(*DIVERGING)
    steps.clear()
    again = bed.launch(*DIVERGING)
    assert (again.started, again.exit_code, steps) == (0, 3, [])
    retried = bed.launch(*DIVERGING, retry=True)
    assert (retried.started, retried.exit_code) == (2, 3) and steps


def test_a_branch_that_diverges_after_its_fork_takes_neither_trunk_nor_other_branch_with_it(bed, monkeypatch):
    step, poisoned = Trainable.step, [0.005 * 26 / 30]  # the rate at step 124 of the short branch, which gets there first

    def poison(self, x, lr, sparsity_scale=1.0):
        now = poisoned and abs(lr - poisoned[0]) < 1e-9 and poisoned.pop()
        step(self, x * float("nan") if now else x, lr, sparsity_scale)

    scratch = bed.another("scratch")
    scratch.launch("train.lr_power=0")
    monkeypatch.setattr(Trainable, "step", poison)
    outcome = bed.launch("train.lr_power=0")
    short, long = sorted(bed.plan("train.lr_power=0").runs, key=lambda r: r.steps)
    assert outcome.states[short.run_id].state == "failed" and outcome.states[long.run_id].state == "done"
    assert bed.left_by(bed.plan("train.lr_power=0", "train.n_tokens=38400")) == scratch.left_by(
        scratch.plan("train.lr_power=0", "train.n_tokens=38400"))


def test_runs_with_other_held_out_sets_are_each_measured_on_their_own(bed):
    both = ("eval.n_tokens=1024,4096", "train.n_tokens=19200")
    bed.launch(*both)
    small, large = sorted(bed.plan(*both).runs, key=lambda r: r.science["eval"]["n_tokens"])
    measured = [json.loads((bed.store.run_dir(r.run_id) / "result.json").read_text())["metrics"]["n_held_out_tokens"]
                for r in (small, large)]
    assert 1024 <= measured[0] < 2048 and measured[1] >= 4096


def test_a_moved_language_model_is_found_where_the_launch_says_it_is(bed, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "somewhere")

    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(BUNDLED, here)
    at = ("lm.hook_name=blocks.1.hook_resid_post", "train.n_tokens=19200")
    with monkeypatch.context() as m:
        m.setattr(train, "finish_run", full)
        assert bed.launch(f"lm={here}", *at).exit_code == 3
    here.rename(there)
    assert bed.launch(f"lm={there}", *at).exit_code == 0
