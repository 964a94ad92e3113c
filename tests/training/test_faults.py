"""Kills and full disks with the real command line and real worker processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from saescale import cli
from saescale.records.store import Store

SLOW = ("sae.n_latents=1024", "train.n_tokens=19200,76800")  # 150 and 600 steps of 128 tokens
LOCAL = ("cluster=local", "cluster.workers=1", "cluster.checkpoint_s=0")


def start(bed, *overrides):
    return subprocess.Popen([sys.executable, "-m", "saescale.cli", "launch", "grid", *overrides, "--store", str(bed.store.root)],
                            cwd=bed.project.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


def finished(process):
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in out + err, err
    return process.returncode, out + err


def wait_for(happened, process, what):
    deadline = time.monotonic() + 90
    while not happened():
        assert process.poll() is None and time.monotonic() < deadline, f"{what} did not come: {process.communicate()}"
        time.sleep(0.02)


def worker_of(bed, run):
    return json.loads((bed.store.trunk_dir(run.trunk_id) / "lock").read_text())["pid"]


def gone(pid):
    """Whether a process has ended, reaped or not."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_kill_9_of_a_worker_and_then_of_the_launcher_loses_nothing_and_trains_nothing_twice(bed):
    undisturbed = bed.another("undisturbed")
    assert undisturbed.launch(*SLOW).exit_code == 0  # in this process: a worker must give the same bits
    short, long = sorted(bed.plan(*SLOW).runs, key=lambda r: r.steps)
    record = bed.store.run_dir(short.run_id) / "result.json"

    first = start(bed, *SLOW, *LOCAL)
    wait_for(record.exists, first, "the record of the short run")
    os.kill(worker_of(bed, long), signal.SIGKILL)
    code, said = finished(first)
    assert code == 3 and "was killed by signal 9" in said
    written = record.stat().st_mtime_ns
    reached = max(p.stem for p in bed.checkpoints(long).glob("step-*.json"))

    second = start(bed, *SLOW, *LOCAL)
    wait_for(lambda: max(p.stem for p in bed.checkpoints(long).glob("step-*.json")) > reached, second, "a further checkpoint")
    worker = worker_of(bed, long)
    second.kill()
    second.wait()
    assert not (bed.store.run_dir(long.run_id) / "result.json").exists()

    code, said = finished(start(bed, *SLOW, *LOCAL))  # at once, while the orphaned worker may still be in its last block
    assert code == 0 and gone(worker), said
    assert record.stat().st_mtime_ns == written
    assert bed.left_by(bed.plan(*SLOW)) == undisturbed.left_by(undisturbed.plan(*SLOW))
    rows = [json.loads(line)["step"] for line in (bed.store.run_dir(long.run_id) / "metrics.jsonl").read_text().splitlines()]
    assert rows == [*range(128, 600, 128), 600]

    code, said = finished(start(bed, *SLOW, *LOCAL))
    assert code == 0 and "0 to run: nothing was started" in said


HOLD = """
import sys, time
from pathlib import Path
from saescale.records.lock import Lock
lock = Lock(Path(sys.argv[1]))
assert lock.acquire() is None
print("held", flush=True)
time.sleep(2)
lock.release()
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="only /proc tells whose worker a process is")
@pytest.mark.parametrize(("launcher", "exit_code"), [(lambda: 2**30, 0), (os.getpid, 4)], ids=["gone", "alive"])
def test_a_worker_whose_launcher_is_gone_is_waited_for_and_one_whose_launcher_lives_is_left_to_it(bed, launcher, exit_code):
    short = ("train.n_tokens=19200",)
    run = bed.plan(*short).runs[0]
    status = bed.store.run_dir(run.run_id) / "status.json"
    status.parent.mkdir(parents=True)
    status.write_text('{"state": "running"}')
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(bed.store.trunk_dir(run.trunk_id) / "lock")], text=True,
                              stdout=subprocess.PIPE, env={**os.environ, "SAESCALE_PARENT": str(launcher())})
    assert holder.stdout.readline() == "held\n"
    assert bed.launch(*short).exit_code == exit_code
    holder.communicate()


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 40 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a tmpfs may not be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk, left):
    """A file that leaves `left` bytes of room; delete it to make room again."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(bytes(max(0, free - left)))
    return disk / "filler"


