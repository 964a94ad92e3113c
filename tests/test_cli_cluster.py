"""The verbs around the work, as typed; nothing here needs a scheduler."""

import json
import threading
import time

import pytest

from saescale.campaign import doctor, folders, submissions
from saescale.campaign.launch import Outcome
from saescale.campaign.plan import make_plan
from saescale.campaign.sweep import load
from saescale.records.lock import Lock
from saescale.records.store import Store, write_json

SWEEP = """\
question: Is it quick?
base: [activations=synthetic, sae=topk, train=small, cluster=local]
set: {activations.d_in: 8, activations.n_features: 32, activations.n_tokens: 32_768, sae.k: 4, train.batch_tokens: 128,
      budget.min_steps: 10, train.lr_warmup_tokens: 512, eval.n_tokens: 4096, cluster.workers: 2}
grids: {grid: {sae.n_latents: [16, 32], train.n_tokens: [16_384, 32_768]}}
"""


@pytest.fixture(autouse=True)
def quick(project):
    project.sweep("quick", SWEEP)


@pytest.fixture
def plan(project):
    project.sweep("quick", SWEEP)
    return make_plan(load("quick"), Store(project.store))


@pytest.mark.parametrize(("arguments", "said"), [
    (["launch", "quick", "--only", "__import__('os')"], "the condition"), (["launch", "quick", "--limit", "0"], "--limit 0"),
    (["launch", "quick", "--max-gpu-hours", "-1"], "--max-gpu-hours"), (["launch", "quick", "--test-only"], "Use cluster=slurm"),
    (["plan", "quick", "--explain", "nope"], "no runs"), (["plan", "quick", "--explain", "synthetic"], "4 runs"),
    (["why", "nope"], "no run of"), (["logs", "nope"], "no run of"), (["retry", "quick", "--class", "bad_luck"], "Choose from"),
    (["retry", "quick", "--set", "train.lr=*2"], "would make other runs"),
    (["retry", "quick", "--set", "cluster"], "is not KEY=VALUE"),
    (["retry", "quick", "--set", "cluster.kernels=*2"], "nothing that can be scaled"),
    (["retry", "quick", "--set", "cluster.job.memory=*2"], "cluster=local has no such setting"),
    (["retry", "quick", "--set", "cluster.workers=/0"], "a factor above 0"),
    (["doctor", "--cluster", "lsf"], "inprocess, local, slurm"), (["launch", "$(touch x)"], "is not a sweep name"),
    (["plan", "quick", "cluster=nope"], "inprocess, local, slurm"), (["plan", "quick", "cluster=slurm", "cluster.job.time=soon"],
                                                                     "is not a time limit")])
