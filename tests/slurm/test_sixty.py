"""Sixty runs on a real Slurm: left alone, and under everything that goes wrong on a cluster."""

import json

import one_host
import pytest
from disturbed import Disturbance, Watch, held
from lab import left_by, queued, shim, slowed

pytestmark = pytest.mark.slurm
BLOCK_S = 1.0  # a job then trains for 16 s at least: two waves of eight outlast the disturbances on any machine


def test_sixty_runs_of_several_resource_groups_come_home_and_a_second_launch_submits_nothing(undisturbed):
    code, said = undisturbed.launched
    assert code == 4 and "17 jobs submitted in 5 arrays" in said, said  # 16 fleets in arrays of at most 5, and the report
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


def test_after_every_disturbance_sixty_runs_are_done_once_and_equal_the_undisturbed_ones(undisturbed, lab, tmp_path):
    slow = slowed(tmp_path / "slow", BLOCK_S)
    lab.start("launch", "sixty", **slow, **shim(tmp_path / "shim", "sbatch", "kill -9 $PPID")).wait()
    assert not queued()  # killed between intent and submission
    with Watch(lab) as watch:
        code, said = lab.run("launch", "sixty", **slow)
        assert code == 4 and "never was" in said and "17 jobs submitted" in said, said

        d = Disturbance(lab, seed=6)
        d.strike([d.kill] * 10 + [d.requeue] * 2, first=[d.time_limit, d.kill, d.node_down], last=[d.node_up, d.preempt])
        lab.settle()
        for _ in range(2):
            code, said = lab.run("launch", "sixty")
            if code == 0 and not queued():
                break
            lab.settle()
    found = lab.states("sixty")
    assert {s["state"] for s in found.values()} == {"done"}, (d.happened, found)
    assert left_by(lab.store) == left_by(undisturbed.store)  # metrics rows too: none lost, none doubled
    d.require_traces()
    intervals = held(lab.store, watch)
    assert sum(len(spans) - 1 for spans in intervals.values()) >= 10, "few trunks changed hands"
    for trunk, spans in intervals.items():
        assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:], strict=False)), (trunk, spans)
