"""Launching on a cluster that misbehaves (misbehaving_slurm.py)."""

import json
import os
import re
from contextlib import contextmanager
from pathlib import Path

import pytest
from misbehaving_slurm import FakeSlurm

from saescale.campaign import cluster, submissions
from saescale.campaign.choice import Choice
from saescale.campaign.launch import make_job
from saescale.campaign.only import Only
from saescale.campaign.plan import make_plan
from saescale.campaign.queue import queue
from saescale.campaign.status import states
from saescale.campaign.sweep import load
from saescale.campaign.totals import totals
from saescale.campaign.triage import causes
from saescale.records.lock import Lock
from saescale.records.store import Store, read_json, read_lines, write_json

pytestmark = pytest.mark.usefixtures("slurm")
SWEEP = """\
question: Does it get there?
base: [activations=synthetic, sae=topk, train=small, cluster=slurm]
set: {activations.d_in: 8, activations.n_features: 32, activations.n_tokens: 65_536, sae.k: 4, train.batch_tokens: 128,
      budget.min_steps: 10, train.lr_warmup_tokens: 512, cluster.workers: 8, cluster.job.memory: 2G, cluster.job.gpus: 1}
grids:
  grid:
    sae.n_latents: [16, 24, 32, 48]
    train.n_tokens: [16_384]
    seed: [0, 1]
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    fake = FakeSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(fake.folder))  # and nothing else: no sacct, no sacctmgr
    monkeypatch.setattr("saescale.campaign.slurm.time.sleep", lambda _: None)
    return fake


@pytest.fixture
def store(project):
    project.sweep("eight", SWEEP)
    return Store(project.store)


def launch(store, *overrides, **choice):
    return cluster.launch(planned(store, *overrides), store, Choice(**choice))


def planned(store, *overrides):
    return make_plan(load("eight", overrides), store)


def kinds(plan, store):
    return sorted(s.state for s in states(plan.runs, store).values())


def test_arrays_respect_the_size_limit_and_the_second_launch_submits_nothing(store, slurm):
    first = launch(store)
    assert first.exit_code == 4 and first.started == 9  # 8 fleets as 5 + 3, and the report
    assert [len([r for r in slurm.rows() if r[1] == a]) for a in ("101", "102", "103")] == [5, 3, 1]
    second = launch(store)
    assert (second.started, second.exit_code, slurm.n_sbatch) == (0, 4, 3)
    assert {s.state for s in second.states.values()} == {"queued"}


def test_a_submit_limit_is_respected_and_the_rest_goes_with_the_next_launch(store, slurm):
    first = launch(store, "cluster.slurm.max_submit=6")
    assert len(slurm.rows()) == 6 and first.exit_code == 4 and "3 jobs wait for room in the queue (limit 6)" in first.notes[0]
    full = launch(store, "cluster.slurm.max_submit=6")
    assert len(slurm.rows()) == 6 and full.started == 0
    slurm.set_rows([])  # everything ended, without a trace
    assert launch(store).started == 9


def test_sbatch_that_refuses_is_told_and_what_was_accepted_stays(store, slurm):
    slurm.say("sbatch.refuse", "sbatch: error: Batch job submission failed: Invalid account or account/partition combination\n")
    outcome = launch(store)
    assert outcome.exit_code == 3 and "Invalid account" in outcome.messages[0] and outcome.started == 0
    plan = planned(store)
    known = list(causes(states(plan.runs, store), store, submissions.read(store)).values())
    rejected = [c for c in known if c.kind == "rejected"]
    assert len(rejected) == 5 and "Invalid account" in rejected[0].evidence[0]
    slurm.no_longer("sbatch.refuse")
    assert launch(store).started == 9 and kinds(plan, store) == ["queued"] * 8


def test_sbatch_that_times_out_after_accepting_is_found_by_name_and_not_asked_twice(store, slurm):
    slurm.say("sbatch.late")
    outcome = launch(store)
    assert outcome.exit_code == 4 and not outcome.messages and slurm.n_sbatch == 3 and len(slurm.rows()) == 9
    slurm.no_longer("sbatch.late")
    assert launch(store).started == 0 and slurm.n_sbatch == 3


def test_an_intent_nobody_can_speak_of_stays_open_and_is_settled_when_the_scheduler_answers(store, slurm, monkeypatch):
    slurm.say("sbatch.late")
    real = cluster.queue
    with monkeypatch.context() as m:
        m.setattr("saescale.campaign.cluster.queue", lambda: (real(), slurm.say("squeue.fail"))[0])  # fails after the start
        outcome = launch(store)
    assert "is not known" in outcome.messages[0] and slurm.n_sbatch == 1
    assert kinds(planned(store), store) == ["new"] * 3 + ["unknown"] * 5
    slurm.no_longer("squeue.fail")
    slurm.no_longer("sbatch.late")
    again = launch(store)
    assert "was submitted before its launcher ended" in again.notes[0] and again.started == 4  # the other three, and the report
    assert kinds(planned(store), store) == ["queued"] * 8


def test_a_launch_is_refused_while_the_scheduler_does_not_answer_and_status_says_unknown_not_failed(store, slurm):
    launch(store)
    slurm.say("squeue.fail")
    with pytest.raises(ValueError, match="does not answer: squeue said: .*Unable to contact.* Nothing was submitted"):
        launch(store)
    assert kinds(planned(store), store) == ["unknown"] * 8


def test_a_launcher_that_died_between_intent_and_submission_leaves_nothing_behind(store, slurm, monkeypatch):
    class Died(BaseException):
        pass

    def die(*_):
        raise Died

    with monkeypatch.context() as m:
        m.setattr("saescale.campaign.slurm.submit", die)
        with pytest.raises(Died):
            launch(store)
    assert [line["event"] for line in read_lines(store.sweep_dir("eight") / "submissions.jsonl")] == ["intent"]
    outcome = launch(store)
    assert "never was" in outcome.notes[0] and len(slurm.rows()) == 9


def test_an_element_that_vanished_is_submitted_again_and_only_that(store, slurm):
    launch(store)
    rows = slurm.rows()
    slurm.set_rows(rows[:2] + rows[3:])
    plan = planned(store)
    known = causes(states(plan.runs, store), store, submissions.read(store))
    assert [c.kind for c in known.values()].count("vanished") == 1
    assert launch(store).started == 2 and kinds(plan, store) == ["queued"] * 8


@pytest.mark.parametrize(("name", "expected"), [
    ("RUNNING", "running"), ("NAME_OF_A_LATER_VERSION", "running"), ("SUSPENDED", "running"), ("REQUEUED", "queued"),
    ("COMPLETING", "running"), ("PENDING", "queued")])
def test_a_state_name_nobody_knows_is_alive(store, slurm, name, expected):
    launch(store)
    slurm.set_rows([[*r[:3], name, *r[4:]] for r in slurm.rows()])
    assert set(kinds(planned(store), store)) == {expected}


def test_a_job_a_node_failed_to_start_is_released_by_the_next_launch_and_one_a_person_holds_is_not(store, slurm):
    launch(store)
    rows = slurm.rows()
    slurm.set_rows([[*rows[0][:5], "launch failed requeued held"], [*rows[1][:5], "JobHeldUser"], *rows[2:]])
    plan = planned(store)
    known = causes(states(plan.runs, store), store, submissions.read(store))
    assert [c.kind for c in known.values()].count("held") == 2
    outcome = launch(store)
    assert "1 jobs that a node had failed to start were released: 101_0" in outcome.notes[0] and outcome.started == 0
    assert (slurm.folder / "scontrol.calls").read_text().splitlines()[-1] == "release 101_0"


@pytest.mark.parametrize("name", ["COMPLETED", "FAILED", "NODE_FAIL", "CANCELLED", "TIMEOUT"])
def test_a_job_that_ended_is_not_alive(store, slurm, name):
    launch(store)
    slurm.set_rows([[*r[:3], name, *r[4:]] for r in slurm.rows()])
    assert not queue().elements and set(kinds(planned(store), store)) == {"new"}


def test_the_lock_of_a_launch_is_kept_while_models_and_corpora_are_made_ready(store, monkeypatch):
    kept = []
    monkeypatch.setattr(Lock, "kept", contextmanager(lambda lock: (yield kept.append(lock.path.name))))
    monkeypatch.setattr(cluster, "make_ready", lambda *_: [f"kept: {kept}"])
    assert "kept: ['launch.lock']" in launch(store).notes


def test_two_launchers_at_once_are_one_too_many(store, slurm):
    assert Lock(store.root / "launch.lock").acquire() is None
    with pytest.raises(ValueError, match=r"another launch is submitting .*process \d+.* Nothing was submitted"):
        launch(store)
    assert slurm.n_sbatch == 0


def test_only_and_limit_choose_the_runs(store):
    launch(store, only=Only("n_latents <= 24 and seed == 1"))
    assert kinds(planned(store), store) == ["new"] * 6 + ["queued"] * 2
    launch(store, limit=3)
    assert kinds(planned(store), store) == ["new"] * 3 + ["queued"] * 5


def test_the_gate_on_gpu_hours_counts_what_is_queued_and_what_was_spent(store, project):
    hours = cluster.preview(planned(store), store, Choice())["gpu_hours"]
    with pytest.raises(ValueError, match=r"0 are spent .* --max-gpu-hours allows .* Nothing was submitted"):
        launch(store, max_gpu_hours=hours * 0.99)
    launch(store, max_gpu_hours=hours * 1.01, limit=4)
    with pytest.raises(ValueError, match="are in the queue"):
        launch(store, "seed=0,1,2,3", max_gpu_hours=hours * 1.01)
    project.sweep("eight", SWEEP + "caps: {gpu_hours: 0}\n")
    with pytest.raises(ValueError, match=r"caps.gpu_hours of the sweep allows 0"):
        launch(store)
    project.sweep("eight", SWEEP)
    spent = store.job_dir(next(job for s in submissions.read(store) for job in s.jobs)) / "attempts" / "0"
    write_json(spent / "start.json", {"started": 1000.0, "gpus": 2})
    write_json(spent / "exit.json", {"exit_code": -9, "ended": 1000.0 + 3600})
    with pytest.raises(ValueError, match=r"2 are spent"):
        launch(store, max_gpu_hours=2.0)


def test_harvests_are_in_the_preview_in_the_sums_of_the_plan_and_in_the_gate(project):
    store = Store(project.store)
    plan = make_plan(load("tiny", ("cluster=slurm", "cluster.job.gpus=2", "cluster.job.nodes=2", "cluster.workers=2")), store)
    asked = cluster.preview(plan, store, Choice(), ask=True)
    harvest, training = asked["groups"]
    assert (harvest["stage"], harvest["request"]) == ("harvest", "1 x GPU, 1 core, 4G, 4h") and harvest["accepted"]
    assert training["request"].startswith("2 nodes with 2 x GPU, 4 ranks") and 0 < harvest["gpu_hours"] < asked["gpu_hours"]
    sums = totals(plan, plan.runs, store)
    assert sums.gpu_hours == pytest.approx(asked["gpu_hours"]) and list(sums.budgets) == [4e8, 8e8]
    assert sum(hours for _, hours in sums.budgets.values()) == pytest.approx(training["gpu_hours"])
    with pytest.raises(ValueError, match=r"--max-gpu-hours allows"):
        cluster.launch(plan, store, Choice(max_gpu_hours=training["gpu_hours"] * 1.001))
    assert cluster.launch(plan, store, Choice(max_gpu_hours=asked["gpu_hours"] * 1.001)).exit_code == 4
    intents = [line for line in read_lines(store.sweep_dir("tiny") / "submissions.jsonl") if line["event"] == "intent"]
    assert [line["stage"] for line in intents] == ["harvest", "train", "report"]
    assert sum(intents[0]["gpu_hours"].values()) == pytest.approx(harvest["gpu_hours"], abs=1e-3)
    first, second = ((store.sweep_dir("tiny") / "slurm" / line["token"]).glob("*.sh") for line in intents[:2])
    alone, together = next(first).read_text(), next(second).read_text()
    assert "--nodes=1\n" in alone and "--kill-on-bad-exit" not in alone and "--cpus-per-task=1" in alone.splitlines()[-1]
    for text in ("--nodes=2\n", "--ntasks-per-node=2\n", "--gpus-per-node=2\n", "--kill-on-bad-exit=1 "):
        assert text in together


def test_runs_that_left_the_sweep_while_queued_are_listed_and_left_alone(store, slurm, project):
    launch(store)
    project.sweep("eight", SWEEP.replace("[16, 24, 32, 48]", "[16, 24]"))
    outcome = launch(store)
    assert "4 runs are queued or running and no longer in the sweep" in outcome.notes[0]
    assert "`saescale cancel eight --orphans` ends them" in outcome.notes[0] and len(slurm.rows()) == 9
    assert not (slurm.folder / "scancel.calls").exists()


def test_no_secret_of_the_environment_reaches_the_store(store, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cr3t-value")
    launch(store)
    assert not [p for p in store.root.rglob("*") if p.is_file() and b"s3cr3t-value" in p.read_bytes()]


def test_paths_and_settings_are_quoted_into_the_script(project):
    project.sweep("eight", SWEEP)
    store = Store(project.root / "it's $(touch pwned) `touch pwned` here")
    launch(store, "cluster.slurm.environment={NOTE: \"'; touch pwned #\"}")
    script = next(store.root.glob("eight/slurm/*/101_submission.sh"))
    line = next(line for line in script.read_text().splitlines() if line.startswith("export NOTE"))
    assert os.popen(f"cd {project.root}; {line}; /usr/bin/printenv NOTE").read() == "'; touch pwned #\n"
    setup = [line for line in script.read_text().splitlines() if line.startswith("export")]
    os.system(f"cd {project.root}; /bin/sh -c '{{ :; }}'; " + "; ".join(setup))
    assert not (project.root / "pwned").exists()


@pytest.mark.parametrize("name", ["100%", "a\nb"])
def test_a_store_sbatch_would_misread_is_refused(project, slurm, name):
    project.sweep("eight", SWEEP)
    with pytest.raises(ValueError, match="sbatch would expand"):
        launch(Store(project.root / name))
    assert slurm.n_sbatch == 0


def test_a_request_smaller_than_its_fleet_is_refused_and_says_what_to_raise(store, slurm):
    with pytest.raises(ValueError, match=r"its job asks for 100M.*Raise cluster.job.memory"):
        launch(store, "cluster.job.memory=100M")
    assert slurm.n_sbatch == 0


def test_every_intent_names_the_commit_and_a_snapshot_of_the_code(store):
    launch(store)
    line = read_lines(store.sweep_dir("eight") / "submissions.jsonl")[0]
    code = Path(line["code"])
    assert (code / "saescale" / "training" / "train.py").exists() and (code / "conf" / "config.yaml").exists()
    assert re.search(r"sweeps/eight.yaml", " ".join(str(p) for p in code.rglob("*.yaml")))
    assert set(json.loads((code / "snapshot.json").read_text())) >= {"commit", "edited", "tree", "version"}
    script = next(store.root.glob("eight/slurm/*/101_submission.sh")).read_text()
    assert f"export PYTHONPATH={code}" in script


def test_a_tracked_launch_tells_each_training_job_what_its_mirror_is_asked_and_keeps_its_name(store, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    launch(store, "track=wandb", "track.project=lab")
    jobs = {p.parent.name: read_json(p) for p in store.root.glob("jobs/train-*/job.json")}
    assert jobs and all((j["track"]["kind"], j["track"]["sweep"], j["track"]["project"]) == ("wandb", "eight", "lab")
                        for j in jobs.values())
    assert not [p for p in store.root.rglob("*") if p.is_file() and b"0123456789" * 4 in p.read_bytes()]
    assert {make_job(store, {k: v for k, v in j.items() if k not in ("track", "request")}).name
            for j in jobs.values()} == set(jobs)
