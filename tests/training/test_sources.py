"""The same run from three sources of activations, and a harvest shared by launches."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from saescale.activations.inputs import Inputs
from saescale.campaign import local
from saescale.campaign.launch import harvest_jobs, harvests, missing, training_jobs
from saescale.records import record

LIVE = "activations=live"


class Silent:
    def stage(self, *_):
        pass


def test_live_activations_give_the_very_same_runs_as_harvested_ones_and_keep_nothing(bed, undisturbed):
    assert [r.run_id for r in bed.plan(LIVE).runs] == [r.run_id for r in bed.plan().runs]
    live = bed.another("live")
    shutil.rmtree(live.store.root / "activations")
    assert live.launch(LIVE).exit_code == 0
    assert live.left_by(live.plan()) == undisturbed
    assert not list(live.store.root.glob("activations/*/*.bin")) and not list(live.store.root.glob("jobs/harvest-*"))


def test_a_training_job_that_fills_the_cache_first_leaves_the_very_same_runs(bare, harvested, undisturbed):
    shutil.copytree(harvested / "corpora", bare.store.root / "corpora")
    plan = bare.plan()
    for r in plan.runs:
        record.claim(bare.store.run_dir(r.run_id), r.science, r.execution)
    lacking = {run.execution["cache_key"]: shards for run, shards, _ in missing(plan.runs, bare.store)}
    jobs = training_jobs([plan.runs], bare.store, plan.cluster, lacking)
    assert local.run_in_process(jobs, 1, "train", Silent()) == []
    assert bare.left_by(plan) == undisturbed
    assert not list(bare.store.root.glob("jobs/harvest-*"))


def test_live_activations_give_the_very_same_batches(bed):
    run, live = bed.plan().runs[0], bed.plan(LIVE).runs[0]
    cached, computed = (Inputs(bed.store, r.science, r.execution) for r in (run, live))
    assert type(cached.train_source) is not type(computed.train_source)
    for position in (0, 5000):
        assert torch.equal(cached.stream.read(position, 700), computed.stream.read(position, 700))


def test_a_sweep_begun_with_harvested_activations_goes_on_with_live_ones(bed, undisturbed):
    assert bed.launch("train.n_tokens=19200").exit_code == 0
    assert bed.launch(LIVE).exit_code == 0
    assert bed.left_by(bed.plan()) == undisturbed


SYNTHETIC = """\
question: What is there?
base: [activations=synthetic, sae=topk, train=small, cluster=inprocess]
set: {sae.k: 4, activations.n_tokens: 30000, activations.n_features: 64, activations.d_in: 16, activations.mean_l0: 3,
      train.lr_warmup_tokens: 512, eval.n_tokens: 1024, budget.min_steps: 10, activations.noise: 0.1}
grids: {g: {sae.n_latents: [32], train.n_tokens: [15360, 30720]}}
"""


def test_a_synthetic_sweep_needs_no_language_model_and_records_what_was_recovered(bare, monkeypatch):
    def none(*_):
        raise AssertionError("a language model was loaded")

    monkeypatch.setattr("saescale.activations.inputs.LanguageModel", none)
    monkeypatch.setattr("saescale.training.train.LanguageModel", none)
    bare.project.sweep("grid", SYNTHETIC)
    assert bare.launch().exit_code == 0
    for run in bare.plan().runs:
        result = json.loads((bare.store.run_dir(run.run_id) / "result.json").read_text())
        found = result["metrics"]
        assert all(found[k] is None for k in ("ce_clean", "ce_with_sae", "ce_zero_ablated", "ce_recovered", "delta_ce"))
        assert 0 < found["fvu"] < 1 and found["n_held_out_tokens"] == 4096 and found["fvu_se"] > 0
        assert found["n_features"] == 64 and 10 < found["n_features_present"] <= 32
        assert result["flops"]["flops_lm"] is None
    assert bare.launch().started == 0


def test_a_synthetic_run_is_its_trunk_and_branch_alone_bit_for_bit(bare):
    bare.project.sweep("grid", SYNTHETIC)
    bare.launch()
    alone = bare.another_empty("alone")
    alone.launch("train.n_tokens=15360")
    (run_id, left), = alone.left_by(alone.plan("train.n_tokens=15360")).items()
    assert left == bare.left_by(bare.plan())[run_id]


@pytest.mark.parametrize("overrides", [("activations=synthetic",), ("activations=synthetic", "activations.seed=1")])
def test_a_synthetic_sweep_is_another_experiment_with_a_folder_of_its_own(bare, overrides):
    plan = bare.plan(*overrides)
    assert plan.sweep.folder_name.startswith("grid+")
    assert not {r.run_id for r in plan.runs} & {r.run_id for r in bare.plan().runs}
    assert all(r.science["activations"]["batch_tokens"] == 4096 and r.execution["lm_path"] is None for r in plan.runs)


HARVEST = """
import sys
from pathlib import Path
from saescale.activations import cache
from saescale.training.train import run_job
finish = cache.Shard.finish

def counted(shard):
    finish(shard)
    print("MADE", shard.path.stem, flush=True)

cache.Shard.finish = counted
print("READY", flush=True)
sys.stdin.readline()
sys.exit(run_job(Path(sys.argv[1])))
"""


def test_two_processes_that_harvest_the_same_shards_at_once_make_each_once_and_both_end_whole(bare, harvested):
    runs = bare.plan("cluster.workers=1").runs
    job, = harvest_jobs(harvests(runs, bare.store, 1), bare.store)
    rivals = [subprocess.Popen([sys.executable, "-c", HARVEST, str(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for rival in rivals:
        assert rival.stdout.readline() == "READY\n"
    for rival in rivals:
        rival.stdin.write("go\n")
        rival.stdin.flush()
    said = [rival.communicate(timeout=120) for rival in rivals]
    assert [rival.returncode for rival in rivals] == [0, 0], said
    made = [line for out, _ in said for line in out.splitlines() if line.startswith("MADE")]
    wanted = {p.name: p.read_bytes() for p in harvested.glob("activations/*/*.bin")}
    assert len(made) == len(set(made)) == len(wanted)
    assert {p.name: p.read_bytes() for p in bare.store.root.glob("activations/*/*.bin")} == wanted
    assert not list(bare.store.root.glob("activations/*/claims/[!.]*"))
