"""Making rows of documents: packing, special tokens, reading in parts, going on after a kill, checksums."""

import json
import random
import shutil

import numpy as np
import pytest

from saescale.activations import tokenise, tokens
from saescale.activations.corpora import Listed
from saescale.activations.files import Files
from saescale.activations.folder import BUNDLED, LMFolder
from saescale.activations.tokenise import Cutter, Rows
from saescale.records.store import Damaged, Store

LM = LMFolder(BUNDLED)


def cutter(packing, separator=9, bos=0, n_ctx=4):
    return Cutter(n_ctx, bos, packing, separator)


def test_packing_joins_documents_with_the_separator_and_cuts_the_stream_worked_by_hand():
    c = cutter("pack_eos")
    first = c.rows([(0, [1, 2]), (1, [3]), (2, [])])
    assert first.ids.tolist() == [[0, 1, 2, 9]] and first.documents.tolist() == [0] and c.carry == [3, 9]
    second = c.rows([(3, [4, 5, 6, 7])])
    assert second.ids.tolist() == [[0, 3, 9, 4], [0, 5, 6, 7]] and second.documents.tolist() == [1, 3]
    assert second.lengths.tolist() == [4, 4] and c.carry == [9]


def test_documents_apart_are_padded_and_a_lone_token_gives_no_row_worked_by_hand():
    rows = cutter("cut").rows([(0, [1, 2, 3, 4]), (1, [5])])
    assert rows.ids.tolist() == [[0, 1, 2, 3], [0, 4, 0, 0], [0, 5, 0, 0]] and rows.lengths.tolist() == [4, 2, 2]
    assert cutter("cut", bos=None).rows([(0, [1, 2, 3, 4, 5])]).ids.tolist() == [[1, 2, 3, 4]]


def test_the_order_is_gathered_from_the_parts_as_from_one_array(monkeypatch, tmp_path):
    monkeypatch.setattr(tokenise, "BLOCK_ROWS", 7)
    ids = np.arange(120, dtype=np.int32).reshape(30, 4)
    rows = Rows(ids, ids[:, 0], ids[:, 1])
    parts = [Rows(*(a[i:j] for a in rows)) for i, j in ((0, 3), (3, 3), (3, 19), (19, 30))]
    chosen = np.random.default_rng(0).permutation(30)[:23]
    said = tokenise.write_array(tmp_path / "a.npy", parts, chosen, "ids")
    assert np.array_equal(np.load(tmp_path / "a.npy"), ids[chosen]) and said["bytes"] == (tmp_path / "a.npy").stat().st_size