def command(capfd, monkeypatch, *arguments):
    """The command line in this process: (exit code, what it said)."""
    monkeypatch.setattr(sys, "argv", ["saescale", *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = "".join(capfd.readouterr())
    assert "Traceback" not in said
    return ended.value.code or 0, said


def assert_says_once(said, path):
    lines = [line for line in said.splitlines() if "No space left on device" in line]
    assert len(set(lines)) == 1 and str(path) in lines[0] and "launch again" in lines[0], said


def test_a_disk_that_fills_in_mid_harvest_stops_with_one_sentence_and_goes_on_when_there_is_room(
        bare, harvested, undisturbed, small_disk, capfd, monkeypatch):
    on_disk = type(bare)(bare.project, Store(small_disk / "runs"))
    on_disk.plan()
    shards = sorted(harvested.glob("activations/*/*.bin"))
    room = sum(p.stat().st_size for p in shards) // 2
    filler = fill(small_disk, room)
    code, said = command(capfd, monkeypatch, "launch", "grid", "--store", str(on_disk.store.root))
    assert code == 2 and said.count("\n") == 1 and "of disk and" in said and "Nothing was started" in said
    assert not list(small_disk.glob("runs/by-id/*")) and not list(small_disk.glob("runs/activations/*"))
    with monkeypatch.context() as m:  # somebody else fills it after the look
        m.setattr("saescale.campaign.launch.refuse_full_disk", lambda *_: None)
        code, said = command(capfd, m, "launch", "grid", "--store", str(on_disk.store.root))
    assert code == 3
    assert_says_once(said, small_disk)
    there = {p.name: p.stat().st_mtime_ns for p in small_disk.glob("runs/activations/*/*.json")}
    assert 0 < len(there) < len(shards)
    filler.unlink()
    code, said = command(capfd, monkeypatch, "launch", "grid", "--store", str(on_disk.store.root))
    assert code == 0
    now = {p.name: p.stat().st_mtime_ns for p in small_disk.glob("runs/activations/*/*.json")}
    assert {name: now[name] for name in there} == there  # what was harvested was not harvested again
    assert on_disk.left_by(on_disk.plan()) == undisturbed


def test_a_disk_that_fills_while_training_stops_with_exit_3_and_nothing_is_damaged(bare, harvested, undisturbed, small_disk):
    on_disk = type(bare)(bare.project, Store(small_disk / "runs"))
    for name in ("corpora", "activations"):
        shutil.copytree(harvested / name, on_disk.store.root / name)
    on_disk.plan()
    filler = fill(small_disk, 100_000)  # enough to begin, too little for the first checkpoint
    code, said = finished(start(on_disk, "cluster=local", "cluster.workers=1", "cluster.checkpoint_s=0"))
    assert code == 3
    assert_says_once(said, small_disk)
    assert not list(small_disk.glob("runs/by-id/*/result.json"))
    assert not list(small_disk.glob("runs/**/.*.safetensors.*"))
    filler.unlink()
    code, said = finished(start(on_disk, "cluster=local", "cluster.workers=1", "cluster.checkpoint_s=0"))
    assert code == 0, said
    assert on_disk.left_by(on_disk.plan()) == undisturbed


HOLDER = """
import sys
from pathlib import Path
from saescale.records.lock import Lock
held = [Lock(Path(p)) for p in sys.argv[1:]]
assert not any(lock.acquire() for lock in held)
print(len(held), flush=True)
sys.stdin.read()
"""


def test_a_job_waits_once_for_all_the_trunks_that_others_hold(bed, monkeypatch):
    from saescale.training import train

    monkeypatch.setattr(train, "LOCK_WAIT_S", 1.0)
    plan = bed.plan("seed=0,1,2,3")
    trunks = sorted({r.trunk_id for r in plan.runs})
    assert len(trunks) == 4
    locks = [str(bed.store.trunk_dir(t) / "lock") for t in trunks]
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, *locks], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "4\n"
    begun = time.monotonic()
    outcome = bed.launch("seed=0,1,2,3")
    waited = time.monotonic() - begun
    holder.communicate("")
    assert outcome.exit_code != 0
    assert waited < 3.5, "it waited for every trunk in turn"
