import numpy as np
import pytest
from safetensors.numpy import save_file

from saescale.activations.folder import BUNDLED, LMFolder
from saescale.activations.token_arrays import TokenArrays

LM = LMFolder(BUNDLED)  # bos = eos = 0, 1024 ids


def ids(path):
    return [d.ids for d in TokenArrays(str(path), LM).reader()]


@pytest.fixture
def rows():
    return np.random.default_rng(0).integers(1, 1024, (5, 12)).astype(np.uint16)


def test_rows_are_documents_in_every_format(tmp_path, rows):
    np.save(tmp_path / "a.npy", rows)
    np.savez(tmp_path / "b.npz", input_ids=rows, attention_mask=np.ones_like(rows))
    save_file({"tokens": rows.astype(np.int32)}, tmp_path / "c.safetensors")
    for name in ("a.npy", "b.npz", "c.safetensors"):
        assert ids(tmp_path / name) == rows.tolist(), name
    assert len(ids(tmp_path)) == 15


def test_a_stream_ends_a_document_after_each_eos_and_the_bos_of_a_document_is_not_doubled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([5, 6, 0, 7, 0, 8, 9]))
    assert ids(tmp_path / "a.npy") == [[5, 6, 0], [7, 0], [8, 9]]
    np.save(tmp_path / "b.npy", np.array([[0, 5, 6], [0, 7, 8]]))
    assert ids(tmp_path / "b.npy") == [[5, 6], [7, 8]]


def test_reading_goes_on_from_any_document(tmp_path, rows):
    np.save(tmp_path / "a.npy", rows)
    np.save(tmp_path / "b.npy", rows[::-1])
    corpus = TokenArrays(str(tmp_path), LM)
    reader = corpus.reader()
    begun = [d.name for d, _ in zip(reader, range(7), strict=False)][:7]
    assert begun[-1] == "b.npy#1" and [d.name for d in corpus.reader([1, 2])] == ["b.npy#2", "b.npy#3", "b.npy#4"]


@pytest.mark.parametrize(("array", "said"), [
    (np.array([[1, 1024]]), "holds the token id 1024 and weights knows 0 to 1023: it was made with another tokenizer"),
    (np.array([[1, -1]]), "holds the token id -1"), (np.array([0.5]), "holds float64 of shape"),
    (np.zeros((1, 2, 3), int), r"of shape \(1, 2, 3\)"), (np.array([], int), "is empty"),
    (np.array([{}]), "is not an array of numbers"),
])
def test_what_cannot_be_this_models_tokens_is_refused(tmp_path, array, said):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=said):
        ids(tmp_path)


def test_a_file_that_says_it_was_made_with_another_tokenizer_is_refused(tmp_path, rows):
    save_file({"input_ids": rows.astype(np.int32)}, tmp_path / "a.safetensors", {"tokenizer_sha256": LM.tokenizer_sha256})
    assert len(ids(tmp_path)) == 5
    save_file({"input_ids": rows.astype(np.int32)}, tmp_path / "a.safetensors", {"tokenizer_sha256": "0" * 64})
    with pytest.raises(ValueError, match="made with the tokenizer 000000000000.*tokenise the texts with this model's"):
        ids(tmp_path)


def test_several_arrays_of_which_none_is_named_as_token_ids_are_refused(tmp_path, rows):
    np.savez(tmp_path / "a.npz", x=rows, y=rows)
    with pytest.raises(ValueError, match="holds several arrays: x, y. Name the token ids input_ids"):
        ids(tmp_path)