def test_bad_input_is_one_sentence_and_exit_code_2(saescale, arguments, said):
    code, out, err = saescale(*arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1 and said in err and err.startswith("saescale: ")


def test_a_sweep_goes_from_probe_to_retry_on_this_machine(saescale, plan, project):
    code, out, _ = saescale("probe", "quick", "--json")
    measured = json.loads(out)
    assert code == 0 and len(measured) == 2 and all(m["tokens_per_s"] > 0 and m["peak_gb"] > 0 for m in measured.values())
    code, out, _ = saescale("plan", "quick")
    assert "calibrated" in out and "estimated" not in out

    run = plan.runs[-1]
    code, out, _ = saescale("launch", "quick", "--only", f"n_latents == {run.science['sae']['n_latents']}", "--dry-run")
    assert code == 0 and "2 runs in 1 jobs" in out and not (project.store / "by-id").exists()
    code, out, err = saescale("launch", "quick", "--only", f"n_latents == {run.science['sae']['n_latents']}")
    assert code == 4 and "2 done, 2 new" in out and "training of 2 runs" not in out, err
    code, out, _ = saescale("launch", "quick")
    assert code == 0 and "training of 4 runs: calibrated" in out

    (project.store / "by-id" / run.run_id / "result.json").unlink()
    job = json.loads((project.store / "by-id" / run.run_id / "status.json").read_text())["job"]
    write_json(project.store / "by-id" / run.run_id / "status.json", {"state": "running", "job": job, "tokens": 1, "n_tokens": 2})
    write_json(project.store / "jobs" / job / "attempts" / "0" / "exit.json", {"exit_code": -9, "ended": 1.0})
    code, out, _ = saescale("why", run.run_id[-10:])
    assert code == 0 and "killed" in out and "ended by signal 9" in out and "next: saescale retry SWEEP" in out
    code, out, _ = saescale("why", "quick")
    assert "killed" in out and "next: saescale retry quick" in out
    code, out, _ = saescale("retry", "quick", "--class", "oom_gpu")
    assert "0 to run" in out
    code, out, _ = saescale("retry", "quick", "--set", "cluster.workers=1")
    assert code == 0 and "4 done" in out


def test_explain_tells_everything_of_one_run(saescale, plan):
    code, out, _ = saescale("plan", "quick", "--explain", plan.runs[0].run_id, "--json")
    about = json.loads(out)
    assert code == 0 and about["n_tokens"] == 16_384 and about["steps"] == 128 and about["job_runs"] >= 2
    assert about["flops_dense"] == 12 * 8 * 16 * 16_384 and about["trunk_shared_by"] == [plan.runs[1].run_id]
    assert about["numbers_are"] == "estimated" and about["job_memory_gb"] > 0.1 and about["state"] == "new"
    code, out, _ = saescale("plan", "quick", "--explain", plan.runs[0].run_id[-10:])
    assert plan.runs[0].trunk_id in out


def test_diff_tells_what_came_and_went_since_the_last_plan(saescale, project):
    code, out, _ = saescale("plan", "quick", "--diff")
    assert "no plan before" in out and "4 added, 0 removed" in out
    project.sweep("quick", SWEEP.replace("[16, 32]", "[16, 64]"))
    code, out, _ = saescale("plan", "quick", "--diff", "--json")
    said = json.loads(out)
    assert code == 0 and (len(said["added"]), len(said["removed"]), said["kept"]) == (2, 2, 2)
    assert all("n64" in run for run in said["added"]) and all("n32" in run for run in said["removed"])
    assert "0 added, 0 removed, 4 kept" in saescale("plan", "quick", "--diff")[1]


def test_status_shows_speed_and_eta_of_what_runs_and_with_failed_only_what_ended(saescale, plan, project):
    saescale("plan", "quick")
    running, failed = plan.runs[0], plan.runs[3]
    store = Store(project.store)
    write_json(store.run_dir(running.run_id) / "status.json", {
        "state": "running", "tokens": 8_192, "n_tokens": 16_384, "tokens_per_s": 10.0, "heartbeat": time.time()})
    said = {"state": "failed", "reason": "diverged: loss is nan", "heartbeat": 1.0}
    write_json(store.run_dir(failed.run_id) / "status.json", said)
    assert Lock(store.trunk_dir(running.trunk_id) / "lock").acquire() is None
    code, out, _ = saescale("status", "quick")
    text = " ".join(out.split())
    assert code == 3 and "50% 10 tokens/s eta 13." in text and "1 running" in text and "to go" in text and "diverged" in text
    code, out, _ = saescale("status", "quick", "--failed")
    assert "tokens/s" not in out and "diverged: loss is nan" in out
    code, out, _ = saescale("status", "quick", "--json")
    assert json.loads(out)[running.run_id]["progress"]["tokens_per_s"] == 10.0


def test_watch_ends_when_nothing_is_under_way_any_more(saescale, plan, project, monkeypatch):
    monkeypatch.setattr("saescale.screen_status.WATCH_S", 0.1)
    saescale("plan", "quick")
    store, run = Store(project.store), plan.runs[0]
    write_json(store.run_dir(run.run_id) / "status.json", {"state": "running", "tokens": 1, "n_tokens": 2, "heartbeat": 1.0})
    held = Lock(store.trunk_dir(run.trunk_id) / "lock")
    assert held.acquire() is None
    release = threading.Timer(0.5, held.release)
    release.start()
    begun = time.monotonic()
    code, out, _ = saescale("status", "quick", "--watch")
    assert code == 3 and "1 stopped" in out and 0.4 < time.monotonic() - begun < 20


def test_status_follows_the_sweep_file_when_it_was_edited_after_the_plan(saescale, project):
    saescale("plan", "quick")
    assert "4 new" in saescale("status", "quick")[1]
    project.sweep("quick", SWEEP.replace("[16, 32]", "[16, 32, 64]"))
    assert "6 new" in saescale("status", "quick")[1]


def test_gc_lists_and_removes_only_when_told(saescale, project):
    (project.store / "activations" / "old").mkdir(parents=True)
    (project.store / "activations" / "old" / "x.bin").write_bytes(b"x" * 10)
    code, _, err = saescale("gc")
    assert code == 2 and "give --yes" in err and (project.store / "activations" / "old").exists()
    code, out, _ = saescale("gc", "--json")
    assert [f["n_bytes"] for f in json.loads(out)] == [10] and (project.store / "activations" / "old").exists()
    assert saescale("gc", "--yes")[0] == 0 and not (project.store / "activations" / "old").exists()


def test_retry_does_not_train_on_this_machine_what_was_handed_to_slurm_unless_told(saescale, plan, project, monkeypatch):
    at, run = Store(project.store), plan.runs[0].run_id
    at.sweep_dir("quick").mkdir(parents=True)
    handed = submissions.Submission("quick", "t", "saescale-quick-t", "train", time.time(), {"train-1": [run]}, {}, {})
    submissions.intend(at, handed)
    submissions.settle(at, handed, None, over="sbatch: error: Invalid account")
    code, _, err = saescale("retry", "quick")
    assert code == 2 and "were handed to Slurm" in err and "Add cluster=slurm" in err and err.count("\n") == 1
    monkeypatch.setattr("saescale.campaign.launch.launch", lambda *_, **__: Outcome(1, {}))
    assert saescale("retry", "quick", "cluster=local")[0] == 0


def test_what_follows_a_preview_is_narrowed_as_the_preview_was(saescale):
    """Without --only and the gate the command to copy would launch everything."""
    given = ["--only", "n_latents <= 16", "--limit", "1", "--max-gpu-hours", "2.5"]
    code, out, _ = saescale("launch", "quick", *given, "--retry", "--dry-run")
    assert code == 0 and "1 runs in 1 jobs" in out
    assert out.rstrip().endswith("next: saescale launch quick --only 'n_latents <= 16' --limit 1 --max-gpu-hours 2.5 --retry")


def test_doctor_says_once_what_to_do_about_a_store_that_cannot_be_written(saescale, project):
    (project.root / "file").write_text("mine")
    code, out, _ = saescale("doctor", "--store", "file")
    assert code == 3 and out.count("--store") == 1


def test_doctor_looks_at_this_machine(saescale):
    code, out, _ = saescale("doctor", "--json")
    found = {c["name"]: c["verdict"] for c in json.loads(out)}
    assert code == 0 and found["torch"] == found["submitit"] == found["conf"] == "ok" and found["disk"] in ("ok", "warn")


def test_doctor_tries_a_node_with_what_the_sites_file_asks_for(project, monkeypatch):
    conf = project.root / "conf" / "cluster"
    conf.mkdir(parents=True)
    text = (folders.installed("conf") / "cluster" / "slurm.yaml").read_text()
    for name, value in (("account", "mylab"), ("constraint", "fast"), ("partition", "gpu")):
        text = text.replace(f"{name}: null", f"{name}: {value}")
    (conf / "lab.yaml").write_text(text)
    asked = []
    monkeypatch.setattr(doctor.queue, "ask", lambda *command: asked.append(command) or (None, "srun said: no"))
    for partition in (None, "other"):
        next(doctor.shared_folder(Store(project.root), doctor.settings_of("lab"), partition))
    assert {"--account=mylab", "--constraint=fast", "--partition=gpu"} <= set(asked[0]) and "--partition=other" in asked[1]
    assert not [word for word in asked[0] if word.startswith("--qos")]


def test_doctor_says_what_a_cluster_lacks(saescale, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, _ = saescale("doctor", "--cluster", "slurm")
    assert code == 3 and "fail sbatch" in out and "log in to a node" in out
