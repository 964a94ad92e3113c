import copy
import hashlib
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saescale import identity

SCIENCE = {
    "lm": {"revision": "a1", "hook_name": "blocks.1.hook_resid_post", "d_in": 128, "dtype": "float32"},
    "data": {"corpus": "python_stdlib", "corpus_sha256": "b2", "n_ctx": 128, "data_seed": 0},
    "sae": {"kind": "topk", "n_latents": 1024, "k": 16, "sparsity_coeff": None, "aux_coeff": 0.03125},
    "train": {"n_tokens": 524288, "batch_tokens": 256, "lr": 5e-3, "lr_decay_fraction": 0.2, "seed": 0},
    "eval": {"n_tokens": 65536, "ce_tokens": 16384},
}
KEYS = sorted(identity.flatten(SCIENCE))


def changed(key, value, science=SCIENCE):
    out = copy.deepcopy(science)
    group, name = key.split(".")
    out[group][name] = value
    return out


@pytest.mark.parametrize("same", [[1e15, 1.0e+15, 10**15], [1e23, 10**23], [0, 0.0, -0.0], [1e18, 10**18], [1e300, 10**300]])
def test_numbers_that_mean_the_same_have_one_digest(same):
    assert len({identity.digest({"x": v}) for v in same}) == 1


def test_the_hashed_text_is_the_canonical_json_of_schema_and_science():
    odd = {"b": {"ü\"": 'a"\\\n,', "x": [1.0, {"z": True, "a": None}]},
           "a": {"one": 1.0, "true": True, "text": "1", "small": 1e-7}}
    flat = {"a.one": 1, "a.small": 1e-7, "a.text": "1", "a.true": True, 'b.ü"': 'a"\\\n,', "b.x": [1, {"a": None, "z": True}]}
    text = json.dumps({"schema": identity.SCHEMA, "science": flat}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert identity.fingerprint(odd) == hashlib.sha256(text.encode()).hexdigest()


def test_numbers_that_differ_have_different_digests():
    values = [1, 2, 0.1, 0.1 + 1e-17 * 10, 1e15, 1e15 + 1, "1", True, None, [1], 2**62, 2**62 + 1]
    assert len({identity.digest({"x": v}) for v in values}) == len(values)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, object(), {1, 2}, b"x", 10**400, 10**30 + 1, {1: 2}, 1j])
def test_a_value_without_one_stable_form_raises(value):
    with pytest.raises(ValueError, match="cannot identify a run|keys of a science block"):
        identity.digest({"x": value})


def test_the_order_of_keys_does_not_matter():
    turned = {group: dict(reversed(block.items())) for group, block in reversed(SCIENCE.items())}
    assert identity.fingerprint(turned) == identity.fingerprint(SCIENCE)


@settings(deadline=None, max_examples=60)
@given(key=st.sampled_from(KEYS), value=st.one_of(st.integers(1, 10**6), st.floats(0, 1), st.text(max_size=5), st.none()))
def test_every_science_key_changes_the_fingerprint(key, value):
    before = identity.flatten(SCIENCE)[key]
    differs = value != before or type(value) is bool
    assert (identity.fingerprint(changed(key, value)) != identity.fingerprint(SCIENCE)) == differs


def test_a_new_key_at_its_neutral_default_keeps_old_ids(monkeypatch):
    old = identity.run_id(SCIENCE), identity.trunk_id(SCIENCE)
    monkeypatch.setitem(identity.NEUTRAL_DEFAULTS, "train.weight_decay", 0.0)
    neutral = changed("train.weight_decay", 0)
    assert (identity.run_id(neutral), identity.trunk_id(neutral)) == old
    assert identity.run_id(changed("train.weight_decay", 0.1)) != old[0]


@pytest.mark.parametrize("key", KEYS)
def test_trunk_id_ignores_the_horizon_and_its_decay_and_nothing_else(key):
    other = changed(key, "something else") if key not in ("sae.n_latents", "sae.k", "sae.sparsity_coeff") else changed(key, 512)
    if key in ("train.n_tokens", "lm.d_in"):
        other = changed(key, 256)
    same = identity.trunk_id(other)[-10:] == identity.trunk_id(SCIENCE)[-10:]  # the hash, not the readable prefix
    assert same == (key in ("train.n_tokens", "train.lr_decay_fraction"))
    assert identity.fingerprint(other) != identity.fingerprint(SCIENCE)


def test_run_id_has_a_readable_prefix_and_ten_hex_of_the_fingerprint():
    flops = 12 * 128 * 1024 * 524288  # 8.25e11
    assert identity.run_id(SCIENCE) == f"L1-topk-n1024-k16-C8.25e11-s0-{identity.fingerprint(SCIENCE)[:10]}"
    assert f"{flops:.3g}" == "8.25e+11"


def test_differing_keys_names_both_values_and_only_what_differs():
    other = changed("train.seed", 3)
    del other["eval"]["ce_tokens"]
    assert identity.differing_keys(SCIENCE, other) == ["eval.ce_tokens: 16384 here, 'absent' on disk",
                                                       "train.seed: 0 here, 3 on disk"]


def test_differing_keys_sees_no_difference_between_two_spellings_of_a_number():
    assert identity.differing_keys(changed("train.n_tokens", 524288.0), SCIENCE) == []
