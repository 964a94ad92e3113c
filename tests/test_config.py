import copy
import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saescale import config as conf
from saescale import science as sci
from saescale.identity import fingerprint, run_id, trunk_id

GIVEN = {
    "lm": {"path": None, "hook_name": "blocks.1.hook_resid_post", "dtype": "float32"},
    "data": {"corpus": "python_stdlib", "path": None, "held_out_fraction": 0.1, "n_ctx": 128, "batch_sequences": 32,
             "max_train_tokens": None, "activation_dtype": "bfloat16"},
    "activations": {"source": "cache"},
    "sae": {"kind": "topk", "n_latents": 1024, "k": 16, "sparsity_coeff": None, "aux_coeff": 0.03, "k_aux": None},
    "train": {"n_tokens": 10240, "batch_tokens": 256, "lr": 5e-3, "lr_reference_latents": None, "lr_power": 0.5,
              "lr_warmup_tokens": 512, "lr_decay_fraction": 0.2, "sparsity_warmup_tokens": 0, "dead_after_tokens": None,
              "grad_clip": 1.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "eval": {"n_tokens": 1024, "ce_tokens": 256},
    "budget": {"flops": None, "tolerance": 0.01, "min_steps": 10, "min_warmups": 5},
    "cluster": {"kind": "local", "workers": 2, "threads": 1, "memory_gb": None, "kernels": "auto",
                "checkpoint_s": 20, "log_every_tokens": 16384},
    "track": {"kind": "off"},
    "seed": 0,
    "data_seed": 0,
}
LM = {"revision": "a", "hook_name": "blocks.1.hook_resid_post", "d_in": 128}
CORPUS = {"corpus_sha256": "b", "tokenizer_sha256": "c"}
# Another allowed value for every key a person may set.
SCIENCE_KEYS = {
    "lm.attention": "sdpa", "data.packing": "pack_eos", "data.prepend_bos": False, "data.exclude_special_tokens": True,
    "lm.dtype": "bfloat16", "data.corpus": "text_files", "data.held_out_fraction": 0.2, "data.n_ctx": 64,
    "data.batch_sequences": 16, "data.activation_dtype": "float32", "data.max_train_tokens": 9,
    "sae.n_latents": 512, "sae.k": 8, "sae.aux_coeff": 0.0,
    "sae.k_aux": 32, "train.precision": "bfloat16", "train.n_tokens": 20480, "train.batch_tokens": 128, "train.lr": 1e-3,
    "train.lr_warmup_tokens": 256,
    "train.lr_decay_fraction": 0.1, "train.dead_after_tokens": 99, "train.grad_clip": 2.0,
    "train.beta1": 0.8, "train.beta2": 0.99, "train.eps": 1e-6, "eval.n_tokens": 2048, "eval.ce_tokens": 128, "seed": 1,
    "data_seed": 1,
}
EXECUTION_KEYS = {
    "lm.name": "gpt2", "lm.revision": "main", "lm.device": "cuda",  # the model they name is in its revision, and so with the text
    "data.text_field": "content", "data.document_separator": "---", "data.subset": "en", "data.split": "all",
    "data.revision": "main",
    "lm.path": "/elsewhere", "data.path": "/elsewhere", "cluster.kind": "inprocess", "cluster.workers": 7, "cluster.threads": 3,
    "cluster.kernels": "cpu", "cluster.device": "cuda", "cluster.gpu_memory_gb": 80.0,
    "cluster.checkpoint_s": 1.0, "cluster.memory_gb": 4.0, "cluster.log_every_tokens": 1,
    "cluster.ranks": 2, "cluster.shard_above_gb": 0.5, "cluster.rank_timeout_s": 60.0,
    "budget.tolerance": 0.5, "budget.min_steps": 1,
    "budget.min_warmups": 0, "activations.source": "live",
    "cluster.job": {"gpus": 8, "gpu_type": "h100", "cpus": 4, "memory": "9G", "time": "9h", "partition": "gpu", "nodes": 2,
                    "ranks_per_node": 4},
    "cluster.rules": [{"when": "n_latents > 9", "memory": "99G"}],
    "cluster.slurm": {"account": "lab", "qos": None, "constraint": None, "setup": ["module load x"], "environment": {"A": "b"},
                      "max_array_size": 9, "max_submit": 9, "signal_delay_s": 9},
}


# Another allowed value for every setting of activations=synthetic.
SYNTHETIC = {"seed": 1, "n_tokens": 9000, "n_features": 99, "d_in": 32, "zipf_exponent": 0.9, "mean_l0": 3.0, "max_rate": 0.5,
             "magnitude_low": 0.1, "magnitude_high": 3.0, "hierarchy_roots": 4, "hierarchy_branching": 3,
             "manifold_fraction": 0.5, "noise": 0.1, "manifold_dim": 3, "one_at_a_time": True}
DRAWN = {"source": "synthetic", "seed": 0, "n_tokens": 4096, "n_features": 64, "d_in": 16, "zipf_exponent": 1.1, "mean_l0": 1.0,
         "max_rate": 0.7, "magnitude_low": 0.5, "magnitude_high": 1.5, "hierarchy_roots": 0, "hierarchy_branching": 4,
         "manifold_fraction": 0.0, "noise": 0.0, "manifold_dim": 2, "one_at_a_time": False}


def put(changes):
    tree = copy.deepcopy(GIVEN)
    for key, value in changes.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node[part]
        node[last] = value
    return tree


def science(changes):
    return sci.science_block(conf.from_mapping(put(changes)), LM, CORPUS)


def refused(changes):
    with pytest.raises(ValueError) as e:
        conf.from_mapping(put(changes))
    text = str(e.value)
    assert "\n" not in text
    return text


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(sorted(SCIENCE_KEYS)), st.sets(st.sampled_from(sorted(EXECUTION_KEYS))))
def test_every_science_key_changes_the_identity_and_no_execution_key_does(key, execution):
    elsewhere = {k: EXECUTION_KEYS[k] for k in execution}
    assert fingerprint(science(elsewhere)) == fingerprint(science({}))
    assert fingerprint(science({**elsewhere, key: SCIENCE_KEYS[key]})) != fingerprint(science({}))


