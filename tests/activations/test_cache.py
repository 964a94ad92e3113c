import json
import shutil
import socket

import numpy as np
import pytest
import torch

from saescale.activations import cache, shards
from saescale.activations.cache import CacheSource, harvest, input_scale, sample
from saescale.activations.live import LiveSource
from saescale.activations.shards import missing_shards
from saescale.activations.stream import Stream
from saescale.activations.tokens import TokenSplit
from saescale.records.lock import Lock
from saescale.records.store import Damaged

HOOK = "blocks.1.hook_resid_post"  # the fixture lm's


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    """Shards of three forward batches, so that a small corpus has several."""
    for module in (shards, cache):
        monkeypatch.setattr(module, "SHARD_BATCHES", 3)


@pytest.fixture
def split(corpus) -> TokenSplit:
    t = corpus.train
    return TokenSplit(t.sequences[:32], t.lengths[:32], t.documents[:32], 4)  # 8 forward batches: shards of 3, 3 and 2


class Counted(LiveSource):
    """Live activations that count how often each forward batch is computed."""

    def __init__(self, *args):
        super().__init__(*args)
        self.seen = []

    def stored_at(self, index, hook_names):
        self.seen.append(index)
        return super().stored_at(index, hook_names)


def at(folder):
    """The one cache of these tests, by its hook."""
    return {HOOK: folder}


@pytest.fixture(scope="session")
def harvested(tmp_path_factory, lm, corpus):
    """A finished harvest of `split`, to copy."""
    with pytest.MonkeyPatch.context() as m:
        for module in (shards, cache):
            m.setattr(module, "SHARD_BATCHES", 3)
        t, folder = corpus.train, tmp_path_factory.mktemp("harvest")
        small = TokenSplit(t.sequences[:32], t.lengths[:32], t.documents[:32], 4)
        list(harvest(at(folder), "train", LiveSource(lm, small, "bfloat16"), [0, 1, 2]))
    return folder


@pytest.fixture
def folder(tmp_path, harvested):
    shutil.copytree(harvested, tmp_path / "cache")
    return tmp_path / "cache"


def cached(folder, split, data):
    return CacheSource(folder, "train", split, data)


def test_the_cache_gives_the_same_bits_as_the_language_model_in_the_loop(folder, split, data, lm):
    live, kept = LiveSource(lm, split, "bfloat16"), cached(folder, split, data)
    for i in range(split.n_batches):
        assert torch.equal(live.batch(i), kept.batch(i))
        assert len(live.batch(i)) == live.counts[i] == kept.counts[i]
    a, b = Stream(live, 3, 0.5), Stream(kept, 3, 0.5)
    assert torch.equal(a.read(11, 200), b.read(11, 200))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_other_activation_dtypes_come_back_bit_for_bit_too(tmp_path, split, data, lm, dtype):
    live = LiveSource(lm, split, dtype)
    list(harvest(at(tmp_path), "train", live, [0, 1, 2]))
    kept = cached(tmp_path, split, {**data, "activation_dtype": dtype})
    before = kept.batch(4).clone()
    assert torch.equal(kept.batch(4), live.batch(4))
    assert kept.batch(4).data_ptr() != kept.batch(4).data_ptr()
    kept.batch(4).mul_(2)  # what a caller does to a batch reaches neither the file nor the next reader
    assert torch.equal(kept.batch(4), before)


def test_activations_are_those_of_the_kept_positions_rounded_to_the_activation_dtype(split, lm):
    values = lm.activations(torch.from_numpy(np.array(split.batch(5))).long())
    expected = [values[s, p] for s in range(4) for p in range(1, split.lengths[20 + s])]
    assert torch.equal(LiveSource(lm, split, "bfloat16").batch(5), torch.stack(expected).bfloat16().float())


def test_a_flipped_byte_is_found_named_and_only_its_shard_is_harvested_again(folder, split, data, lm):
    whole = cached(folder, split, data).batch(4).clone()
    path = folder / "train-00001.bin"
    raw = bytearray(path.read_bytes())
    raw[777] ^= 1
    path.write_bytes(raw)
    assert missing_shards(folder, "train", split) == []
    source = cached(folder, split, data)
    source.batch(0)
    with pytest.raises(Damaged, match="train-00001.bin is damaged.*Launch again"):
        source.batch(4)
    assert missing_shards(folder, "train", split) == [1]
    live = Counted(lm, split, "bfloat16")
    list(harvest(at(folder), "train", live, missing_shards(folder, "train", split)))
    assert live.seen == [3, 4, 5]
    assert torch.equal(cached(folder, split, data).batch(4), whole)


@pytest.mark.parametrize("left", [0, 100])
def test_a_cut_or_emptied_shard_is_missing_and_never_read(folder, split, data, left):
    path = folder / "train-00002.bin"
    path.write_bytes(path.read_bytes()[:left])
    assert missing_shards(folder, "train", split) == [2]
    with pytest.raises(Damaged, match="train-00002.bin is damaged"):
        cached(folder, split, data).batch(7)


def test_a_shard_whose_file_is_gone_is_missing(folder, split):
    (folder / "train-00000.bin").unlink()
    assert missing_shards(folder, "train", split) == [0]


