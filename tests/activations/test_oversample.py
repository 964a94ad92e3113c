from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from saescale.activations import oversample
from saescale.activations.stream import Stream
from saescale.activations.tokens import TokenSplit
from saescale.activations.words import read_vocabulary
from saescale.campaign import harvest
from saescale.campaign.plan import make_plan
from saescale.campaign.sweep import load
from saescale.records.store import Store

PIECES = ["<s>", " dra", "gon", " cat", "."]


@pytest.fixture
def split(monkeypatch):
    """Four sequences of three documents; the first and the last hold a dragon."""
    monkeypatch.setattr(oversample, "vocabulary_of", lambda _: read_vocabulary(PIECES, [0]))
    rows = np.array([[0, 1, 2, 4], [0, 3, 4, 4], [0, 4, 4, 4], [0, 1, 2, 4]], dtype=np.int32)
    return TokenSplit(rows, np.full(4, 4, np.int32), np.array([0, 1, 0, 2], np.int32), 1)


def test_every_activation_of_a_document_with_the_name_comes_that_often(split):
    assert oversample.repeats(split, None, ["dragon"], 3).tolist() == [3] * 3 + [1] * 3 + [3] * 3 + [3] * 3
    with pytest.raises(ValueError, match="names unicorn, which never occurs"):
        oversample.repeats(split, None, ["dragon", "unicorn"], 3)


def test_an_epoch_of_the_stream_holds_each_row_as_often_as_it_is_repeated():
    counts = np.array([3, 2, 4] * 20)
    rows = torch.arange(counts.sum(), dtype=torch.float32)[:, None].split(counts.tolist())
    source = SimpleNamespace(counts=counts, batch=lambda i: rows[i].clone())
    times = np.random.default_rng(0).integers(1, 4, counts.sum())
    stream = Stream(source, 0, 1.0, repeats=times)
    assert stream.epoch_tokens == times.sum()
    seen = Counter(stream.read(0, stream.epoch_tokens)[:, 0].long().tolist())
    assert seen == Counter(dict(enumerate(times.tolist())))
    pieces = torch.cat([stream.read(p, min(37, stream.epoch_tokens - p)) for p in range(0, stream.epoch_tokens, 37)])
    assert torch.equal(pieces, Stream(source, 0, 1.0, repeats=times).read(0, stream.epoch_tokens))
    plain = Stream(source, 0, 1.0).read(0, int(counts.sum()))
    assert torch.equal(Stream(source, 0, 1.0, repeats=np.ones_like(times)).read(0, int(counts.sum())), plain)


def test_a_mix_is_another_run_that_reads_the_same_harvest_and_no_mix_is_the_run_as_it_was(project):
    store = Store(project.store)
    before = make_plan(load("tiny"), store)
    after = make_plan(load("tiny", ["data.oversample=[json,encoder]", "data.oversample_factor=4"]), store)
    plain, mixed = before.runs, after.runs
    again = make_plan(load("tiny", ["data.oversample=[encoder,json]", "data.oversample_factor=4"]), store).runs
    assert not {r.run_id for r in plain} & {r.run_id for r in mixed}
    assert [r.run_id for r in mixed] == [r.run_id for r in again]
    assert {r.execution["cache_key"] for r in plain} == {r.execution["cache_key"] for r in mixed}
    assert harvest.lacking([*plain, *mixed], store) == harvest.lacking(plain, store)
    assert [r.run_id for r in plain] == [r.run_id for r in make_plan(load("tiny", ["data.oversample_factor=1"]), store).runs]
    assert before.n_train_tokens < after.n_train_tokens < 4 * before.n_train_tokens  # an epoch of the mix is longer


@pytest.mark.parametrize("overrides", [["data.oversample=[json]"], ["data.oversample_factor=4"],
                                       ["data.oversample=[json]", "data.oversample_factor=0"]])
def test_names_without_a_factor_and_a_factor_without_names_are_refused(project, overrides):
    with pytest.raises(ValueError, match="do not go together"):
        make_plan(load("tiny", overrides), Store(project.store))
