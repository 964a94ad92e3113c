"""wandb's own client and service: offline files read back with its own reader; a server on loopback that keeps what arrives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_server import KEY
from made import make, metric_row

from saescale.records.store import read_json, read_lines
from saescale.track.client import INIT_S
from saescale.track.follow import Asked, Follower

pytestmark = pytest.mark.wandb
OFFLINE = [metric_row(s) for s in (32, 64, 100)]


def mirror(made, kind="wandb", **asked):
    return Follower(made.store, Asked("tiny", kind, **asked)).finish()


def shown(rows):
    """metrics.jsonl rows as wandb has them."""
    axes = ("tokens", "flops_dense")
    return [{"_step": r["step"]} | {k if k in axes else f"train/{k}": v for k, v in r.items() if k != "step" and v is not None}
            for r in rows]


def without_clock(rows):
    return [{k: v for k, v in r.items() if k not in ("_timestamp", "_runtime")} for r in rows]


def inspected(store, wandb_id):
    """(rows, last summary) of the one offline folder of a run, by `wandb leet inspect`."""
    folders = list((store.sweep_dir("tiny") / "track" / "wandb").glob(f"offline-run-*-{wandb_id}"))
    assert len(folders) == 1
    records = [json.loads(line) for line in leet(folders[0]).splitlines()]
    return [r["history"]["item"] for r in records if r["type"] == "history"], json.loads(leet("--summary", folders[0]))


def leet(*arguments):
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", *arguments]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True).stdout


def test_a_tracked_launch_lands_offline_whole_and_nowhere_else(project, saescale, home):
    code, out, _ = saescale("launch", "tiny", "track=offline", "sae.n_latents=16", "seed=0")
    assert code == 0 and "are whole in wandb, offline in" in out
    for run_dir in project.store.glob("by-id/*"):
        folder = next(project.store.glob("tiny*/track"))
        store = type("S", (), {"sweep_dir": staticmethod(lambda _, f=folder: f.parent)})
        rows, whole = inspected(store, f"{folder.parent.name}-{run_dir.name}")
        assert without_clock(rows) == shown(read_lines(run_dir / "metrics.jsonl"))
        result = read_json(run_dir / "result.json")
        assert {k: whole["config"][k] for k in result["science"]} == result["science"]
        assert {k: whole["summary"][k] for k in result["metrics"]} == pytest.approx(result["metrics"])
        assert whole["state"] == "finished"
    assert not list(home.rglob("*"))


def test_online_every_run_arrives_with_rows_config_tags_and_record(project, saescale, server, home):
    code, out, _ = saescale("launch", "tiny", "track=wandb", "seed=0")
    assert code == 0 and f"at {server.url}/lab/saescale" in out
    folder = next(project.store.glob("tiny*/plan.json")).parent
    planned = read_json(folder / "plan.json")["runs"]
    assert set(server.runs) == {f"{folder.name}-{r['run_id']}" for r in planned}
    for planned_run in planned:
        run_dir, run = project.store / "by-id" / planned_run["run_id"], server.runs[f"{folder.name}-{planned_run['run_id']}"]
        result = read_json(run_dir / "result.json")
        assert without_clock(run.rows) == shown(read_lines(run_dir / "metrics.jsonl")) and run.overwritten == 0
        assert {k: run.config[k] for k in result["science"]} == result["science"]
        assert {k: run.summary[k] for k in result["metrics"]} == pytest.approx(result["metrics"])
        assert [run.said(k) for k in ("groupName", "jobType", "displayName")] == [folder.name, "sae", planned_run["run_id"]]
        assert run.said("tags")[0] == "topk" and run.exit_code == 0
    assert not [p for p in (*project.root.rglob("*"), *home.rglob("*")) if p.is_file() and KEY.encode() in p.read_bytes()]
    assert not list(home.rglob("*"))


def test_what_is_missing_is_sent_by_the_next_mirror_and_nothing_twice(made, server):
    made.log(0, [metric_row(32)], torn='{"step": 64, "to')
    said = mirror(made, runs=[made.runs[0]["run_id"]])
    run = server.runs[made.wandb_id(0)]
    assert (len(run.rows), run.preempted, run.exit_code, said["done"]) == (1, True, 1, 1)
    made.log(0, OFFLINE)
    made.finish(0)
    mirror(made)
    assert without_clock(run.rows) == shown(OFFLINE) and run.overwritten == 0 and run.exit_code == 0
    assert run.summary["fvu"] == 0.25 and run.summary["state"] == "done"
    n_asked = len(server.asked)
    assert mirror(made)["done"] == 1 and len(server.asked) == n_asked + 1  # who the key belongs to, and no more


def test_a_mirror_killed_while_it_is_at_work_loses_and_doubles_nothing(made, server):
    follower = Follower(made.store, Asked("tiny", "wandb"))
    made.log(0, OFFLINE[:2])
    wait_for(lambda: made.wandb_id(0) in server.runs)
    os.killpg(follower.process.pid, signal.SIGKILL)
    assert follower.finish()["failures"] == 1
    made.log(0, OFFLINE)
    made.finish(0)
    mirror(made)
    run = server.runs[made.wandb_id(0)]
    assert without_clock(run.rows) == shown(OFFLINE) and run.exit_code == 0


def test_an_offline_mirror_killed_and_begun_again_leaves_one_whole_folder(made, home):  # noqa: ARG001
    follower = Follower(made.store, Asked("tiny", "offline"))
    made.log(0, OFFLINE[:1])
    wait_for(lambda: list((made.store.sweep_dir("tiny") / "track" / "wandb").glob("offline-run-*")))
    os.killpg(follower.process.pid, signal.SIGKILL)
    follower.finish()
    time.sleep(1.1)  # folders are named by the second
    made.log(0, OFFLINE)
    made.finish(0)
    mirror(made, "offline")
    rows, whole = inspected(made.store, made.wandb_id(0))
    assert without_clock(rows) == shown(OFFLINE) and whole["state"] == "finished"


def test_sync_sends_what_was_tracked_offline_once_and_leaves_the_folders_for_leet(made, server, saescale):
    made.log(0, OFFLINE)
    made.finish(0)
    made.log(1, OFFLINE[:1])
    made.fail(1, "diverged: loss is nan")
    mirror(made, "offline")
    code, out, _ = saescale("sync", "tiny")
    assert code == 0 and "2 of 2 runs are whole in wandb" in out
    assert without_clock(server.runs[made.wandb_id(0)].rows) == shown(OFFLINE)
    failed = server.runs[made.wandb_id(1)]
    assert (failed.exit_code, failed.summary["reason"]) == (1, "diverged: loss is nan")
    folders = list((made.store.sweep_dir("tiny") / "track" / "wandb").glob("*run-2*"))
    assert len(folders) == 2 and all(list(f.glob("*.wandb.synced")) for f in folders)
    assert saescale("sync", "tiny")[0] == 0
    assert sum(r.overwritten for r in server.runs.values()) == 0


def test_a_sweep_that_was_never_tracked_can_be_sent_later(made, server, saescale):
    made.log(0, OFFLINE)
    made.finish(0)
    assert saescale("sync", "tiny", "track.project=elsewhere")[0] == 0
    run = server.runs[made.wandb_id(0)]
    assert run.said("project") == "elsewhere"
    n_upserts = len(run.upserts)
    code, out, _ = saescale("sync", "tiny")  # said once is enough
    assert code == 0 and "/elsewhere" in out and len(run.upserts) == n_upserts


def test_odd_names_and_numbers_that_are_none_arrive_as_they_are(made, server):
    odd = 'ce recovered (50 %) é"/\\x'
    made.log(0, [metric_row(32, **{odd: float("nan"), "missing": None}), metric_row(100, **{odd: float("inf")})])
    made.finish(0, **{odd: 1.5})
    mirror(made)
    rows = server.runs[made.wandb_id(0)].rows
    assert [str(r[f"train/{odd}"]).lower() for r in rows] in (["nan", "inf"], ["nan", "infinity"])
    assert "train/missing" not in rows[0] and server.runs[made.wandb_id(0)].summary[odd] == 1.5


def test_a_run_deleted_on_the_server_is_left_out_until_it_is_asked_back(made, server, saescale):
    for seed in (0, 1):
        made.log(seed, OFFLINE)
        made.finish(seed)
    server.deleted.add(made.wandb_id(0))
    code, out, _ = saescale("sync", "tiny")
    assert code == 3 and "deleted on the server" in out and "--revive" in out
    assert set(server.runs) == {made.wandb_id(1)}
    assert saescale("sync", "tiny", "--revive")[0] == 0
    assert without_clock(server.runs[f"{made.wandb_id(0)}-2"].rows) == shown(OFFLINE)
    assert saescale("sync", "tiny")[0] == 0 and len(server.runs) == 2


def test_an_id_that_another_run_has_is_not_written_to(made, server, saescale):
    theirs = server.run(made.wandb_id(0))
    theirs.upserts.append({"config": json.dumps({"fingerprint": {"value": "another"}}), "name": theirs.name})
    for seed in (0, 1):
        made.log(seed, OFFLINE)
        made.finish(seed)
    code, out, _ = saescale("sync", "tiny")
    assert code == 3 and "already used" in out and not theirs.rows and "fvu" not in theirs.summary
    assert theirs.config["fingerprint"] == "another"
    assert len(server.runs[made.wandb_id(1)].rows) == 3


def test_rows_the_server_lost_are_noticed_and_sent_again(made, server, saescale):
    made.log(0, OFFLINE)
    made.finish(0)
    server.loses_rows = True
    code, out, _ = saescale("sync", "tiny")
    assert code == 3 and "0 of the 3 rows" in out
    server.loses_rows = False
    assert saescale("sync", "tiny")[0] == 0
    assert without_clock(server.runs[made.wandb_id(0)].rows) == shown(OFFLINE)


@pytest.mark.parametrize("trouble", ["refuse", "500", "hang", "gone"])
def test_a_server_in_trouble_costs_a_note_and_the_runs_are_offline(made, server, trouble):
    made.log(0, OFFLINE)
    made.finish(0)
    server.trouble = trouble
    if trouble == "gone":
        server.close()
    begun = time.monotonic()
    said = mirror(made)
    assert time.monotonic() - begun < 3 * INIT_S  # one look at the server; the rest is the start of two processes
    assert said["where"] == "offline" and said["done"] == 1 and "tracked offline" in said["notes"][0]
    rows, _ = inspected(made.store, made.wandb_id(0))
    assert without_clock(rows) == shown(OFFLINE)


def test_without_a_key_it_is_offline_and_nothing_is_asked(made, server, monkeypatch, saescale):
    made.log(0, OFFLINE)
    made.finish(0)
    monkeypatch.delenv("WANDB_API_KEY")
    said = mirror(made)
    assert said["where"] == "offline" and said["done"] == 1 and "no wandb key" in said["notes"][0] and not server.asked
    code, _, err = saescale("sync", "tiny")
    assert code == 2 and "WANDB_API_KEY" in err


def test_a_server_that_fails_under_way_loses_nothing(made, server):
    follower = Follower(made.store, Asked("tiny", "wandb"))
    made.log(0, OFFLINE[:1])
    wait_for(lambda: made.wandb_id(0) in server.runs)
    server.trouble = "500"
    made.log(0, OFFLINE)
    made.finish(0)
    made.log(1, OFFLINE)
    made.finish(1)
    said = follower.finish()
    assert said["failures"] >= 1 and any("saescale sync" in n for n in said["notes"])
    server.trouble = None
    mirror(made)
    for seed in (0, 1):
        assert without_clock(server.runs[made.wandb_id(seed)].rows) == shown(OFFLINE)


def test_a_hundred_runs_are_open_in_turn(project, server):
    made = make(project.store, 100)
    for seed in made.runs:
        made.log(seed, OFFLINE[:2])
    follower = Follower(made.store, Asked("tiny", "wandb"))
    wait_for(lambda: len(server.runs) >= 64)
    for seed in made.runs:
        made.log(seed, OFFLINE)
        made.finish(seed)
    assert follower.finish()["done"] == 100
    assert all(without_clock(r.rows) == shown(OFFLINE) and r.exit_code == 0 for r in server.runs.values())


def wait_for(there, seconds=40.0):
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.1)
