"""The task a scheduler starts, with a real worker process and real signals; `scontrol` writes down its arguments."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from saescale.campaign import task
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


def start(job):
    root = job.parents[1]
    env = {**os.environ, "PATH": f"{root}:{os.environ['PATH']}", "SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "3",
           "SLURM_JOB_ID": "47", "SLURM_JOB_NAME": "saescale-x-y", "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen([sys.executable, "-c", TASK, str(job)], env=env, stderr=subprocess.PIPE, text=True)
    attempts = job / "attempts"
    deadline = time.monotonic() + 30
    while not any(p.read_text() for p in attempts.glob("*/stderr")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


def calls(job):
    path = job.parents[1] / "scontrol.calls"
    return path.read_text().splitlines() if path.exists() else []


def ended(job, attempt=0):
    return json.loads((job / "attempts" / str(attempt) / "exit.json").read_text())


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


def test_two_attempts_without_progress_are_not_queued_a_third_time(job):
    write_json(job / "attempts" / "0" / "exit.json", {"exit_code": 4, "done": 0.0})
    process = start(job)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(30) == task.STALLED and calls(job) == []


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
