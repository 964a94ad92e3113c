import json
import os

import pytest

from saescale import identity
from saescale.campaign.plan import PlannedRun
from saescale.campaign.queue import Element, Queue
from saescale.campaign.status import state
from saescale.campaign.submissions import Submission, flight
from saescale.records import record
from saescale.records.lock import Lock
from saescale.records.store import Store, write_json

SCIENCE = {"sae": {"n_latents": 16}, "train": {"n_tokens": 512, "seed": 0}}
RUN = PlannedRun("run", "trunk", ("g",), None, SCIENCE, {})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def finish(store, science=SCIENCE):
    record.write_result(store.run_dir("run"), {
        "schema": 1, "run_id": "run", "trunk_id": "trunk", "fingerprint": identity.fingerprint(science), "science": science,
        "metrics": {}, "flops": {}, "n_tokens": 512})


def say(store, **status):
    write_json(store.run_dir("run") / "status.json", status)


def lock(store):
    held = Lock(store.trunk_dir("trunk") / "lock")
    assert held.acquire() is None


def test_a_run_nobody_began_is_new(store):
    assert state(RUN, store).state == "new"
    record.claim(store.run_dir("run"), SCIENCE, {})
    assert state(RUN, store).state == "new"


def test_a_run_with_its_record_is_done_whatever_else_is_said(store):
    finish(store)
    say(store, state="failed", reason="x")
    lock(store)
    assert state(RUN, store).state == "done"


def test_a_begun_run_is_running_while_its_trunk_is_locked_by_a_living_process(store):
    say(store, state="running", tokens=256, n_tokens=512)
    lock(store)
    found = state(RUN, store)
    assert found.state == "running" and str(os.getpid()) in found.reason and found.progress["tokens"] == 256


def test_a_begun_run_whose_process_is_gone_is_stopped(store):
    say(store, state="running", tokens=256, n_tokens=512)
    assert state(RUN, store).state == "stopped"


def test_a_failed_run_says_why(store):
    say(store, state="failed", reason="diverged")
    assert (state(RUN, store).state, state(RUN, store).reason) == ("failed", "diverged")


@pytest.mark.parametrize(("name", "raw"), [("result.json", '{"schema": 1'), ("result.json", "{}"), ("result.json", "[]"),
                                           ("result.json", ""), ("status.json", "{"), ("status.json", "[1]")])
def test_a_torn_file_is_damage_and_is_named(store, name, raw):
    store.run_dir("run").mkdir(parents=True)
    (store.run_dir("run") / name).write_text(raw)
    found = state(RUN, store)
    assert found.state == "damaged" and name in found.reason


def test_another_experiment_in_the_directory_stops_everything(store):
    finish(store, {**SCIENCE, "train": {"n_tokens": 512, "seed": 7}})
    with pytest.raises(record.OtherRun, match="train.seed: 0 here, 7 on disk"):
        state(RUN, store)


def test_the_elements_of_an_open_intent_are_known_by_their_place_in_the_array_and_not_in_the_queue():
    s = Submission("sweep", "token", "name", "train", 1.0, {job: [f"run-{job}"] for job in "abc"}, {}, {})
    queue = Queue({key: Element(key, "name", "RUNNING", "None") for key in ("7_2", "7_1")})
    assert {job: e.id for job, e in flight([s], queue).jobs.items()} == {"b": "7_1", "c": "7_2"}
    alone = Submission("sweep", "token", "alone", "train", 1.0, {"a": ["run-a"]}, {}, {})
    assert flight([alone], Queue({"9": Element("9", "alone", "PENDING", "None")})).elements["run-a"].id == "9"


def test_asking_changes_nothing_on_disk(store):
    say(store, state="running", tokens=1, n_tokens=2)
    before = {p: p.read_bytes() for p in store.root.rglob("*") if p.is_file()}
    state(RUN, store)
    assert {p: p.read_bytes() for p in store.root.rglob("*") if p.is_file()} == before
    assert json.loads(before[store.run_dir("run") / "status.json"])["tokens"] == 1