def synthetic_science(changes, **more):
    return sci.synthetic_science_block(conf.from_mapping(put({"activations": {**DRAWN, **changes}, **more})))


@pytest.mark.parametrize("key", SYNTHETIC)
def test_every_synthetic_setting_changes_the_identity(key):
    assert fingerprint(synthetic_science({key: SYNTHETIC[key]})) != fingerprint(synthetic_science({}))


def test_a_synthetic_run_knows_no_language_model_and_no_text():
    found = synthetic_science({}, **{"lm.dtype": "bfloat16", "data.n_ctx": 64, "eval.ce_tokens": 9})
    assert fingerprint(found) == fingerprint(synthetic_science({}))
    assert found["lm"] == {"revision": None, "hook_name": None, "d_in": 16, "dtype": None}
    assert run_id(found).startswith("synthetic-topk-n1024-k16-")


@pytest.mark.parametrize(("key", "value"), [("n_features", 0), ("mean_l0", 0), ("max_rate", 1.0), ("noise", -1), ("n_tokens", 0),
                                            ("mean_l0", 60.0), ("magnitude_low", 2.0), ("manifold_fraction", 1.5),
                                            ("manifold_dim", 1)])
def test_a_synthetic_setting_out_of_range_is_refused_by_name(key, value):
    assert f"activations.{key}={value}" in refused({"activations": {**DRAWN, key: value}})


@pytest.mark.parametrize(("changes", "words"), [({"manifold_fraction": 0.5, "manifold_dim": 17}, "manifold_dim=17"),
                                                ({"one_at_a_time": True, "mean_l0": 2.0}, "mean_l0=1"),
                                                ({"one_at_a_time": True, "hierarchy_roots": 4}, "hierarchy_roots=0")])