def test_an_interrupted_harvest_goes_on_with_each_shard_done_exactly_once(tmp_path, split, data, lm):
    first, second = Counted(lm, split, "bfloat16"), Counted(lm, split, "bfloat16")
    rows = harvest(at(tmp_path), "train", first, missing_shards(tmp_path, "train", split))
    for _ in range(5):  # the first shard and two batches of the second, then killed
        next(rows)
    rows.close()
    assert missing_shards(tmp_path, "train", split) == [1, 2]
    written = (tmp_path / "train-00000.bin").stat().st_mtime_ns
    list(harvest(at(tmp_path), "train", second, missing_shards(tmp_path, "train", split)))
    assert first.seen == [0, 1, 2, 3, 4] and second.seen == [3, 4, 5, 6, 7]
    assert (tmp_path / "train-00000.bin").stat().st_mtime_ns == written
    assert missing_shards(tmp_path, "train", split) == []
    assert torch.equal(cached(tmp_path, split, data).batch(7), LiveSource(lm, split, "bfloat16").batch(7))


def test_a_shard_that_another_process_harvests_is_waited_for_and_not_made_again(tmp_path, split, lm, monkeypatch):
    monkeypatch.setattr(cache, "CLAIM_POLL_S", 0)
    live, other = Counted(lm, split, "bfloat16"), Lock(tmp_path / "claims" / "train-00001")
    assert other.acquire() is None
    rows = cache.harvest_together(at(tmp_path), {"train": live}, [("train", i) for i in range(3)])
    notes = [next(rows)[1] for _ in range(7)]
    assert live.seen == [0, 1, 2, 6, 7] and "waiting for 1 shards" in notes[-1]
    list(harvest(at(tmp_path), "train", LiveSource(lm, split, "bfloat16"), [1]))
    other.release()
    assert sum(n for n, _ in rows) == 0 and live.seen == [0, 1, 2, 6, 7]
    assert missing_shards(tmp_path, "train", split) == []


def test_a_shard_whose_harvester_died_is_taken_over(tmp_path, split, lm):
    claim = tmp_path / "claims" / "train-00001"
    claim.parent.mkdir()
    claim.write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1, "started": "1", "token": "gone"}))
    (tmp_path / ".train-00001.bin.1234").write_bytes(b"half")
    live = Counted(lm, split, "bfloat16")
    assert sum(n for n, _ in cache.harvest_together(at(tmp_path), {"train": live}, [("train", 1)])) == live.counts[3:6].sum()
    assert live.seen == [3, 4, 5] and not claim.exists() and not list(tmp_path.glob(".train*"))


def test_an_interrupted_harvester_gives_its_claim_back(tmp_path, split, lm):
    rows = cache.harvest_together(at(tmp_path), {"train": LiveSource(lm, split, "bfloat16")}, [("train", 0)])
    next(rows)
    assert (tmp_path / "claims" / "train-00000").exists()
    rows.close()
    assert not (tmp_path / "claims" / "train-00000").exists() and missing_shards(tmp_path, "train", split) == [0, 1, 2]


def test_a_full_disk_in_mid_harvest_leaves_the_whole_shards_and_nothing_torn(tmp_path, split, lm, monkeypatch):
    def full(shard, rows):
        written(shard, rows)
        if shard.path.name == "train-00001.bin":
            raise OSError(28, "No space left on device")

    written = cache.Shard.add
    monkeypatch.setattr(cache.Shard, "add", full)
    with pytest.raises(OSError, match="No space left") as e:
        list(harvest(at(tmp_path), "train", LiveSource(lm, split, "bfloat16"), [0, 1, 2]))
    assert e.value.filename == str(tmp_path)
    assert missing_shards(tmp_path, "train", split) == [1, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train-00000.bin", "train-00000.json"]


def test_activations_that_are_not_finite_are_refused_with_what_to_change(split, lm, monkeypatch):
    def full_of(number):
        return lambda ids, names: dict.fromkeys(names, torch.full((*ids.shape, 128), number))

    monkeypatch.setattr(lm, "at", full_of(1e5))
    assert LiveSource(lm, split, "bfloat16").stored(0).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="forward batch 2 are not finite in torch.float16.*activation_dtype=bfloat16"):
        LiveSource(lm, split, "float16").stored(2)
    monkeypatch.setattr(lm, "at", full_of(float("nan")))
    with pytest.raises(ValueError, match="not finite"):
        LiveSource(lm, split, "float32").stored(0)


def test_the_scale_brings_the_mean_square_norm_of_the_first_batches_to_d_in(folder, split, data):
    source = cached(folder, split, data)
    everything = torch.cat([source.batch(i) for i in range(8)]).double()
    assert input_scale(source, 128) == pytest.approx((128 / everything.square().sum(1).mean().item()) ** 0.5)


def test_the_sample_is_the_first_activations_and_no_more_than_there_are(folder, split, data):
    source = cached(folder, split, data)
    assert torch.equal(sample(source, 70), torch.cat([source.batch(0), source.batch(1)])[:70])
    assert len(sample(source, 10**6)) == split.n_tokens


def test_the_key_follows_model_tokenizer_and_corpus_but_not_the_order_of_training(data):
    science = {"lm": {"revision": "a", "hook_name": "h", "d_in": 1, "dtype": "float32"}, "data": data}
    key = shards.cache_key(science)
    assert shards.cache_key({**science, "data": {**data, "data_seed": 9}}) == key
    for change in ({"lm": {**science["lm"], "revision": "b"}}, {"data": {**data, "tokenizer_sha256": "x"}},
                   {"data": {**data, "corpus_sha256": "x"}}, {"data": {**data, "activation_dtype": "float16"}}):
        assert shards.cache_key({**science, **change}) != key
