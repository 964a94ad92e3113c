import copy
import json

import pytest

from saescale import identity
from saescale.records import record
from saescale.records.store import Damaged, read_json

SCIENCE = {"sae": {"kind": "topk", "n_latents": 16}, "train": {"n_tokens": 512, "seed": 0}}
OTHER = {"sae": {"kind": "topk", "n_latents": 32}, "train": {"n_tokens": 512, "seed": 0}}


def result(science=SCIENCE, **changes):
    return {"schema": 1, "run_id": "r", "trunk_id": "t", "fingerprint": identity.fingerprint(science), "science": science,
            "metrics": {}, "flops": {}, "n_tokens": 512} | changes


def test_a_record_of_this_very_run_is_read(tmp_path):
    assert record.read_result(tmp_path, SCIENCE) is None
    record.write_result(tmp_path, result())
    assert record.read_result(tmp_path, SCIENCE) == result()


def test_another_spelling_of_a_number_is_the_same_run(tmp_path):
    record.write_result(tmp_path, result())
    spelled = copy.deepcopy(SCIENCE)
    spelled["train"]["n_tokens"] = 512.0
    assert record.read_result(tmp_path, spelled) is not None


def test_the_record_of_another_run_stops_with_the_differing_keys(tmp_path):
    record.write_result(tmp_path, result(OTHER))
    with pytest.raises(record.OtherRun, match="sae.n_latents: 16 here, 32 on disk.*Nothing was overwritten"):
        record.read_result(tmp_path, SCIENCE)


def test_a_fingerprint_that_does_not_belong_to_its_science_stops(tmp_path):
    record.write_result(tmp_path, result(fingerprint="0" * 64))
    with pytest.raises(record.OtherRun, match="does not belong to the recorded science"):
        record.read_result(tmp_path, SCIENCE)


@pytest.mark.parametrize("key", record.REQUIRED)
def test_a_record_that_lacks_a_key_is_damaged(tmp_path, key):
    torn = result()
    del torn[key]
    (tmp_path / "result.json").write_text(json.dumps(torn))
    with pytest.raises(Damaged, match=f"it lacks {key}"):
        record.read_result(tmp_path, SCIENCE)


@pytest.mark.parametrize("raw", ["[]", "3", json.dumps(result() | {"science": ["x"]})])
def test_json_that_is_no_record_is_damaged(tmp_path, raw):
    (tmp_path / "result.json").write_text(raw)
    with pytest.raises(Damaged):
        record.read_result(tmp_path, SCIENCE)


def test_claiming_twice_changes_nothing(tmp_path):
    record.claim(tmp_path, SCIENCE, {"threads": 1})
    before = (tmp_path / "config.json").stat().st_mtime_ns
    record.claim(tmp_path, SCIENCE, {"threads": 1})
    assert (tmp_path / "config.json").stat().st_mtime_ns == before


def test_a_claim_learns_where_a_moved_language_model_is_now(tmp_path):
    record.claim(tmp_path, SCIENCE, {"lm_path": "/old"})
    record.claim(tmp_path, SCIENCE, {"lm_path": "/new"})
    assert read_json(tmp_path / "config.json")["execution"] == {"lm_path": "/new"}


def test_the_directory_of_another_run_is_not_claimed(tmp_path):
    record.claim(tmp_path, OTHER, {})
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(record.OtherRun, match="sae.n_latents: 16 here, 32 on disk"):
        record.claim(tmp_path, SCIENCE, {})
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize("raw", ["[]", "{}", "{"])
def test_a_config_that_is_none_is_damaged(tmp_path, raw):
    (tmp_path / "config.json").write_text(raw)
    with pytest.raises(Damaged):
        record.claim(tmp_path, SCIENCE, {})
