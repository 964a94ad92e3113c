"""Sixty runs on a real Slurm: left alone, and under everything that goes wrong on a cluster."""

import json
import os
import random
import signal
import stat
import time

import one_host
import pytest
from lab import left_by, queued

pytestmark = pytest.mark.slurm
DISTURBED_S = 40  # half of what the sweep takes undisturbed on two cores, so that there is something left to disturb


def test_sixty_runs_of_several_resource_groups_come_home_and_a_second_launch_submits_nothing(undisturbed):
    code, said = undisturbed.launched
    assert code == 4 and "21 jobs submitted in 6 arrays" in said, said  # 20 fleets in arrays of at most 5, and the report
    found = undisturbed.states("sixty")
    assert len(found) == 60 and {s["state"] for s in found.values()} == {"done"}
    before = one_host.said("sacct", "-nX", "-o", "jobid")
    code, said = undisturbed.run("launch", "sixty")
    assert code == 0 and "0 to run: nothing was started" in said
    assert one_host.said("sacct", "-nX", "-o", "jobid") == before and not queued()


def test_the_job_that_ends_a_launch_collects_and_reports(undisturbed):
    folder = undisturbed.store.sweep_dir("sixty")
    rows = (folder / "table.csv").read_text().splitlines()
    assert sum(",done," in row for row in rows) == 60 and (folder / "report" / "index.html").exists()


def test_groups_ask_for_what_their_rules_say(undisturbed):
    lines = [json.loads(line) for line in (undisturbed.store.sweep_dir("sixty") / "submissions.jsonl").read_text().splitlines()]
    asked = {(line["request"]["gpus"], line["request"]["memory"], line["request"]["time"]) for line in lines
             if line["event"] == "intent" and line["stage"] == "train"}
    assert asked == {(2, "3G", "10m"), (1, "2G", "10m"), (0, "2G", "5m")}
    numbers = ",".join(line["number"] for line in lines if line["event"] == "submitted")
    granted = one_host.said("sacct", "-nXP", "-j", numbers, "-o", "ReqTRES").split()
    assert {"gres/gpu=2" in row for row in granted} == {True, False} and any("gres/gpu=1" in row for row in granted)


def shim(folder, name, script):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod((folder / name).stat().st_mode | stat.S_IEXEC)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


class Disturbance:
    """Everything that goes wrong, in an order drawn from a seed; each is counted when it really happened."""

    def __init__(self, lab, seed):
        self.lab, self.random, self.happened = lab, random.Random(seed), []

    def kill(self):
        """kill -9 of a worker, or of the task that watches it."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = self.lab.processes()
            if found:
                try:
                    os.kill(self.random.choice(found), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.happened.append("kill")
                return
            time.sleep(0.2)

    def on_running(self, what, *command):
        """The command for one running element; waits for one, since a preemption may have just emptied the nodes."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            running = queued("RUNNING")
            element = self.random.choice(running) if running else None
            if element and one_host.answers(*(part.replace("ELEMENT", element) for part in command)):
                self.happened.append(what)
                return
            time.sleep(0.2)

    def requeue(self):
        self.on_running("requeue", "scontrol", "requeue", "ELEMENT")

    def time_limit(self):
        self.on_running("time limit", "scontrol", "update", "jobid=ELEMENT", "TimeLimit=1")

    def node_down(self):
        one_host.said("scontrol", "update", "nodename=n2", "state=down", "reason=test")
        self.happened.append("node down")

    def node_up(self):
        one_host.answers("scontrol", "update", "nodename=n2", "state=resume")  # it may have come back by itself

    def preempt(self):
        one_host.said("sbatch", "-p", "main", "-N", "3", "-n", "6", "-t", "1", "-o", "/dev/null", "--wrap", "srun sleep 4")
        self.happened.append("preemption")


def test_after_every_disturbance_sixty_runs_are_done_once_and_equal_the_undisturbed_ones(undisturbed, lab, tmp_path):
    lab.start("launch", "sixty", **shim(tmp_path / "shim", "sbatch", "kill -9 $PPID")).wait()
    assert not queued()  # killed between intent and submission
    code, said = lab.run("launch", "sixty")
    assert code == 4 and "never was" in said and "21 jobs submitted" in said, said

    d = Disturbance(lab, seed=6)
    plan = [d.kill] * 10 + [d.requeue] * 2 + [d.preempt]
    d.random.shuffle(plan)
    plan = [plan[0], d.node_down, d.time_limit, *plan[1:6], d.node_up, *plan[6:]]
    begun = time.monotonic()
    one_host.wait_for("a worker", lab.processes)
    for i, disturb in enumerate(plan):
        time.sleep(max(0.0, begun + 8 + i * DISTURBED_S / len(plan) - time.monotonic()))
        disturb()
    lab.settle()
    assert {"requeue", "node down", "preemption", "time limit"} <= set(d.happened), str(d.happened)

    for _ in range(2):
        code, said = lab.run("launch", "sixty")
        if code == 0 and not queued():
            break
        lab.settle()
    found = lab.states("sixty")
    assert {s["state"] for s in found.values()} == {"done"}, (d.happened, found)
    assert left_by(lab.store) == left_by(undisturbed.store)  # metrics rows too: none lost, none doubled
    assert d.happened.count("kill") >= 10, str(d.happened)
