"""Harvests: several hooks of one forward, what is missing, the disk limit, and the verb."""

import json

import pytest

from saescale.activations import cache, shards
from saescale.activations.folder import BUNDLED
from saescale.campaign import harvest, lm_cost, memory
from saescale.campaign.plan import make_plan
from saescale.campaign.sweep import load
from saescale.records.store import Store, read_json

HOOKS = "lm.hook_name=blocks.0.hook_resid_post,blocks.2.hook_mlp_out,blocks.1.hook_attn_out"
SMALL = ("seed=0", "budget.flops=4e8", "data.max_train_tokens=12_000")


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    for module in (shards, cache):
        monkeypatch.setattr(module, "SHARD_BATCHES", 6)


def shard_files(root):
    """What every cache holds, by its hook."""
    return {read_json(f / "spec.json")["lm"]["hook_name"]: {p.name: p.read_bytes() for p in sorted(f.glob("*.bin"))}
            for f in (root / "activations").iterdir()}


def test_one_forward_fills_the_caches_of_several_hooks_with_the_bytes_of_a_harvest_each(project, saescale, monkeypatch):
    forwards = []
    at = cache.LiveSource.stored_at
    monkeypatch.setattr(cache.LiveSource, "stored_at", lambda self, i, names: forwards.append(list(names)) or at(self, i, names))
    code, out, err = saescale("harvest", "tiny", HOOKS, *SMALL)
    assert code == 0, err
    assert "at 3 hooks in one forward" in out and "GB of memory in each process" in out
    together = shard_files(project.store)
    assert len(together) == 3 and all(set(f) == {"blocks.0.hook_resid_post", "blocks.2.hook_mlp_out", "blocks.1.hook_attn_out"}
                                      for f in forwards)
    n_together = len(forwards)
    for hook in together:
        code, _, err = saescale("harvest", "tiny", f"lm.hook_name={hook}", *SMALL, "--store", project.root / "alone")
        assert code == 0, err
    assert shard_files(project.root / "alone") == together
    assert len(forwards) == 4 * n_together
    code, out, _ = saescale("harvest", "tiny", HOOKS, *SMALL)
    assert code == 0 and "0 shards are missing" in out and len(forwards) == 4 * n_together


def test_a_star_stands_for_every_layer(project):
    plan = make_plan(load("tiny", ["lm.hook_name=blocks.*.hook_mlp_out", *SMALL]), Store(project.store))
    assert {r.science["lm"]["hook_name"] for r in plan.runs} == {f"blocks.{i}.hook_mlp_out" for i in range(4)}
    assert len(plan.runs) == 4
    assert len({r.execution["cache_key"] for r in plan.runs}) == 4
    found, = harvest.lacking(plan.runs, Store(project.store))
    assert set(found.hooks) == {f"blocks.{i}.hook_mlp_out" for i in range(4)}


def test_a_hook_added_later_is_harvested_alone_and_the_others_are_left(project, saescale, monkeypatch):
    saescale("harvest", "tiny", "lm.hook_name=blocks.0.hook_resid_post", *SMALL)
    asked = []
    at = cache.LiveSource.stored_at
    monkeypatch.setattr(cache.LiveSource, "stored_at", lambda self, i, names: asked.append(list(names)) or at(self, i, names))
    code, _, err = saescale("harvest", "tiny", "lm.hook_name=blocks.0.hook_resid_post,blocks.1.hook_resid_post", *SMALL)
    assert code == 0, err
    assert asked and all(names == ["blocks.1.hook_resid_post"] for names in asked)
    assert len(shard_files(project.store)) == 2


def test_a_disk_limit_stops_the_harvest_with_whole_shards_and_more_room_goes_on(project, saescale):
    code, out, err = saescale("harvest", "tiny", *SMALL, "--max-disk-gb", "0.0005")
    assert code == 3 and "GB of activations, its limit being 0.0005 GB" in err and "next: saescale harvest" in out
    some = shard_files(project.store)
    code, out, _ = saescale("harvest", "tiny", *SMALL)
    assert code == 0 and "next: saescale launch" in out
    whole = shard_files(project.store)
    for hook, files in some.items():
        assert files.items() < whole[hook].items()


def test_gc_leaves_what_was_harvested_for_a_plan_until_its_runs_are_recorded(project, saescale):
    saescale("harvest", "tiny", *SMALL)
    code, out, _ = saescale("gc", "--json")
    assert code == 0 and json.loads(out) == []
    next(project.store.glob("tiny+*/plan.json")).unlink()
    assert {f["kind"] for f in json.loads(saescale("gc", "--json")[1])} == {"activations", "corpora"}


def test_the_verb_says_in_json_what_is_missing(project, saescale):
    saescale("harvest", "tiny", *SMALL, "--max-disk-gb", "0.0005")
    code, out, _ = saescale("harvest", "tiny", *SMALL, "--max-disk-gb", "0.0005", "--json")
    said = json.loads(out)
    assert code == 3 == said["exit_code"] and not said["full"] and said["caches"][0]["missing_shards"] > 0
    assert list((project.store / "activations").iterdir())


