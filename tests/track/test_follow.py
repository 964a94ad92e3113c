import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from saescale.records.store import Store, write_json
from saescale.track import follow
from saescale.track.follow import Asked, Follower, following

ASKED, POPEN = Asked("tiny", "offline"), subprocess.Popen


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def stand_in(monkeypatch, script):
    """Another program in the mirror's place."""
    monkeypatch.setattr(follow.subprocess, "Popen", lambda _, **how: POPEN([sys.executable, "-c", script], **how))


def test_a_mirror_that_dies_is_a_note_and_training_goes_on(store, monkeypatch):
    stand_in(monkeypatch, "import sys; sys.exit('no such thing')")
    notes, trained = [], False
    with following(store, ASKED, notes):
        trained = True
    assert trained and "did not end well" in notes[0] and "saescale sync" in notes[0]
    assert "no such thing" in (store.sweep_dir("tiny") / "track" / "mirror-launch.log").read_text()


def test_a_mirror_that_is_silent_is_ended_and_one_that_is_heard_is_waited_for(store, monkeypatch):
    monkeypatch.setattr(follow, "PATIENCE_S", 1.0)
    stand_in(monkeypatch, "import time; time.sleep(60)")
    follower = Follower(store, ASKED)
    assert follower.finish()["failures"] == 1 and follower.process.returncode == -9
    path = store.sweep_dir("tiny") / "track" / "mirror-launch.json"
    stand_in(monkeypatch, f"""
import json, sys, time
for i in range(16):
    time.sleep(0.1); open({str(path)!r}, 'w').write(json.dumps({{"phase": "following", "heartbeat": i}}))
open({str(path)!r}, 'w').write(json.dumps({{"phase": "ended", "done": 3, "total": 3, "where": "offline", "notes": []}}))""")
    assert Follower(store, ASKED).finish()["done"] == 3


def test_when_time_is_short_the_end_of_a_mirror_is_not_waited_for(store, monkeypatch):
    stand_in(monkeypatch, "import time; time.sleep(60)")
    notes = []
    with following(store, ASKED, notes, lambda: 0.2):
        pass
    assert "did not end well" in notes[0]


def test_a_mirror_that_cannot_start_is_a_note(store, monkeypatch):
    def full(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(follow.subprocess, "Popen", full)
    notes = []
    with following(store, ASKED, notes):
        pass
    assert notes == ["tracking is off: the mirror to wandb could not start (Cannot allocate memory)."]


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="the kernel does not share the processor by session")
def test_the_sessions_of_a_mirror_and_of_what_it_began_have_the_lowest_priority():
    script = """
import subprocess, sys
from pathlib import Path
from saescale.track.mirror import step_back
begun = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
step_back()
print([Path(f"/proc/{pid}/autogroup").read_text().split()[-1] for pid in ("self", begun.pid)])
begun.communicate()
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, start_new_session=True, check=True)
    assert said.stdout == "['19', '19']\n"


def test_a_status_of_an_earlier_mirror_is_not_taken_for_this_ones(store, monkeypatch):
    write_json(store.sweep_dir("tiny") / "track" / "mirror-launch.json", {"phase": "ended", "done": 8, "total": 8})
    stand_in(monkeypatch, "pass")
    assert Follower(store, ASKED).finish()["failures"] == 1


def test_without_wandb_a_tracked_launch_is_refused_before_anything_starts(project, saescale, monkeypatch):
    def missing(_):
        raise PackageNotFoundError

    monkeypatch.setattr(follow, "version", missing)
    (project.root / "wandb").mkdir()  # what wandb itself leaves in a working directory is no installation
    code, _, err = saescale("launch", "tiny", "track=wandb")
    assert code == 2 and "pip install 'saescale[wandb]'" in err and "track=off" in err
    assert not list(project.store.glob("by-id/*"))


def test_an_unknown_kind_of_tracking_is_refused_with_the_known_ones(project, saescale):  # noqa: ARG001
    code, _, err = saescale("plan", "tiny", "track=wandb", "track.kind=tensorboard")
    assert code == 2 and "off, offline, wandb" in err


def test_tracking_changes_no_run_and_no_folder(project, saescale):
    plans = [json.loads(saescale("plan", "tiny", *tracked, "--json")[1]) for tracked in ((), ("track=offline",))]
    ids = [[r["run_id"] for r in plan["runs"]] for plan in plans]
    assert ids[0] == ids[1] and [p.name for p in project.store.glob("*/plan.json")] == ["plan.json"]
