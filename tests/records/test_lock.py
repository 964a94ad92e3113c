import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from saescale.records import lock as locks
from saescale.records.lock import STALE_S, Lock, LostLock, owner, process_start


def write_owner(path, **changes):
    said = {"host": socket.gethostname(), "pid": os.getpid(), "started": process_start(os.getpid()), "token": "theirs"} | changes
    path.write_text(json.dumps(said))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trunk" / "lock"


def test_a_free_lock_is_taken_and_given_back(path):
    lock = Lock(path)
    assert lock.acquire() is None and owner(path) == lock.me
    lock.release()
    assert owner(path) is None and not path.exists()


def test_who_held_a_lock_and_when_stays_on_disk(path):
    history = path.parent / "owners.jsonl"
    for lock in (Lock(path, history), Lock(path, history)):
        assert lock.acquire() is None and Lock(path, history).acquire() == lock.me
        lock.release()
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["taken", "released"] * 2
    assert sorted(lines, key=lambda line: line["time"]) == lines and {line["pid"] for line in lines} == {os.getpid()}


def test_a_lock_that_is_kept_is_heard_of_while_its_owner_is_busy_and_no_longer_than_that(path):
    lock = Lock(path)
    assert lock.acquire() is None
    with lock.kept(0.01):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 5
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 60
    os.utime(path, (0, 0))
    time.sleep(0.05)
    assert path.stat().st_mtime == 0
    write_owner(path)
    os.utime(path, (0, 0))
    with lock.kept(0.01):
        time.sleep(0.05)
    assert path.stat().st_mtime == 0  # another's


def test_the_second_of_two_rivals_is_told_who_holds_it(path):
    first, second = Lock(path), Lock(path)
    assert first.acquire() is None
    assert second.acquire() == first.me
    second.release()  # it was never its own
    assert owner(path) == first.me


def test_of_many_rivals_for_a_dead_owners_lock_exactly_one_wins(path, monkeypatch):
    def slowly(where):  # every rival would look before any has written
        found = owner(where)
        time.sleep(0.02)
        return found

    monkeypatch.setattr(locks, "owner", slowly)
    path.parent.mkdir()
    write_owner(path, pid=2**22 + 1)
    won, start = [], threading.Barrier(8)

    def rival():
        lock = Lock(path)
        start.wait()
        won.append(lock.acquire() is None)

    threads = [threading.Thread(target=rival) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sum(won) == 1


def test_the_lock_of_a_process_that_ended_is_free(path):
    path.parent.mkdir()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    write_owner(path, pid=child.pid, started=process_start(child.pid))
    assert owner(path).pid == child.pid
    child.communicate(b"\n")
    assert owner(path) is None and Lock(path).acquire() is None


def test_a_zombie_holds_nothing(path):
    path.parent.mkdir()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    write_owner(path, pid=child.pid, started=process_start(child.pid))
    child.stdin.close()
    for _ in range(200):
        if owner(path) is None:
            break
        time.sleep(0.02)
    assert owner(path) is None  # dead, and nobody has waited for it yet
    child.wait()


def test_a_reused_pid_is_not_the_owner(path):
    path.parent.mkdir()
    write_owner(path, started="1")
    assert owner(path) is None


def test_a_process_that_ends_while_it_is_looked_at_is_gone(monkeypatch):
    def gone(_self):
        raise ProcessLookupError(3, "No such process")

    monkeypatch.setattr(locks.Path, "read_text", gone)
    assert process_start(12345) is None


def test_an_owner_elsewhere_counts_while_its_heart_beats(path):
    path.parent.mkdir()
    write_owner(path, host="elsewhere", pid=1)
    assert owner(path).host == "elsewhere" and Lock(path).acquire().host == "elsewhere"
    silent = time.time() - STALE_S - 1
    os.utime(path, (silent, silent))
    assert owner(path) is None and Lock(path).acquire() is None


def test_a_beat_renews_the_heart(path):
    lock = Lock(path)
    lock.acquire()
    os.utime(path, (0, 0))
    lock.beat()
    assert time.time() - path.stat().st_mtime < 5


def test_whoever_was_taken_over_learns_it_at_the_next_beat_and_leaves_the_lock_alone(path):
    mine = Lock(path)
    mine.acquire()
    write_owner(path, token="another")
    with pytest.raises(LostLock, match="was taken over"):
        mine.beat()
    mine.release()
    assert owner(path).token == "another"


@pytest.mark.parametrize("raw", ["", "{", '"x"', '{"pid": 3}'])
def test_a_torn_lock_is_respected_for_some_seconds_and_then_free(path, raw):
    path.parent.mkdir()
    path.write_text(raw)
    assert owner(path) is not None
    os.utime(path, (time.time() - 10, time.time() - 10))
    assert owner(path) is None and Lock(path).acquire() is None


def test_waiting_bridges_the_last_moments_of_an_owner(path):
    first, second = Lock(path), Lock(path)
    first.acquire()
    threading.Timer(0.3, first.release).start()
    assert second.acquire(wait_s=5) is None


def elsewhere(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": "another-host", "pid": 1, "started": "x", "token": "t"}))


def test_who_waits_outwaits_the_silence_of_an_owner_on_another_host(tmp_path, monkeypatch):
    """A node that failed leaves its lock behind: the job that comes back elsewhere must not take it for a living owner."""
    monkeypatch.setattr(locks, "STALE_S", 1.5)
    path = tmp_path / "lock"
    elsewhere(path)
    assert Lock(path).acquire(wait_s=0.2) is None


def test_an_owner_on_another_host_that_is_heard_again_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "STALE_S", 30.0)
    path = tmp_path / "lock"
    elsewhere(path)
    beat = threading.Timer(0.5, lambda: os.utime(path))
    beat.start()
    begun = time.monotonic()
    holder = Lock(path).acquire(wait_s=0.2)
    beat.join()
    assert holder is not None and holder.host == "another-host" and time.monotonic() - begun < 5
