"""Jobs of several processes, with the real command line: where trunks live, and what a kill leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from saescale.campaign import local
from saescale.campaign.launch import training_jobs
from saescale.campaign.local import Worker
from saescale.kinds import KINDS
from saescale.records import record

TWO = ("cluster=local", "cluster.workers=1", "cluster.ranks=2")
FOUR = ("cluster=local", "cluster.workers=1", "cluster.ranks=4")
MIXED = ("sae.n_latents=16,40", "train.n_tokens=9600,19200")
ALL_SHARDED = ("cluster.shard_above_gb=0", "cluster.checkpoint_s=0")
SLOW = ("sae.n_latents=1024", "train.n_tokens=76800")
WITHIN = 0.002  # of the final held-out fvu


def the_job(bed):
    (folder,) = (bed.store.root / "jobs").glob("train-*")
    return folder, json.loads((folder / "job.json").read_text())


def test_a_fleet_placed_over_two_ranks_that_share_a_live_harvest_gives_the_bits_of_one_process(bed):
    alone = bed.another("alone")
    assert alone.launch(*MIXED).exit_code == 0
    outcome = bed.launch(*MIXED, *TWO, "activations=live")
    assert outcome.exit_code == 0, outcome.messages
    assert sorted(the_job(bed)[1]["homes"].values()) == [0, 1]
    assert bed.left_by(bed.plan(*MIXED)) == alone.left_by(alone.plan(*MIXED))


def claimed(bed, *overrides):
    """The runs of the plan, ready to be trained."""
    runs = bed.plan(*overrides).runs
    for r in runs:
        record.claim(bed.store.run_dir(r.run_id), r.science, {**r.execution, "checkpoint_s": 0})
    return runs


def processes_of(folder):
    """By rank: the processes that were started for the job in `folder`."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (path / "cmdline").read_bytes().split(b"\0"):
                said = dict(e.partition(b"=")[::2] for e in (path / "environ").read_bytes().split(b"\0"))
                found[int(said[b"RANK"])] = int(path.name)
        except (OSError, KeyError):
            continue
    return found


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="only /proc tells which process is which rank")
def test_a_rank_killed_mid_step_ends_the_job_soon_with_one_sentence_and_the_job_goes_on_with_any_number_of_ranks(bed):
    alone = bed.another("alone")
    assert alone.launch(*SLOW).exit_code == 0
    (run,) = bed.plan(*SLOW).runs

    launched = subprocess.Popen([sys.executable, "-m", "saescale.cli", "launch", "grid", *SLOW, *TWO, *ALL_SHARDED, "--store",
                                 str(bed.store.root)], cwd=bed.project.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True)
    give_up = time.monotonic() + 120
    while not list(bed.checkpoints(run).glob("step-*.json")):
        assert launched.poll() is None and time.monotonic() < give_up, launched.communicate()
        time.sleep(0.02)
    folder, content = the_job(bed)
    assert list(content["homes"].values()) == [None]
    ranks = processes_of(folder)
    os.kill(ranks[1], signal.SIGKILL)
    killed = time.monotonic()
    out, err = launched.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert launched.returncode == 3 and "(rank 1 of 2) was killed by signal 9" in out + err
    assert not processes_of(folder)
    assert "rank 0 of 2 lost another rank" in (folder / "attempts" / "0" / "stderr").read_text()
    assert "Traceback" not in (folder / "attempts" / "0" / "stderr").read_text()

    reached = max(int(p.stem.split("-")[1]) for p in bed.checkpoints(run).glob("step-*.json"))
    assert bed.launch(*SLOW).exit_code == 0  # in one process: what two ranks wrote goes on
    (ours,), (expected,) = bed.left_by(bed.plan(*SLOW)).values(), alone.left_by(alone.plan(*SLOW)).values()
    assert reached > 0 and ours["metrics"]["fvu"] == pytest.approx(expected["metrics"]["fvu"], rel=WITHIN)
    rows = [json.loads(line)["step"] for line in ours["metrics.jsonl"].splitlines()]
    assert rows == [json.loads(line)["step"] for line in expected["metrics.jsonl"].splitlines()]


@pytest.mark.slow
def test_runs_of_every_kind_sharded_over_four_ranks_end_at_the_held_out_error_of_one_process(bed):
    kinds = (f"sae={','.join(KINDS)}", "sae.n_latents=40", "train.n_tokens=19200")
    alone = bed.another("alone")
    assert alone.launch(*kinds).exit_code == 0
    outcome = bed.launch(*kinds, *FOUR, *ALL_SHARDED)
    assert outcome.exit_code == 0, outcome.messages
    assert set(the_job(bed)[1]["homes"].values()) == {None}
    found, expected = bed.left_by(bed.plan(*kinds)), alone.left_by(alone.plan(*kinds))
    assert found.keys() == expected.keys() and len(found) == len(KINDS)
    for name in ("fvu", "objective"):
        got, wanted = ({run_id: left["metrics"][name] for run_id, left in each.items()} for each in (found, expected))
        assert got == pytest.approx(wanted, rel=WITHIN), name


def test_a_signal_to_one_rank_stops_all_at_one_step_with_everything_saved(bed):
    runs = ("sae.n_latents=1024,512", "train.n_tokens=76800")
    jobs = training_jobs([claimed(bed, *runs)], bed.store, bed.plan(*runs, *TWO).cluster)
    worker = Worker(jobs[0], json.loads((jobs[0] / "job.json").read_text()))
    plan = bed.plan(*runs)
    try:
        give_up = time.monotonic() + 120
        while not all(list(bed.checkpoints(r).glob("step-*.json")) for r in plan.runs):
            assert not worker.poll() and time.monotonic() < give_up
            time.sleep(0.02)
        worker.ranks[1].process.terminate()
        worker.wait()
    finally:
        worker.send_signal(signal.SIGTERM)
    assert [rank.process.returncode for rank in worker.ranks] == [4, 4]
    newest = {max(p.stem for p in bed.checkpoints(r).glob("step-*.json")) for r in plan.runs}
    assert len(newest) == 1 and newest != {"step-0000000600"}


def test_a_rank_that_hangs_is_given_up_after_the_configured_time_and_the_job_goes_on(bed, monkeypatch):
    monkeypatch.setattr(local, "GRACE_S", 1.0)
    runs, patience = ("sae.n_latents=512", "train.n_tokens=76800"), "cluster.rank_timeout_s=8"
    jobs = training_jobs([claimed(bed, *runs)], bed.store, bed.plan(*runs, *TWO, *ALL_SHARDED, patience).cluster)
    worker = Worker(jobs[0], json.loads((jobs[0] / "job.json").read_text()))
    plan = bed.plan(*runs)
    try:
        give_up = time.monotonic() + 120
        while not list(bed.checkpoints(plan.runs[0]).glob("step-*.json")):
            assert not worker.poll() and time.monotonic() < give_up
            time.sleep(0.02)
        worker.ranks[1].process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        worker.wait()
    finally:
        for rank in worker.ranks:
            rank.process.kill()
    assert 7 < time.monotonic() - stopped < 60
    said = worker.finish()
    assert "(rank 0 of 2) stopped with exit code 3: rank 0 of 2 waited 8 s (cluster.rank_timeout_s) for another rank" in said
    assert said.endswith("Rank 1 hung and was killed.")
    assert bed.launch(*runs).exit_code == 0
    assert not [note for note in bed.left_by(plan).values() if note["steps"] != 600]