def test_what_is_not_kept_on_disk_cannot_be_harvested_and_no_room_is_no_limit(project, saescale):  # noqa: ARG001
    code, _, err = saescale("harvest", "tiny", "activations=live", *SMALL)
    assert code == 2 and "nothing to harvest" in err
    code, _, err = saescale("harvest", "tiny", "--max-disk-gb", "0")
    assert code == 2 and "above 0" in err


def test_a_cache_that_was_harvested_with_another_tokenizer_is_refused(project, saescale):
    saescale("harvest", "tiny", *SMALL)
    spec, = (project.store / "activations").glob("*/spec.json")
    said = read_json(spec)
    said["data"]["tokenizer_sha256"] = "0" * 64
    spec.write_text(json.dumps(said))
    (next(spec.parent.glob("train-*.bin"))).unlink()
    code, _, err = saescale("harvest", "tiny", *SMALL)
    assert code == 3 and "was harvested with another tokenizer" in err and "Move it away" in err


def run_of(project, *overrides, flops="4e8"):
    return make_plan(load("tiny", ["seed=0", f"budget.flops={flops}", *overrides]), Store(project.store)).runs[0]


def test_a_harvest_that_does_not_fit_into_memory_is_refused_with_what_it_needs(project, saescale):
    code, _, err = saescale("harvest", "tiny", *SMALL, "cluster=local", "cluster.memory_gb=0.9")
    needed = lm_cost.harvest_bytes(run_of(project, "data.max_train_tokens=12_000")) / 1e9
    assert code == 2 and f"needs about {needed:.1f} GB of memory in each of 2 processes" in err and "lm.dtype=bfloat16" in err
    assert not list(project.store.glob("activations/*/*.bin"))


@pytest.fixture
def large(tmp_path):
    """The folder of a model with the shape of Llama 3.1 8B and no weights."""
    folder = tmp_path / "large"
    folder.mkdir()
    llama_8b = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
                "num_key_value_heads": 8, "num_hidden_layers": 32, "vocab_size": 128256, "max_position_embeddings": 131072,
                "tie_word_embeddings": False, "bos_token_id": 0}
    (folder / "config.json").write_text(json.dumps(llama_8b))
    (folder / "tokenizer.json").write_bytes((BUNDLED / "tokenizer.json").read_bytes())
    (folder / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")  # a header that names no tensor
    return folder


def test_the_memory_of_a_large_model_is_known_from_its_config_alone(project, large):
    run = run_of(project, f"lm={large}", "lm.dtype=bfloat16", flops="3e9")
    assert lm_cost.n_parameters(lm_cost.folder_of(run.execution)) == 8_030_261_248
    assert 16.06e9 < lm_cost.harvest_bytes(run) < 19e9
    with pytest.raises(ValueError, match=r"needs about 1\d\.\d GB.*8\.03G parameters in bfloat16.*4\.0 GB are there"):
        lm_cost.refuse_too_large(run, 1, 4e9)
    assert memory.lm_bytes(str(large), 256, "bfloat16") > 16e9


TOO_LARGE = ("seed=0", "budget.flops=3e9", "cluster=local", "cluster.memory_gb=12")


@pytest.mark.parametrize("source, what", [("cache", "the harvest of"), ("live", "training with")])
def test_a_launch_refuses_a_model_that_does_not_fit_before_it_claims_or_writes_anything(project, large, saescale, source, what):
    code, out, err = saescale("launch", "tiny", f"lm={large}", f"activations={source}", *TOO_LARGE)
    assert code == 2 and err.startswith(f"saescale: {what}") and err.count("\n") == 1, err
    assert "(8.03G parameters in float32) and 12.0 GB are there" in err and "lm.dtype=bfloat16" in err
    assert not out and not list(project.store.glob("by-id/*")) and not list(project.store.glob("jobs/*"))


def test_a_plan_says_that_a_launch_will_refuse_a_model_that_does_not_fit(project, large, saescale):  # noqa: ARG001
    code, out, _ = saescale("plan", "tiny", f"lm={large}", *TOO_LARGE)
    assert code == 0 and "launch will refuse: the harvest of" in out
    assert json.loads(saescale("plan", "tiny", f"lm={large}", *TOO_LARGE, "--json")[1])["refused"].startswith("the harvest of")
    assert "refuse" not in saescale("plan", "tiny", "seed=0")[1]
    assert json.loads(saescale("plan", "tiny", "seed=0", "--json")[1])["refused"] is None


@pytest.mark.parametrize("verb", [("launch", "--dry-run"), ("harvest",)])
def test_a_model_larger_than_what_a_job_of_slurm_asks_for_is_refused(project, large, saescale, verb):  # noqa: ARG001
    on_slurm = ("seed=0", "budget.flops=3e9", "cluster=slurm", "cluster.job.memory=4G", "cluster.job.gpus=0")
    code, _, err = saescale(verb[0], "tiny", f"lm={large}", *on_slurm, *verb[1:])
    assert code == 2 and "the harvest of" in err and "its job asks for 4G. Use more cluster.job.memory" in err, err
