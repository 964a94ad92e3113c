import time

import pytest

from saescale.campaign import queue, triage
from saescale.campaign.status import RunState
from saescale.campaign.submissions import Submission
from saescale.campaign.task import BEGUN
from saescale.campaign.triage import CLASSES, SUGGESTED, Case, cause
from saescale.records.store import Store, write_json


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def submission(**given):
    jobs = {"train-1": ["run"], "train-2": ["other"]}
    return Submission("sweep", "token", "saescale-sweep-token", "train", 100.0, jobs, {}, {}, **given)


def case(store, stderr="", code=1, asked=None, state="stopped", accounted=None, slurm_said=""):
    """A run whose one attempt ended so."""
    attempt = store.job_dir("train-1") / "attempts" / "0"
    write_json(attempt / "start.json", {"started": 200.0})
    (attempt / "stderr").write_text(stderr)
    if code is not None:
        write_json(attempt / "exit.json", {"exit_code": code, "ended": 300.0, "asked": asked, "done": 1.0})
    s = submission(number="7")
    log = store.root / "sweep" / "slurm" / "token" / "7_0_0_log.err"
    log.parent.mkdir(parents=True)
    log.write_text(slurm_said)
    return Case(RunState(state), store.job_dir("train-1"), s, accounted or {})


@pytest.mark.parametrize(("kind", "given"), [
    ("oom_gpu", {"stderr": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"}),
    ("oom_host", {"stderr": "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"}),
    ("oom_host", {"code": -9, "slurm_said": "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0"}),
    ("oom_host", {"code": -9, "accounted": {"State": "OUT_OF_MEMORY", "JobID": "7_0"}}),
    ("disk_full", {"stderr": "/runs/x: No space left on device. Finished runs are safe", "code": 3}),
    ("timeout", {"code": None, "slurm_said": "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01 DUE TO TIME LIMIT ***"}),
    ("timeout", {"code": None, "accounted": {"State": "TIMEOUT", "Timelimit": "00:10:00"}}),
    ("preempted", {"code": None, "accounted": {"State": "PREEMPTED"}}),
    ("node_failure", {"code": None, "accounted": {"State": "NODE_FAIL"}}),
    ("cancelled", {"code": 4, "asked": "stop", "accounted": {"State": "CANCELLED by 0"}}),
    ("config_error", {"stderr": "Traceback (most recent call last):\nModuleNotFoundError: No module named 'torch'"}),
    ("config_error", {"stderr": "ValueError: sae.kind='x' does not exist"}),
    ("config_error", {"slurm_said": "/s/jobs/x: Permission denied, on n1: the nodes must be able to write the store. Try it."}),
    ("config_error", {"accounted": {"State": "FAILED", "ExitCode": "0:53", "JobID": "7_0"}}),
    ("rank_lost", {"stderr": "rank 1 of 2 lost another rank (Connection closed by peer). What was saved is safe", "code": 3}),
    ("data_exhausted", {"stderr": "needs 3M tokens, one epoch has 2M tokens", "code": 3}),
    ("lock_lost", {"stderr": "/t/lock was taken over while this process was silent: stopping here.", "code": 3}),
    ("killed", {"code": -9}), ("killed", {"code": None}), ("stopped", {"code": 4, "asked": "stop"}),
    ("stalled", {"code": 4, "asked": "requeue", "slurm_said": "two attempts in a row made no progress: not queued again."}),
    ("waiting", {"code": 0}), ("unexplained", {"code": 1, "stderr": "Segmentation whatever\nodd last words"})])
def test_each_end_has_its_class_and_the_lines_that_show_it(store, kind, given):
    found = cause(case(store, **given))
    assert found.kind == kind and found.n_attempts == 1 and found.attempt is not None
    said = [w for w in (given.get("stderr"), given.get("slurm_said")) if w]
    if said and kind not in ("stalled",):
        assert any(line in " ".join(said) for line in found.evidence)
    assert found.evidence or kind == "unexplained"


@pytest.mark.parametrize("said", ["MemoryError", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"])
def test_out_of_memory_on_this_machine_asks_for_fewer_workers_and_not_for_a_larger_job(store, said):
    built = case(store, stderr=said)
    assert "cluster.job." in cause(built).command("demo", "run")
    built.submission = None
    assert cause(built).command("demo", "run").endswith("--set cluster.workers=/2")


def test_after_moving_a_damaged_file_away_one_launches():
    assert cause(Case(RunState("damaged", "result.json is damaged"))).command("demo", "run") == "saescale launch demo"


def test_diverged_runs_failed_by_themselves_whatever_else_happened():
    found = cause(Case(RunState("failed", "diverged: loss is nan at step 7 of 9 (lr 0.1)"), None, None, {"State": "TIMEOUT"}))
    assert (found.kind, found.evidence) == ("diverged", ("diverged: loss is nan at step 7 of 9 (lr 0.1)",))


def test_a_refusal_repeats_what_sbatch_said_and_a_vanished_job_its_number(store):
    refused = cause(Case(RunState("new"), store.job_dir("train-1"), submission(over="sbatch: error: Invalid qos")))
    assert refused.kind == "rejected" and "Invalid qos" in refused.evidence[0]
    vanished = cause(Case(RunState("new"), store.job_dir("train-1"), submission(number="41")))
    assert vanished.kind == "vanished" and "41" in vanished.evidence[0]


@pytest.mark.parametrize(("silent_s", "kind"), [(30, "running"), (3600, "stalled")])
def test_a_running_job_that_says_nothing_for_long_is_stalled(store, silent_s, kind):
    write_json(store.job_dir("train-1") / "status.json", {"heartbeat": time.time() - silent_s})
    assert cause(Case(RunState("running", "job 7_0 running"), store.job_dir("train-1"))).kind == kind


def test_what_was_never_launched_is_new_and_what_is_unknown_is_not_failed():
    assert cause(Case(RunState("new"))).kind == "new"
    assert cause(Case(RunState("unknown", "squeue said: no"), None, submission(number="1"))).kind == "unknown"


def test_the_rank_that_was_killed_is_named_and_not_those_it_took_along(store):
    built = case(store, stderr="rank 0 of 3 lost another rank (Connection closed by peer). What was saved is safe", code=3)
    attempt = store.job_dir("train-1") / "attempts" / "0"
    write_json(attempt / "start.json", {"started": 200.0, "n_tasks": 3})
    write_json(attempt / "exit.1.json", {"exit_code": -9, "ended": 301.0})
    write_json(attempt / "exit.2.json", {"exit_code": 3, "ended": 299.0})
    assert cause(built).kind == "killed" and cause(built).evidence[0] == "rank 1 of 3 ended by signal 9"
    (attempt / "exit.1.json").unlink()
    assert cause(built).kind == "killed" and "ranks without one: 1 of 3" in cause(built).evidence[0]
    (attempt / "stderr.1").write_text("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    assert cause(built).kind == "oom_gpu"


def test_only_the_last_attempt_counts(store):
    built = case(store, stderr="CUDA out of memory")
    write_json(store.job_dir("train-1") / "attempts" / "1" / "start.json", {"started": 400.0})
    write_json(store.job_dir("train-1") / "attempts" / "1" / "exit.json", {"exit_code": -9, "ended": 500.0})
    assert (cause(built).kind, cause(built).n_attempts) == ("killed", 2)


PREEMPTED = "slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***\n"
TIMED_OUT = PREEMPTED.replace("PREEMPTION", "TIME LIMIT")


@pytest.mark.parametrize(("kind", "given"), [
    ("config_error", {"stderr": "ValueError: sae.kind='x' does not exist", "slurm_said": PREEMPTED}),
    ("unexplained", {"stderr": "odd last words", "slurm_said": f"{BEGUN}\n{PREEMPTED}{BEGUN}\n"}),
    ("killed", {"code": None, "slurm_said": f"{BEGUN}\n{TIMED_OUT}{BEGUN}\n"}),
    ("timeout", {"code": None, "slurm_said": f"{BEGUN}\n{PREEMPTED}{BEGUN}\n{TIMED_OUT}"})])
def test_what_slurm_wrote_of_an_earlier_try_does_not_explain_the_last(store, kind, given):
    assert cause(case(store, **given)).kind == kind


@pytest.mark.parametrize(("job", "n_tried"), [("train-1", 2), ("train-9", 1)])
def test_what_was_tried_on_this_machine_after_a_submission_is_not_explained_by_slurm(store, monkeypatch, job, n_tried):
    monkeypatch.setattr(queue, "accounting", lambda ids: dict.fromkeys(ids, {"State": "TIMEOUT"}))
    old, new = store.job_dir("train-1") / "attempts" / "0", store.job_dir(job) / "attempts" / str(n_tried - 1)
    submitted, stopped = submission(number="7"), RunState("stopped", "", {"job": job})
    never_begun = triage.causes({"run": RunState("new")}, store, [submitted])
    write_json(old / "start.json", {"started": 200.0, "slurm": {"id": "7_0"}})
    own = triage.causes({"run": RunState("stopped", "", {"job": "train-1"})}, store, [submitted])
    assert never_begun["run"].kind == own["run"].kind == "timeout"
    write_json(new / "start.json", {"started": 400.0})
    write_json(new / "exit.json", {"exit_code": 1, "ended": 500.0})
    (new / "stderr").write_text("ValueError: sae.kind='x' does not exist\n")
    found = triage.causes({"run": stopped}, store, [submitted])["run"]
    assert (found.kind, found.attempt, found.n_attempts) == ("config_error", new, n_tried)


def test_the_accounting_is_asked_for_any_number_of_jobs(monkeypatch):
    def sacct(*command, **_):
        ids = next(word for word in command if word.startswith("--jobs="))
        return (None, "E2BIG") if len(ids) > 2**17 else ("".join(f"{i}|FAILED\n" for i in ids[7:].split(",")), "")

    monkeypatch.setattr(queue, "ask", sacct)
    monkeypatch.setattr(queue.shutil, "which", lambda name: name)
    ids = [f"12345678_{i}" for i in range(12_001)]
    assert list(queue.accounting(ids)) == ids


def test_every_class_suggests_one_command():
    assert set(SUGGESTED) == set(CLASSES)
    assert all(text.format(sweep="s", run="r").startswith("saescale ") for text in SUGGESTED.values())
