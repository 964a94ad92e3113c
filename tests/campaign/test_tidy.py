import os
import time

import pytest

from saescale import identity
from saescale.campaign import submissions, tidy
from saescale.campaign.queue import Element, Queue
from saescale.campaign.submissions import Submission
from saescale.records.lock import Lock
from saescale.records.store import Store, write_json

SCIENCE = {"lm": {"d_in": 8, "hook_name": None}, "sae": {"kind": "topk", "n_latents": 16, "k": 4},
           "train": {"n_tokens": 512, "seed": 0}}
TRUNK = identity.trunk_id(SCIENCE)
IDLE = Queue({})


@pytest.fixture
def store(tmp_path):
    """A trunk of two runs with a rolling checkpoint and its end; a cache and a corpus that are read, and ones that are not."""
    at = Store(tmp_path)
    for i, n_tokens in enumerate((512, 1024)):
        science = {**SCIENCE, "train": {"n_tokens": n_tokens, "seed": 0}}
        execution = {"cache_key": "read", "corpus_key": "read"}
        write_json(at.run_dir(f"run{i}") / "config.json", {"science": science, "execution": execution})
        write_json(at.run_dir(f"run{i}") / "result.json", {})
    for name in ("step-0000000128.safetensors", "step-0000000128.json", "end-0000000200.safetensors"):
        path = at.trunk_dir(TRUNK) / "checkpoints" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    for name in ("read", "unread"):
        write_json(at.activations_dir(name) / "shard.json", {})
        write_json(at.corpus_dir(name) / "meta.json", {})
    return at


def names(store, now=IDLE):
    return sorted(str(f.path.relative_to(store.root)) for f in tidy.leavings(store, now))


def test_only_superseded_checkpoints_and_what_no_run_reads_can_go(store):
    assert names(store) == ["activations/unread", "corpora/unread", f"trunks/{TRUNK}/checkpoints/step-0000000128.json",
                            f"trunks/{TRUNK}/checkpoints/step-0000000128.safetensors"]
    tidy.remove(tidy.leavings(store, IDLE))
    assert names(store) == [] and (store.activations_dir("read") / "shard.json").exists()
    assert [p.name for p in (store.trunk_dir(TRUNK) / "checkpoints").iterdir()] == ["end-0000000200.safetensors"]


def test_checkpoints_stay_while_a_run_of_the_trunk_is_missing_or_somebody_trains_it(store):
    held = Lock(store.trunk_dir(TRUNK) / "lock")
    assert held.acquire() is None and not [n for n in names(store) if "checkpoints" in n]
    held.release()
    (store.run_dir("run1") / "result.json").unlink()
    assert not [n for n in names(store) if "checkpoints" in n]


@pytest.mark.parametrize(("kind", "lock"), [("activations", "claims/train-0"), ("corpora", "lock")])
def test_a_cache_that_is_being_harvested_and_a_corpus_that_is_being_tokenised_stay(store, kind, lock):
    assert Lock(store.root / kind / "unread" / lock).acquire() is None
    assert f"{kind}/unread" not in names(store)


@pytest.mark.parametrize(("now", "stays"), [
    (IDLE, False), (Queue({"5_0": Element("5_0", "saescale-s-t", "PENDING", "")}), True),
    (Queue({}, "squeue did not answer"), True)])
def test_code_that_queued_jobs_run_stays_and_so_it_does_when_nobody_can_say(store, now, stays):
    (store.root / "code" / "abc").mkdir(parents=True)
    store.sweep_dir("s").mkdir()
    s = Submission("s", "t", "saescale-s-t", "train", 1.0, {"train-1": ["run0"]}, {}, {})
    submissions.intend(store, s, code=str(store.root / "code" / "abc"))
    submissions.settle(store, s, "5")
    (store.root / "s" / "slurm" / "t").mkdir(parents=True)
    assert ("code/abc" in names(store, now), "s/slurm/t" in names(store, now)) == (not stays, not stays)


def test_what_slurm_wrote_stays_until_its_runs_are_recorded(store):
    store.sweep_dir("s").mkdir()
    s = Submission("s", "t", "saescale-s-t", "train", 1.0, {"train-1": ["run9"]}, {}, {})
    submissions.intend(store, s, code="")
    submissions.settle(store, s, "5")
    (store.root / "s" / "slurm" / "t").mkdir(parents=True)
    assert "s/slurm/t" not in names(store)


def test_a_file_written_aside_goes_when_its_writer_must_be_gone(store):
    path = store.run_dir("run0") / ".result.json.ab12"
    path.write_text("torn")
    assert not [n for n in names(store) if "ab12" in n]
    os.utime(path, (time.time() - 2 * 86400,) * 2)
    assert [n for n in names(store) if "ab12" in n]
