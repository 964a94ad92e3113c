"""What a tracked job leaves in wandb on a real Slurm, where the first task of a job mirrors it."""

import json

import one_host
import pytest
from lab import SIXTY
from test_mirror import leet, shown, without_clock

pytestmark = pytest.mark.slurm
ONE = SIXTY.replace("[16, 24, 32, 48, 64]", "[32]").replace("[65_536, 131_072, 262_144]", "[262_144]").replace(
    "[0, 1, 2, 3]", "[0]")


def test_a_tracked_job_that_is_requeued_is_whole_in_wandb_and_no_row_is_there_twice(lab, slow_blocks):
    (lab.root / "sweeps" / "one.yaml").write_text(ONE)
    lab.environment |= slow_blocks
    code, said = lab.run("launch", "one", "track=offline")
    assert code == 4, said
    track = lab.store_root / "one" / "track"
    number = next(json.loads(line)["number"] for line in (track.parent / "submissions.jsonl").read_text().splitlines()
                  if json.loads(line)["event"] == "submitted")
    one_host.wait_for("rows in wandb", lambda: any(json.loads(p.read_text())["sent"] for p in track.glob("mirror-*.json")))
    one_host.said("scancel", "--signal=USR2", number)
    lab.settle()
    run, = lab.store_root.glob("by-id/*")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    log, = track.glob(f"wandb/offline-run-*-one-{run.name}*")
    arrived = [json.loads(line) for line in leet(log).splitlines()]
    assert without_clock(r["history"]["item"] for r in arrived if r["type"] == "history") == shown(rows)
    assert json.loads((track / "runs" / f"{run.name}.json").read_text())["ended"] == "done"
    job, = lab.store_root.glob("jobs/train-*")
    assert len(list((job / "attempts").glob("*"))) == 2
