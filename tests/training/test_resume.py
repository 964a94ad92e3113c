import json

import numpy as np
import pytest
from safetensors import safe_open

from saescale.sae import kernels
from saescale.sae.step import Trainable
from saescale.training import checkpoint, train

LONG = ("train.n_tokens=38400",)  # 300 steps: blocks end at 128, 256 and 300, the trunk at 240


class Killed(BaseException):
    """Stands for SIGKILL: nothing that was not on disk before is written after it."""


def killed_at(monkeypatch, n, function="log_block"):
    """The n-th call of a function of the training loop does not return."""
    calls, original = [], getattr(train, function)

    def stop(*args):
        calls.append(1)
        if len(calls) == n:
            raise Killed
        return original(*args)

    monkeypatch.setattr(train, function, stop)


@pytest.mark.parametrize(("function", "n"), [("log_block", 1), ("log_block", 3), ("close_ends", 2), ("finish_run", 1),
                                             ("finish_run", 2), ("save_all", 2)])
def test_a_run_killed_anywhere_ends_with_the_bits_and_metrics_of_an_undisturbed_one(bed, undisturbed, monkeypatch, function, n):
    with monkeypatch.context() as m:
        killed_at(m, n, function)
        with pytest.raises(Killed):
            bed.launch()
    assert bed.launch().exit_code == 0
    assert bed.left_by(bed.plan()) == undisturbed


@pytest.mark.parametrize("kind", [(), ("sae=relu_l1",), ("sae=batchtopk",),
                                  ("sae=jumprelu", "sae.bandwidth=0.5", "sae.target_l0=6")],
                         ids=["topk", "relu_l1", "batchtopk", "jumprelu at an l0"])
def test_resuming_after_every_single_block_changes_nothing(bed, monkeypatch, kind):
    other, launches = bed.another("other"), 0
    other.launch(*kind)
    original = train.train_fleet

    def one_block(job, trunks, bench, locks):
        blocks = iter([False, True])
        job.asked_to_stop = lambda: next(blocks, True)
        original(job, trunks, bench, locks)

    monkeypatch.setattr(train, "train_fleet", one_block)
    while bed.launch(*kind).exit_code != 0:
        launches += 1
    assert launches == 2  # three blocks of 128 steps for 300
    assert bed.left_by(bed.plan(*kind)) == other.left_by(other.plan(*kind))


def test_what_is_done_is_not_done_again_after_a_kill(bed, monkeypatch):
    made, step = [], Trainable.step
    monkeypatch.setattr(Trainable, "step", lambda *a: (made.append(1), step(*a))[1])
    with monkeypatch.context() as m:
        killed_at(m, 3)  # in the third block; the first two are on disk
        with pytest.raises(Killed):
            bed.launch()
    short = min(bed.plan().runs, key=lambda r: r.steps)
    written = (bed.store.run_dir(short.run_id) / "result.json").stat().st_mtime_ns
    made.clear()
    bed.launch()
    assert len(made) == 300 - 256
    assert (bed.store.run_dir(short.run_id) / "result.json").stat().st_mtime_ns == written


def stop_after(bed, monkeypatch, n_blocks):
    with monkeypatch.context() as m:
        killed_at(m, n_blocks + 1)
        with pytest.raises(Killed):
            bed.launch(*LONG)
    return bed.plan(*LONG).runs[0]