def test_synthetic_settings_that_do_not_go_together_are_refused(changes, words):
    assert words in refused({"activations": DRAWN | changes})


def test_synthetic_settings_are_refused_where_they_mean_nothing_and_asked_for_where_they_are_missing():
    assert "only activations=synthetic reads it" in refused({"activations": {"source": "live", "noise": 0.1}})
    assert "activations.noise is missing" in refused({"activations": {k: v for k, v in DRAWN.items() if k != "noise"}})
    assert "cache, live, synthetic" in refused({"activations.source": "disk"})


def test_the_two_lists_above_name_every_setting():
    leaves = {f"{g}.{f.name}" for g, kind in conf.Config.__annotations__.items()
              if dataclasses.is_dataclass(t := getattr(conf, kind, None)) for f in dataclasses.fields(t)}
    elsewhere = {"lm.hook_name", "sae.kind", "sae.sparsity_coeff", "train.lr_reference_latents", "train.lr_power", "budget.flops",
                 "track.kind", "track.project", "track.entity", "train.sparsity_warmup_tokens",
                 "sae.target_l0", "sae.bandwidth", "sae.warmup", "data.oversample", "data.oversample_factor",
                 "cluster.rules", "cluster.job", "cluster.slurm"} | {f"activations.{k}" for k in SYNTHETIC}
    assert leaves == {k for k in SCIENCE_KEYS | EXECUTION_KEYS if "." in k} | elsewhere


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    assert "sae.n_latnts is not a known setting. Did you mean sae.n_latents?" in refused({"sae.n_latnts": 3})
    assert "did you mean" not in refused({"qqq": 3}).lower()


def test_a_missing_key_is_refused_by_name():
    tree = copy.deepcopy(GIVEN)
    del tree["train"]["lr"]
    with pytest.raises(ValueError, match=r"train\.lr is missing"):
        conf.from_mapping(tree)


@pytest.mark.parametrize(("key", "value", "said"), [
    ("sae.n_latents", "many", "a whole number"), ("sae.n_latents", 3.5, "a whole number"),
    ("sae.n_latents", None, "a whole number"),
    ("seed", True, "a whole number"), ("train.lr", "fast", "a number"), ("train.lr", False, "a number"), ("lm.dtype", 16, "text"),
    ("sae.k", [1], "a whole number or null"), ("sae", 3, "not a group of settings")])
def test_a_wrong_type_is_refused_with_the_right_one(key, value, said):
    text = refused({key: value})
    assert key in text and said in text


def test_a_whole_float_is_a_whole_number():
    assert conf.from_mapping(put({"train.n_tokens": 1.024e4})).train.n_tokens == 10240


@pytest.mark.parametrize(("key", "value"), [
    ("sae.n_latents", 0), ("train.batch_tokens", 0), ("data.n_ctx", 1), ("train.lr", 0.0), ("train.lr", -1.0), ("train.eps", 0),
    ("train.beta1", 1.0), ("train.lr_decay_fraction", 1.0), ("data.held_out_fraction", -0.1), ("seed", -1), ("seed", 2**63),
    ("cluster.workers", 0), ("cluster.ranks", 0), ("cluster.shard_above_gb", -1.0), ("train.n_tokens", 0),
    ("cluster.rank_timeout_s", 0), ("train.lr_reference_latents", 0), ("train.lr_reference_latents", -4),
    ("train.dead_after_tokens", 0), ("data.max_train_tokens", 0), ("sae.k_aux", 0), ("sae.k_aux", 1025),
    ("sae.k", 0), ("sae.k", None)])
def test_a_value_out_of_range_is_refused_by_name(key, value):
    assert re.match(rf"{re.escape(key)}={re.escape(str(value))}\b", refused({key: value}))


