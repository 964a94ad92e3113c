import numpy as np
import pytest

from saescale.activations import overlap


@pytest.fixture(autouse=True)
def _all(monkeypatch):
    """No sampling, so that shares are exact."""
    monkeypatch.setattr(overlap, "SAMPLED", np.uint64(1))


def random_rows(n, seed):
    return np.random.default_rng(seed).integers(0, 1000, (n, 64)).astype(np.int32)


def test_texts_without_a_common_run_of_tokens_share_nothing():
    found = overlap.between(random_rows(40, 0), random_rows(10, 1), np.arange(10))
    assert found["share"] == 0 and found["n_near_duplicates"] == 0 and found["n_documents"] == 10
    assert overlap.warning(found) is None


def test_a_copied_document_is_found_wherever_its_windows_begin():
    train, held_out = random_rows(40, 0), random_rows(8, 1)
    flat = held_out[:2].reshape(-1)  # documents 0 and 1, shifted by five tokens in the training rows
    train[10:12] = np.concatenate([train[10, :5], flat])[:128].reshape(2, 64)
    found = overlap.between(train, held_out, np.arange(8))
    assert found["n_near_duplicates"] == 2 and 0.15 < found["share"] < 0.25
    assert "2 of 8 held-out documents are near-duplicates" in overlap.warning(found)


def test_less_than_half_of_a_document_makes_no_near_duplicate():
    train, held_out = random_rows(40, 0), random_rows(8, 1)
    train[3, :30] = held_out[4, :30]  # 18 of its 52 shingles
    found = overlap.between(train, held_out, np.arange(8))
    assert found["n_near_duplicates"] == 0 and found["share"] == pytest.approx(18 / (8 * 52))


def test_padding_is_no_common_text():
    train, held_out = random_rows(4, 0), random_rows(4, 1)
    train[:, 20:], held_out[:, 20:] = 0, 0
    found = overlap.between(train, held_out, np.arange(4))
    assert found["share"] == 0


def test_the_sampled_share_is_near_the_whole_one(monkeypatch):
    train, held_out = random_rows(2000, 0), random_rows(400, 1)
    train[:100] = held_out[:100]
    monkeypatch.setattr(overlap, "SAMPLED", np.uint64(16))
    found = overlap.between(train, held_out, np.arange(400) // 4)
    assert found["share"] == pytest.approx(0.25, abs=0.05) and found["n_near_duplicates"] == 25