@pytest.mark.parametrize("damage", ["flip", "cut", "torn description", "gone"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(bed, undisturbed, monkeypatch, capfd, damage):
    run = stop_after(bed, monkeypatch, 2)
    end, before, newest = sorted(bed.checkpoints(run).glob("*.safetensors"))
    assert (end.stem, before.stem, newest.stem) == ("end-0000000240", "step-0000000128", "step-0000000256")
    end.write_bytes(b"damaged too")
    raw = bytearray(newest.read_bytes())
    if damage == "flip":
        raw[len(raw) // 2] ^= 1
        newest.write_bytes(raw)
    elif damage == "cut":
        newest.write_bytes(raw[:100])
    elif damage == "gone":
        newest.unlink()
    else:
        newest.with_suffix(".json").write_text('{"trunk_id"')
    made, step = [], Trainable.step
    monkeypatch.setattr(Trainable, "step", lambda *a: (made.append(1), step(*a))[1])
    capfd.readouterr()
    assert bed.launch(*LONG).exit_code == 0
    said = [line for line in capfd.readouterr().err.splitlines() if "damaged and was passed over" in line]
    assert "checkpoint step-0000000256" in said[0] and "checkpoint end-0000000240" in said[1]
    assert len(made) == 300 - 128
    assert bed.left_by(bed.plan(*LONG)) == {run.run_id: undisturbed[run.run_id]}


def test_a_trunk_keeps_the_kernels_it_began_with_and_says_so(bed, monkeypatch, capfd):
    other = bed.another("other")
    other.launch(*LONG, "cluster.kernels=cpu")
    with monkeypatch.context() as m:
        killed_at(m, 2)
        with pytest.raises(Killed):
            bed.launch(*LONG, "cluster.kernels=cpu")
    monkeypatch.setattr(kernels, "find_spec", lambda _: True)
    assert bed.launch(*LONG, "cluster.kernels=numba").exit_code == 0
    assert "was begun with the cpu kernels and keeps them" in capfd.readouterr().err
    assert bed.left_by(bed.plan(*LONG)) == other.left_by(other.plan(*LONG))
    (run,) = bed.plan(*LONG).runs
    environment = json.loads((bed.store.run_dir(run.run_id) / "result.json").read_text())["environment"]
    assert (environment["kernels"], environment["numba"]) == ("cpu", None)


def test_a_trunk_begun_with_kernels_that_are_not_installed_is_refused_and_kept(bed, monkeypatch, capfd):
    pytest.importorskip("numba")
    with monkeypatch.context() as m:
        killed_at(m, 2)
        with pytest.raises(Killed):
            bed.launch(*LONG, "cluster.kernels=numba")
    (run,) = bed.plan(*LONG).runs
    kept = sorted(p.name for p in bed.checkpoints(run).iterdir())
    with monkeypatch.context() as m:
        m.setattr(kernels, "find_spec", lambda _: None)
        assert bed.launch(*LONG).exit_code == 3
    assert "was begun with the numba kernels, which are not installed here" in capfd.readouterr().err
    assert sorted(p.name for p in bed.checkpoints(run).iterdir()) == kept
    assert bed.launch(*LONG).exit_code == 0


def test_a_checkpoint_of_another_trunk_is_refused_and_stays_where_it_is(bed, monkeypatch, capfd):
    run = stop_after(bed, monkeypatch, 2)
    newest = max(bed.checkpoints(run).glob("*.json"))
    newest.write_text(newest.read_text().replace(run.trunk_id, "L1-topk-n9-s0-0123456789"))
    capfd.readouterr()
    outcome = bed.launch(*LONG)
    said = capfd.readouterr().err
    assert outcome.exit_code == 3
    assert f"is a checkpoint of L1-topk-n9-s0-0123456789, not of {run.trunk_id}" in said and "Traceback" not in said
    assert newest.exists() and not (bed.store.run_dir(run.run_id) / "result.json").exists()


def test_two_checkpoints_are_kept_while_training_and_the_trunks_end_alone_afterwards(bed, monkeypatch):
    longer = ("train.n_tokens=76800",)  # 600 steps, forked at 480
    with monkeypatch.context() as m:
        killed_at(m, 5)
        with pytest.raises(Killed):
            bed.launch(*longer)
    folder = bed.checkpoints(bed.plan(*longer).runs[0])
    assert sorted(p.stem for p in folder.glob("*.json")) == ["end-0000000480", "step-0000000384", "step-0000000512"]
    (folder / ".step-0000000640.safetensors.1a2b3c4d").write_bytes(b"torn by a kill")
    bed.launch(*longer)
    assert sorted(p.name for p in folder.iterdir()) == ["end-0000000480.json", "end-0000000480.safetensors"]


def test_a_locked_trunk_is_left_to_whoever_trains_it(bed):
    from saescale.records.lock import Lock

    run = bed.plan("train.n_tokens=19200").runs[0]
    lock = Lock(bed.store.trunk_dir(run.trunk_id) / "lock")
    bed.store.run_dir(run.run_id).mkdir(parents=True)
    (bed.store.run_dir(run.run_id) / "status.json").write_text('{"state": "running"}')
    assert lock.acquire() is None
    outcome = bed.launch("train.n_tokens=19200")
    assert (outcome.started, outcome.exit_code) == (0, 4)
    lock.release()
    assert bed.launch("train.n_tokens=19200").exit_code == 0


def test_nothing_in_the_store_is_pickled(bed):
    bed.launch()
    found = [p for p in bed.store.root.rglob("*") if p.is_file()]
    assert {p.suffix for p in found} <= {".safetensors", ".json", ".jsonl", ".npy", ".bin", ".guard"}
    for p in found:
        if p.suffix == ".npy":
            np.load(p, allow_pickle=False)
        elif p.suffix == ".safetensors":
            with safe_open(p, "pt") as f:
                assert list(f.keys())
        elif p.suffix == ".json":
            json.loads(p.read_text())


def test_a_trunk_whose_end_was_kept_before_the_others_got_there_logs_nothing_while_they_catch_up(bed, monkeypatch):
    two = (*LONG, "sae.n_latents=16,24", "cluster.checkpoint_s=1000", "cluster.log_every_tokens=1000")
    other, write = bed.another("other"), checkpoint.write
    other.launch(*two)

    def write_and_die(*args):
        write(*args)
        raise Killed

    with monkeypatch.context() as m:
        m.setattr(train.checkpoint, "write", write_and_die)  # the first written is the end of one trunk; the other has none
        with pytest.raises(Killed):
            bed.launch(*two)
    assert bed.launch(*two).exit_code == 0
    assert bed.left_by(bed.plan(*two)) == other.left_by(other.plan(*two))
