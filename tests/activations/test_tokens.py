import json
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from tokenizers import Tokenizer

from saescale.activations import tokens
from saescale.activations.folder import BUNDLED, LMFolder
from saescale.activations.text import Document, is_held_out
from saescale.records.store import Store


def folder_with(tmp_path, **changes):
    """A copy of the bundled folder whose config or tokenizer says something else."""
    folder = tmp_path / "lm"
    shutil.copytree(BUNDLED, folder)
    for name, change in changes.items():
        said = json.loads((folder / f"{name}.json").read_text())
        (folder / f"{name}.json").write_text(json.dumps({**said, **change}))
    return LMFolder(folder)


def encoded(text):
    return Tokenizer.from_file(str(BUNDLED / "tokenizer.json")).encode(text, add_special_tokens=False).ids


def test_every_sequence_starts_with_bos_and_no_activation_comes_from_it_or_from_padding(corpus):
    for split in (corpus.train, corpus.held_out):
        assert (np.asarray(split.sequences)[:, 0] == 0).all()
        assert (np.asarray(split.lengths) < split.sequences.shape[1]).any()  # some padding to drop
        for i in range(split.n_batches):
            kept, lengths = split.kept(i), split.lengths[i * 4:(i + 1) * 4]
            for row, length in zip(kept, lengths, strict=True):
                assert row.tolist() == [False] + [True] * (length - 1) + [False] * (16 - length)


def test_the_kept_tokens_of_a_document_are_its_own_tokens_cut_into_windows(corpus, documents):
    flat = corpus.train.flat()
    for index in range(len(documents)):
        mine = flat.documents == index
        windows = {tuple(flat.ids[mine & (flat.sequences == s)]) for s in np.unique(flat.sequences[mine])}
        ids = encoded(documents[index].text)
        assert windows <= {tuple(ids[i:i + 15]) for i in range(0, len(ids), 15)}


def test_held_out_documents_are_never_trained_on(corpus, documents):
    trained = {documents[i].name for i in np.unique(corpus.train.documents)}
    held = {documents[i].name for i in np.unique(corpus.held_out.documents)}
    assert held and not trained & held
    assert all(is_held_out(name, 0.25) for name in held) and not any(is_held_out(name, 0.25) for name in trained)


def test_token_counts_add_up_over_whole_forward_batches(corpus, documents):
    total = 0
    for split, name in ((corpus.train, "train"), (corpus.held_out, "held_out")):
        assert len(split.sequences) % 4 == 0
        assert split.n_tokens == sum(int(split.kept(i).sum()) for i in range(split.n_batches)) == len(split.flat().ids)
        assert split.n_tokens == corpus.meta[f"n_{name}_tokens"]
        total += split.n_tokens
    whole = sum(len(encoded(d.text)) for d in documents)
    assert whole - 2 * 3 * 15 <= total <= whole  # less than one forward batch is left over in each split


def test_the_first_batches_of_flat_are_the_first_activations(corpus):
    some, everything = corpus.train.flat(2), corpus.train.flat()
    n = int(corpus.train.batch_token_counts[:2].sum())
    assert len(some.ids) == n and np.array_equal(some.ids, everything.ids[:n])
    assert np.array_equal(some.ids, np.concatenate([corpus.train.batch(i)[corpus.train.kept(i)] for i in range(2)]))


def test_a_model_without_bos_loses_the_first_position_of_each_window_instead(tmp_path, documents, data):
    corpus = tokens.prepare(Store(tmp_path / "store"), documents, folder_with(tmp_path, config={"bos_token_id": None}), data)
    index = int(corpus.train.documents[0])
    ids = encoded(documents[index].text)
    starts = {tuple(ids[i:i + 16]) for i in range(0, len(ids), 16)}
    row = corpus.train.sequences[0][: corpus.train.lengths[0]]
    assert tuple(row) in starts
    assert not corpus.train.kept(0)[:, 0].any()


def test_padding_asked_for_by_a_tokenizer_file_never_becomes_text(tmp_path, documents, data):
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 1, "pad_type_id": 0,
               "pad_token": "x"}
    padded = tokens.prepare(Store(tmp_path / "a"), documents, folder_with(tmp_path, tokenizer={"padding": padding}), data)
    plain = tokens.prepare(Store(tmp_path / "b"), documents, LMFolder(BUNDLED), data)
    assert padded.train.n_tokens == plain.train.n_tokens


def test_a_split_too_small_for_one_forward_batch_is_refused_with_what_to_change(tmp_path, data):
    with pytest.raises(ValueError, match="held_out split.*gives 0 sequences.*lower data.batch_sequences or change data.held"):
        one = [Document("a.py", "import os " * 90)]
        tokens.prepare(Store(tmp_path), one, LMFolder(BUNDLED), {**data, "held_out_fraction": 0.0})


@pytest.mark.parametrize("raw", ["", '{"hidden_size": 1', "[]", "null"])
def test_a_torn_config_of_a_model_is_named(tmp_path, raw):
    lm = folder_with(tmp_path)
    (lm.path / "config.json").write_text(raw)
    with pytest.raises(ValueError, match=r"lm/config.json is cut off or damaged .*save_pretrained"):
        lm.facts(None)


def test_the_lock_of_a_corpus_is_kept_while_its_rows_are_ordered_and_compared(tmp_path, documents, data, monkeypatch):
    at_work = []

    @contextmanager
    def kept(self):
        at_work.append(self.path.parent.name)
        yield
        at_work.clear()

    between = tokens.overlap.between
    monkeypatch.setattr(tokens.Lock, "kept", kept)
    monkeypatch.setattr(tokens.overlap, "between", lambda *given: between(*given) | {"kept": list(at_work)})
    corpus = tokens.prepare(Store(tmp_path), documents, LMFolder(BUNDLED), data)
    assert corpus.meta["overlap"]["kept"] == [tokens.corpus_key(data)] and not at_work


def test_a_context_longer_than_the_model_reads_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="n_ctx=512 exceeds the 256 positions"):
        tokens.corpus_facts("text_files", str(tmp_path), LMFolder(BUNDLED), 512)
