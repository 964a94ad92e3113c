"""The task a scheduler starts, with a real worker process and real signals; `scontrol` writes down its arguments."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from saescale.campaign import meeting, task
from saescale.campaign.local import open_attempt
from saescale.records.store import write_json

WORKER = """
import signal, sys, time
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(4))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
print("ready", file=sys.stderr, flush=True)
time.sleep(60)
"""
TASK = """
import sys
from saescale.campaign import local, task
local.JOB_MODULE = "worker"
task.KILL_WAIT_S = 30.0
task.run_task(sys.argv[1])
"""


@pytest.fixture
def job(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/scontrol.calls\n")
    (tmp_path / "scontrol").chmod(0o755)
    folder = tmp_path / "jobs" / "train-1"
    write_json(folder / "job.json", {"stage": "train", "execution": {"threads": 1}, "request": {"gpus": 2}})
    return folder


def start(job, **variables):
    root = job.parents[1]
    env = {**os.environ, "PATH": f"{root}:{os.environ['PATH']}", "SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "3",
           "SLURM_JOB_ID": "47", "SLURM_JOB_NAME": "saescale-x-y", "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}",
           **variables}
    process = subprocess.Popen([sys.executable, "-c", TASK, str(job)], env=env, stderr=subprocess.PIPE, text=True)
    attempts = job / "attempts"
    deadline = time.monotonic() + 30
    said = f"*/stderr.{variables['SLURM_PROCID']}" if int(variables.get("SLURM_PROCID", 0)) else "*/stderr"
    while not any(p.read_text() for p in attempts.glob(said)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


def calls(job):
    path = job.parents[1] / "scontrol.calls"
    return path.read_text().splitlines() if path.exists() else []


def ended(job, attempt=0, name="exit.json"):
    return json.loads((job / "attempts" / str(attempt) / name).read_text())


def test_usr2_requeues_exactly_this_element_after_the_worker_has_saved(job):
    process = start(job)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(30) == task.REQUEUED and calls(job) == ["requeue 41_3"]
    assert (ended(job)["exit_code"], ended(job)["asked"]) == (4, "requeue")
    assert json.loads((job / "attempts" / "0" / "start.json").read_text())["slurm"]["id"] == "41_3"


def test_sigterm_saves_and_waits_for_the_scheduler_without_requeueing(job):
    process = start(job)
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 20
    while not (job / "attempts" / "0" / "exit.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ended(job)["asked"] == "stop" and process.poll() is None and calls(job) == []
    process.kill()
    process.wait()


def test_a_worker_killed_for_its_memory_leaves_its_exit_on_record_and_a_failed_task(job):
    process = start(job)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[0]), signal.SIGKILL)
    assert process.wait(30) == 128 + 9 and ended(job)["exit_code"] == -9 and calls(job) == []
    assert "was killed by signal 9" in process.stderr.read()


def test_a_store_the_node_cannot_write_is_one_sentence(job):
    (job / "attempts").write_text("no folder can be made here")
    process = subprocess.run([sys.executable, "-c", TASK, str(job)], capture_output=True, text=True)
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert "the nodes must be able to write the store. Try `saescale doctor --cluster slurm`." in process.stderr


def test_two_attempts_without_progress_are_not_queued_a_third_time(job):
    write_json(job / "attempts" / "0" / "exit.json", {"exit_code": 4, "done": 0.0})
    process = start(job)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(30) == task.STALLED and calls(job) == []


@pytest.fixture
def two(job):
    """The two tasks of a job of two nodes, the second started first."""
    write_json(job / "job.json", {"stage": "train", "execution": {"threads": 1}, "n_ranks": 2,
                                  "request": {"gpus": 1, "nodes": 2}})
    shared = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}
    with ThreadPoolExecutor() as pool:
        second = pool.submit(start, job, SLURM_PROCID="1", **shared)
        time.sleep(0.5)
        tasks = [start(job, SLURM_PROCID="0", **shared), second.result()]
    yield tasks
    for process in tasks:
        process.kill()
        process.wait()


def worker_environment(task):
    child = subprocess.run(["pgrep", "-P", str(task.pid)], capture_output=True, text=True).stdout.split()[0]
    words = Path(f"/proc/{child}/environ").read_text().split("\0")
    return dict(w.split("=", 1) for w in words if "=" in w)


def test_tasks_of_several_nodes_share_one_attempt_and_tell_their_workers_where_to_meet(job, two):
    first, second = map(worker_environment, two)
    assert len(list((job / "attempts").glob("*"))) == 1
    start_said = json.loads((job / "attempts" / "0" / "start.json").read_text())
    assert (start_said["gpus"], start_said["n_tasks"]) == (2, 2)
    for rank, said in enumerate((first, second)):
        assert (said["RANK"], said["WORLD_SIZE"], said["MASTER_ADDR"]) == (str(rank), "2", "10.0.0.7")
    assert first["MASTER_PORT"] == second["MASTER_PORT"] and "CUDA_VISIBLE_DEVICES" not in set(second) - set(os.environ)


def test_of_several_tasks_the_first_alone_requeues_once_all_have_ended_though_only_another_was_asked(job, two):
    two[1].send_signal(signal.SIGUSR2)
    deadline = time.monotonic() + 20
    while not (job / "attempts" / "0" / "exit.1.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ended(job, name="exit.1.json")["asked"] == "requeue" and calls(job) == [] and two[0].poll() is None
    child = subprocess.run(["pgrep", "-P", str(two[0].pid)], capture_output=True, text=True).stdout.split()[0]
    os.kill(int(child), signal.SIGUSR2)  # as the ranks agree: its worker saves and ends too, without its task having been told
    assert two[0].wait(30) == task.REQUEUED and calls(job) == ["requeue 41_3"] and two[1].poll() is None


def test_a_task_whose_first_never_opens_the_attempt_gives_up_with_a_sentence(job, monkeypatch):
    monkeypatch.setattr(meeting, "MEET_S", 0.3)
    open_attempt(job, {}, start="47.0", meet={})  # of the start before
    with pytest.raises(meeting.NotMet, match=r"rank 1 of 2: the first task opened no attempt of train-1 \(start 47.1\)"):
        meeting.find(job, meeting.Task(1, 2, 1, 1, "47.1"), lambda: None)


def test_the_handler_only_sets_flags(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("the handler did something"))
    asked = task.Asked()
    asked(signal.SIGTERM, None)
    assert (asked.what, asked.requeue) == ("stop", False)
    asked(signal.SIGUSR2, None)
    assert asked.what == "requeue"


@pytest.mark.parametrize(("variables", "expected"), [
    ({"SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "47"}, "41_3"), ({"SLURM_JOB_ID": "47"}, "47")])
def test_an_element_is_named_by_array_and_task(monkeypatch, variables, expected):
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert task.element_id() == expected


def test_the_first_task_of_a_tracked_job_mirrors_its_runs_and_no_other_task_does(job):
    from dataclasses import replace

    first = task.Task.of({})
    assert task.mirrored(job, first) is None
    write_json(job / "job.json", {"stage": "train", "runs": ["a", "b"], "track": {"sweep": "tiny", "kind": "wandb"}})
    asked = task.mirrored(job, first)
    assert (asked.sweep, asked.kind, asked.runs, asked.token) == ("tiny", "wandb", ["a", "b"], job.name)
    assert task.mirrored(job, replace(first, rank=1, size=2)) is None