def test_a_negative_budget_is_refused():
    assert refused({"train.n_tokens": None, "budget.flops": -1e9}).startswith("budget.flops=-1000000000.0 is out of range")


@pytest.mark.parametrize(("key", "value", "choice"), [
    ("sae.kind", "grated", "batchtopk, gated, jumprelu"),
    ("data.activation_dtype", "int8", "bfloat16"), ("lm.dtype", "float8", "float32"), ("lm.attention", "flash", "eager, sdpa"),
    ("data.packing", "glue", "cut, pack_eos, pack_bos, pack_bare"),
    ("cluster.kind", "pbs", "inprocess, local, slurm"),
    ("cluster.kernels", "abacus", "auto, cpu, numba"), ("lm.hook_name", "blocks.1.nope", "hook_resid_post"),
    ("lm.hook_name", "blocks.3.ln1_hook_resid_post", "hook_resid_post"), ("lm.hook_name", "blocks.x.hook_mlp_out", "a number"),
    ("lm.hook_name", "blocks.01.hook_mlp_out", "a number from 0")])
def test_an_unknown_choice_is_refused_with_the_known_ones(key, value, choice):
    assert choice in refused({key: value})


def test_more_ranks_than_latents_are_refused():
    assert refused({"cluster.ranks": 1025}).startswith("cluster.ranks=1025 exceeds sae.n_latents. Choose cluster.ranks <= 1024")


def test_microbatches_are_no_setting_since_some_kinds_select_over_the_batch():
    assert refused({"train.microbatch_tokens": 64}).startswith("train.microbatch_tokens is not a known setting.")


def test_k_above_n_latents_is_refused_with_what_k_means():
    assert refused({"sae.k": 1025}) == ("sae.k=1025 exceeds sae.n_latents=1024: k counts the latents kept per token. "
                                        "Choose k <= 1024.")
    assert conf.from_mapping(put({"sae.k": 1024})).sae.k == 1024


RELU = {"sae.kind": "relu_l1", "sae.k": None, "sae.sparsity_coeff": 5.0, "sae.aux_coeff": 0.0}
JUMP = {**RELU, "sae.kind": "jumprelu"}


@pytest.mark.parametrize("changes", [
    {**RELU, "sae.k": 16}, {"sae.sparsity_coeff": 5.0}, {"sae.target_l0": 16}, {"sae.bandwidth": 1.0}, {**RELU, "sae.k_aux": 8},
    {**RELU, "sae.bandwidth": 1.0}, {**RELU, "sae.aux_coeff": 0.5}, {**JUMP, "sae.aux_coeff": 0.5}, {"sae.warmup": "horizon"},
    {"sae.kind": "matryoshka", "sae.target_l0": 16}, {**JUMP, "sae.kind": "gated", "sae.bandwidth": 0.1}])
def test_a_sparsity_setting_the_kind_does_not_read_is_refused(changes):
    assert "is of no use to" in refused(changes)


@pytest.mark.parametrize(("changes", "sentence"), [
    ({**RELU, "sae.target_l0": 512}, "target_l0=512.0 is out of range: it counts active latents per token of sae.n_latents"),
    ({**RELU, "sae.target_l0": 0}, "Choose it above 0 and below 512, or null"),
    ({**RELU, "sae.sparsity_coeff": 0.0, "sae.target_l0": 16}, "sae.sparsity_coeff=0 cannot be solved for sae.target_l0"),
    ({**JUMP, "sae.bandwidth": 0.0}, "sae.bandwidth=0.0 is out of range"),
    ({**RELU, "sae.sparsity_coeff": None}, "sae=relu_l1 needs a coefficient of 0 or more"),
    ({"sae.kind": "matryoshka", "sae.n_latents": 31}, "sae.n_latents=31 is too few for sae=matryoshka: choose at least 32"),
    ({"sae.kind": "batchtopk", "sae.k": 1025}, "sae.k=1025 exceeds sae.n_latents=1024"),
    ({"sae.kind": "batchtopk", "sae.k": None}, "sae=batchtopk keeps k latents per token"),
    ({**RELU, "sae.warmup": "whole"}, "sae.warmup='whole' is not known. Choose one of: tokens, horizon")])