@pytest.fixture
def texts(tmp_path):
    """A folder of one .jsonl of 200 documents."""
    r = random.Random(0)
    words = ["def", "return", "import", "self", "value", "for", "in", "range", "print", "class", "if", "else", "None", "True"]
    (tmp_path / "texts").mkdir()
    lines = [json.dumps({"text": " ".join(r.choices(words, k=r.randrange(5, 60)))}) for _ in range(200)]
    (tmp_path / "texts" / "a.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "texts"


class Long(Files):
    """Files as if they were many."""

    large = True


class Endless(Long):
    in_order = True


def settings(source, **changes):
    return {"corpus": "files", "corpus_sha256": source.sha256(), "tokenizer_sha256": LM.tokenizer_sha256,
            "held_out_fraction": 0.25, "n_ctx": 16, "batch_sequences": 4, "activation_dtype": "bfloat16", "data_seed": 0,
            "max_train_tokens": None, **changes}


def arrays(corpus):
    return [np.asarray(getattr(s, k)) for s in (corpus.train, corpus.held_out) for k in ("sequences", "lengths", "documents")]


@pytest.fixture
def _small_parts(monkeypatch):
    monkeypatch.setattr(tokenise, "CHUNK_CHARACTERS", 900)
    monkeypatch.setattr(tokenise, "PART_TOKENS", 700)


@pytest.mark.parametrize("packing", ["cut", "pack_eos"])
@pytest.mark.usefixtures("_small_parts")
def test_reading_in_parts_gives_what_reading_at_once_gives(tmp_path, texts, packing):
    source = Files(str(texts))
    data = settings(source, packing=packing)
    whole = tokens.prepare(Store(tmp_path / "a"), Listed(list(source.reader())), LM, data)
    parts = tokens.prepare(Store(tmp_path / "b"), Long(str(texts)), LM, data)
    assert all(np.array_equal(a, b) for a, b in zip(arrays(whole), arrays(parts), strict=True))
    assert not list((tmp_path / "b").rglob("parts"))


@pytest.mark.parametrize("packing", ["cut", "pack_bare"])
@pytest.mark.usefixtures("_small_parts")
def test_a_reading_that_was_killed_goes_on_behind_its_last_part_and_gives_the_same(tmp_path, texts, packing):
    source = Long(str(texts))
    data = settings(source, packing=packing)
    whole = tokens.prepare(Store(tmp_path / "a"), source, LM, data)

    def killed(done, _total, _note):
        seen.append(done)
        if len(seen) == 9:
            raise KeyboardInterrupt

    seen, store = [], Store(tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        tokens.prepare(store, source, LM, data, killed)
    kept = sorted(store.corpus_dir(tokens.corpus_key(data)).glob("parts/*.json"))
    assert len(kept) > 1
    kept[-1].write_text("{torn")  # and its last part did not reach the disk
    encoded, encode = [], tokenise.encoder(LM.path / "tokenizer.json")
    with pytest.MonkeyPatch.context() as m:
        m.setattr(tokenise, "encoder", lambda _: lambda texts: encoded.extend(texts) or encode(texts))
        resumed = tokens.prepare(store, source, LM, data)
    assert 0 < len(encoded) < 200
    assert all(np.array_equal(a, b) for a, b in zip(arrays(whole), arrays(resumed), strict=True))
    assert whole.meta["n_train_documents"] + whole.meta["n_held_out_documents"] == 200 == resumed.meta["n_documents"]


@pytest.mark.usefixtures("_small_parts")
def test_a_corpus_in_its_own_order_is_read_no_further_than_needed_and_keeps_its_promise(tmp_path, texts):
    source = Endless(str(texts))
    data = settings(source, max_train_tokens=1500)
    found = tokens.prepare(Store(tmp_path / "a"), source, LM, data)
    assert tokens.promised(data) <= found.train.n_tokens <= 1500
    assert found.meta["n_documents"] < 200


def test_excluded_tokens_give_no_activation_and_are_counted_out(tmp_path, texts):
    source = Files(str(texts))
    found = tokens.prepare(Store(tmp_path / "a"), source, LM, settings(source, packing="pack_eos", exclude_special_tokens=True))
    plain = tokens.prepare(Store(tmp_path / "b"), source, LM, settings(source, packing="pack_eos"))
    for split, other in ((found.train, plain.train), (found.held_out, plain.held_out)):
        assert np.array_equal(split.sequences, other.sequences)
        kept = [split.kept(i) for i in range(split.n_batches)]
        assert [int(k.sum()) for k in kept] == split.batch_token_counts.tolist()
        inner = np.asarray(split.sequences)[:, 1:]
        assert split.n_tokens == int((inner != 0).sum()) < other.n_tokens
        assert not (split.flat().ids == 0).any() and len(split.flat().ids) == split.n_tokens
    assert found.meta["n_train_tokens"] == found.train.n_tokens


def test_no_bos_where_none_is_wanted(tmp_path, texts):
    source = Files(str(texts))
    found = tokens.prepare(Store(tmp_path), source, LM, settings(source, prepend_bos=False))
    assert not (np.asarray(found.train.sequences)[:, 0] == 0).any()


def test_a_separator_the_model_lacks_is_refused_with_the_choices(tmp_path, texts):
    folder = tmp_path / "lm"
    shutil.copytree(BUNDLED, folder)
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, "eos_token_id": None}))
    source = Files(str(texts))
    with pytest.raises(ValueError, match="puts the EOS token between documents, and lm has none.*pack_bos or pack_bare"):
        tokens.prepare(Store(tmp_path / "a"), source, LMFolder(folder), settings(source, packing="pack_eos"))


@pytest.mark.parametrize("name", ["train-sequences.npy", "held_out-lengths.npy"])
def test_a_flipped_byte_of_a_tokenised_corpus_is_noticed_and_it_is_made_anew(tmp_path, texts, name):
    source, store = Files(str(texts)), Store(tmp_path / "store")
    data = settings(source)
    whole = [a.copy() for a in arrays(tokens.prepare(store, source, LM, data))]
    path = store.corpus_dir(tokens.corpus_key(data)) / name
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(Damaged, match=f"{name} is damaged.*tokenised anew"):
        tokens.read(path.parent)
    healed = arrays(tokens.prepare(store, source, LM, data))
    assert all(np.array_equal(a, b) for a, b in zip(whole, healed, strict=True))


def test_new_settings_at_their_defaults_leave_the_key_of_a_corpus(texts):
    data = settings(Files(str(texts)))
    key = tokens.corpus_key(data)
    assert tokens.corpus_key({**data, "packing": "cut", "prepend_bos": True, "exclude_special_tokens": False}) == key
    assert len({key, *(tokens.corpus_key({**data, k: v}) for k, v in
                       (("packing", "pack_eos"), ("prepend_bos", False), ("exclude_special_tokens", True)))}) == 4
