"""Datasets through the datasets library, from a local folder."""

import json

import pytest

from saescale.activations import hub_dataset, tokenise, tokens
from saescale.activations.folder import BUNDLED, LMFolder
from saescale.activations.hub_dataset import HubDataset
from saescale.records.store import Store

datasets = pytest.importorskip("datasets")
LM = LMFolder(BUNDLED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three shards of 40 rows."""
    path = tmp_path_factory.mktemp("dataset")
    for shard in range(3):
        rows = [json.dumps({"text": f"def number_{shard}_{i}(self): return {i} " * 4, "n": i}) for i in range(40)]
        (path / f"train-{shard:05d}.jsonl").write_text("\n".join(rows) + "\n")
    return path


def dataset(folder, **changes):
    plain = {"path": str(folder), "subset": None, "split": "train", "revision": None, "text_field": "text"}
    return HubDataset(**plain | changes)


def names(reader, n=None):
    return [d.name for d, _ in zip(reader, range(n or 10**6), strict=False)]


def test_rows_come_in_order_and_the_identity_follows_the_files(folder, tmp_path):
    found = dataset(folder)
    assert names(found.reader()) == [f"row {i}" for i in range(120)]
    (tmp_path / "train.jsonl").write_text('{"text": "x"}\n')
    assert len({found.sha256(), dataset(tmp_path).sha256(), dataset(folder, split="test").sha256()}) == 3
    assert dataset(folder).sha256() == found.sha256()


@pytest.mark.parametrize("stop", [1, 39, 40, 41, 100])
def test_reading_goes_on_within_and_between_shards(folder, stop):
    reader, rest = dataset(folder).reader(), dataset(folder)
    texts = [d.text for d in dataset(folder).reader()]
    rows = iter(reader)
    begun = [next(rows).text for _ in range(stop)]
    assert begun + [d.text for d in rest.reader(json.loads(json.dumps(reader.state())))] == texts


def test_a_dataset_that_cannot_be_read_on_says_so_with_its_row(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "x"}\n{"text": "a\\ud83d"}\n')
    with pytest.raises(ValueError, match=rf"{tmp_path} cannot be read from row 0 on: .*surrogate.*Mend the dataset"):
        names(dataset(tmp_path).reader())


class Failing:
    """The dataset, whose connection breaks once at row 50."""

    def __init__(self, inner, errors):
        self.inner, self.errors = inner, errors

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __iter__(self):
        for row in self.inner:
            if row["text"].startswith("def number_1_10(") and self.errors:
                raise self.errors.pop()
            yield row


def with_errors(folder, monkeypatch, errors):
    monkeypatch.setattr(hub_dataset, "FIRST_PAUSE_S", 0.0)
    found = dataset(folder)
    opened = HubDataset.open
    monkeypatch.setattr(HubDataset, "open", lambda self: Failing(opened(self), errors))
    return found


def test_a_broken_connection_is_tried_again_from_the_row_it_broke_at(folder, monkeypatch, capsys):
    expected = [d.text for d in dataset(folder).reader()]
    found = with_errors(folder, monkeypatch, [ConnectionError("reset"), TimeoutError("slow")])
    assert [d.text for d in found.reader()] == expected
    assert capsys.readouterr().err.count("at row 50; trying again") == 2


def test_what_trying_again_cannot_mend_ends_at_once(folder, monkeypatch):
    with pytest.raises(PermissionError):
        list(with_errors(folder, monkeypatch, [PermissionError("no")]).reader())
    with pytest.raises(ConnectionError):
        list(with_errors(folder, monkeypatch, [ConnectionError("gone")] * 99).reader())


def test_the_pause_is_what_the_server_asks_or_twice_as_long_each_time():
    class Answer(OSError):
        class response:  # noqa: N801
            status_code, headers = 429, {"Retry-After": "17"}

    assert hub_dataset.is_passing(Answer()) and hub_dataset.pause_s(Answer(), 3) == 17
    assert [hub_dataset.pause_s(ConnectionError(), n) for n in (1, 2, 3, 20)] == [2, 4, 8, 300]


def test_a_split_or_a_field_that_is_not_there_is_refused_with_those_that_are(folder):
    with pytest.raises(ValueError, match="cannot be opened with data.subset=None data.split=valid"):
        list(dataset(folder, split="valid").reader())
    with pytest.raises(ValueError, match="has no text in the field 'body'. Set data.text_field to one of.*: n, text"):
        list(dataset(folder, text_field="body").reader())


def test_a_killed_tokenising_of_a_dataset_goes_on_and_gives_the_same(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenise, "CHUNK_CHARACTERS", 800)
    monkeypatch.setattr(tokenise, "PART_TOKENS", 400)
    found = dataset(folder)
    data = {"corpus": "huggingface", "corpus_sha256": found.sha256(), "tokenizer_sha256": LM.tokenizer_sha256,
            "held_out_fraction": 0.2, "n_ctx": 16, "batch_sequences": 2, "activation_dtype": "bfloat16", "data_seed": 0,
            "max_train_tokens": 3000, "packing": "pack_eos"}
    whole = tokens.prepare(Store(tmp_path / "a"), found, LM, data)
    count = []

    def killed(*_):
        count.append(1)
        if len(count) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokens.prepare(Store(tmp_path / "b"), found, LM, data, killed)
    resumed = tokens.prepare(Store(tmp_path / "b"), found, LM, data)
    assert (resumed.train.sequences == whole.train.sequences).all() and len(whole.train.sequences) > 50
    assert (resumed.held_out.sequences == whole.held_out.sequences).all()
    assert whole.meta["n_documents"] < 120


@pytest.fixture
def over(project, folder):
    """Writes sweeps/set.yaml: the tiny sweep over the dataset, for so many tokens of so many."""
    def write(n_tokens, max_train_tokens):
        text = (project.root / "sweeps" / "tiny.yaml").read_text().replace("data=text_files", "data=huggingface")
        path = f"data.path: {folder}\n  data.max_train_tokens: {max_train_tokens}"
        text = text.replace(f"data.path: {project.documents}", path)
        project.sweep("set", text.replace("budget.flops: [4.0e8, 8.0e8]", f"train.n_tokens: [{n_tokens}]"))
    return write


def test_a_sweep_over_a_dataset_is_planned_before_and_tokenised_at_its_harvest(over, project, saescale):
    over(2560, 6000)
    code, _, err = saescale("plan", "set")
    assert code == 0, err
    assert not list((project.store / "corpora").glob("*/meta.json"))
    code, out, err = saescale("harvest", "set")
    assert code == 0, err
    assert list((project.store / "corpora").glob("*/meta.json")) and "saescale launch set" in out


def test_a_dataset_smaller_than_the_plan_is_refused_at_launch(over, saescale):
    over(256_000, 600_000)
    assert saescale("plan", "set")[0] == 0
    code, _, err = saescale("launch", "set")
    assert code == 2 and "training tokens, fewer than the 0.26M of the longest run. Plan again" in err
