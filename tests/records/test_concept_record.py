import pandas as pd
import pytest

from saescale.records import concepts
from saescale.records.store import Damaged, write_json


def rows(**given):
    base = {"run_id": "r64", "dictionary": "trained", "n_latents": 64, "n_alive": 60, "seed": 0, "category": "animals",
            "concept": "cat", "n_name_tokens": 2, "count": 30, "frequency": 3e-4, "space_frequency": 1e-4, "ambiguous": False,
            "latent": 7, "theta": 0.5, "recall": 1.0, "precision": 0.5, "score": 2 / 3, "f1_natural": 0.4, "prompt_hit": True}
    return base | given


@pytest.fixture
def table():
    absent = {"latent": -1, "theta": None, "recall": None, "precision": None, "score": None, "f1_natural": None,
              "prompt_hit": None, "space_frequency": None}
    emu = {"concept": "emu", "count": 3, "frequency": 3e-5}
    return pd.DataFrame([rows(), rows(**emu, **absent), rows(dictionary="untrained", score=0.1), rows(dictionary="permuted"),
                         rows(dictionary="untrained", **emu, **absent)])


def test_what_is_written_is_read_back_and_missing_numbers_stay_missing(tmp_path, table):
    concepts.write(tmp_path, {"corpus": "stories"}, table)
    found = concepts.read(tmp_path)
    assert found.about == {"corpus": "stories", "schema": concepts.SCHEMA}
    assert dict(found.table.dtypes.astype(str)) | concepts.COLUMNS == dict(found.table.dtypes.astype(str))
    assert found.table["score"].isna().tolist() == [False, True, False, False, True]
    assert found.table["prompt_hit"].isna().tolist() == [False, True, False, False, True]
    assert found.table["score"][0] == 2 / 3
    assert found.concepts["concept"].tolist() == ["emu", "cat"]


def test_the_law_can_be_asked_at_the_prevalence_of_the_text(tmp_path, table):
    concepts.write(tmp_path, {"definition": {"score": "F1", "taus": [0.5]}}, table)
    found = concepts.read(tmp_path).at_text_prevalence()
    assert found.table["score"].equals(found.table["f1_natural"].rename("score"))
    assert found.about["definition"] == {"score": "held-out F1 at the text's prevalence", "taus": [0.5]}


def test_the_best_latents_of_a_run_leave_out_concepts_without_one(tmp_path, table):
    concepts.write(tmp_path, {}, table)
    record = concepts.read(tmp_path)
    assert record.best_latents("r64")[["concept", "latent"]].values.tolist() == [["cat", 7]]
    with pytest.raises(ValueError, match="Choose one of: r64"):
        record.best_latents("r65")


def test_nothing_scored_is_none_and_another_version_or_a_torn_table_says_to_score_again(tmp_path, table):
    assert concepts.read(tmp_path) is None
    write_json(tmp_path / concepts.ABOUT, {"schema": 1})
    with pytest.raises(Damaged, match="schema 1, here 2"):
        concepts.read(tmp_path)
    concepts.write(tmp_path, {}, table)
    whole = (tmp_path / concepts.TABLE).read_bytes()
    (tmp_path / concepts.TABLE).write_bytes(whole[:-40])
    with pytest.raises(Damaged, match="concepts` on the sweep again"):
        concepts.read(tmp_path)
    table.drop(columns="theta").to_parquet(tmp_path / concepts.TABLE)
    with pytest.raises(Damaged, match="lacks the columns theta"):
        concepts.read(tmp_path)