def test_a_setting_of_a_kind_out_of_range_is_refused_in_one_sentence(changes, sentence):
    assert sentence in refused(changes)


def test_what_a_kind_solves_for_and_its_bandwidth_are_part_of_who_it_is():
    found = science(JUMP)["sae"]
    assert (found["bandwidth"], found["k_aux"], found["target_l0"]) == (pytest.approx(1e-3 * 128**0.5, rel=1e-5), None, None)
    assert "warmup" not in found
    others = [JUMP, {**JUMP, "sae.target_l0": 16}, {**JUMP, "sae.target_l0": 32}, {**JUMP, "sae.bandwidth": 0.5}]
    assert len({fingerprint(science(c)) for c in others}) == 4
    assert "-jumprelu-n1024-t16-" in run_id(science(others[1]))
    assert science({**JUMP, "sae.kind": "jumprelu_tanh"})["sae"]["bandwidth"] == 2.0


def test_a_sparsity_ramp_over_the_horizon_makes_the_horizon_part_of_the_trunk():
    def ids(changes):
        ramp = {**RELU, "train.sparsity_warmup_tokens": 512, **changes}
        return [trunk_id(science({**ramp, "train.n_tokens": n})) for n in (5120, 10240)]

    assert len(set(ids({}))) == 1
    assert len(set(ids({"sae.warmup": "horizon"}))) == 2
    assert science({**RELU, "sae.warmup": "horizon"})["train"]["sparsity_warmup_tokens"] == 10240


def test_two_horizons_are_refused():
    assert "two horizons given: train.n_tokens=10240 and budget.flops=1e+09" in refused({"budget.flops": 1e9})


def test_no_horizon_is_refused():
    assert "no horizon given" in refused({"train.n_tokens": None})


def test_tokens_are_solved_from_the_budget_to_whole_steps():
    c = conf.from_mapping(put({"train.n_tokens": None, "budget.flops": 12 * 128 * 1024 * 256 * 40.4}))
    assert sci.horizon_tokens(c, 128) == 40 * 256


def test_a_budget_below_half_a_step_is_too_short():
    c = conf.from_mapping(put({"train.n_tokens": None, "budget.flops": 12 * 128 * 1024 * 256 * 0.49}))
    with pytest.raises(sci.TooShort, match="less than one step"):
        sci.horizon_tokens(c, 128)


def test_the_learning_rate_falls_with_the_root_of_the_size():
    c = conf.from_mapping(put({"train.lr_reference_latents": 4096}))
    assert sci.learning_rate(c) == pytest.approx(5e-3 * 2)


@pytest.mark.parametrize(("d_in", "expected"), [(128, 64), (64, 32), (100, 64), (768, 512), (1000, 512), (4096, 1024)])
def test_k_aux_is_the_power_of_two_nearest_half_the_width(d_in, expected):
    assert sci.k_aux(conf.from_mapping(GIVEN), d_in) == expected  # 1024: capped by n_latents


def test_dead_after_is_a_hundred_times_the_mean_gap_between_firings():
    assert sci.dead_after_tokens(conf.from_mapping(GIVEN)) == 100 * 1024 // 16
    assert sci.dead_after_tokens(conf.from_mapping(put({"sae.n_latents": 10**8}))) == 10_000_000


def test_the_sparsity_warm_up_is_part_of_relu_l1_and_not_of_topk():
    relu = RELU
    warm = {"train.sparsity_warmup_tokens": 256}
    assert fingerprint(science({**relu, **warm})) != fingerprint(science(relu))
    assert fingerprint(science(warm)) == fingerprint(science({}))
