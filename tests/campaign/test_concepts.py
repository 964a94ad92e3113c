import dataclasses

import pytest

from saescale.campaign.concepts import refuse_mixed, warnings
from saescale.campaign.plan import make_plan
from saescale.campaign.sweep import load
from saescale.records import concepts
from saescale.records.store import Store

NAMED = """\
question: Which names of Python have a latent?
base: [lm=bundled, data=text_files, sae=topk, train=small, cluster=inprocess]
set: {data.path: {documents}, data.max_train_tokens: 60_000, data.batch_sequences: 8, data.n_ctx: 64, data.held_out_fraction: 0.1,
      train.lr_warmup_tokens: 512, eval.n_tokens: 2048, eval.ce_tokens: 512, budget.min_steps: 10, sae.k: 4}
grids:
  sizes: {sae.n_latents: [64, 512], train.n_tokens: 8192}
concepts: {grid: sizes, inventories: [python.functions, python.exceptions, words], scoring_tokens: 40000}
"""


def test_a_sweep_is_scored_with_its_controls_fitted_and_not_scored_twice(project, saescale):
    project.sweep("named", NAMED)
    assert saescale("launch", "named")[0] == 0
    code, out, err = saescale("concepts", "named")
    assert code == 0, err
    assert "concepts in" in out and "permuted" in out and "next: saescale figures named" in out
    record = concepts.read(project.store / "named")
    table = record.table
    assert set(table["dictionary"]) == set(concepts.DICTIONARIES)
    assert table.groupby("dictionary").size().nunique() == 2  # neurons once, the others at both sizes
    assert set(table["category"]) == {"functions", "exceptions", "words"}
    assert record.about["corpus"]["name"] == "text_files" and len(record.about["corpus"]["sha256"]) == 64
    assert table["space_frequency"].isna().all()
    scored = table[table["score"].notna()]
    assert len(scored) and scored["score"].between(0, 1).all() and (scored["count"] >= 20).all()
    assert scored.loc[scored["dictionary"] != "neurons", "prompt_hit"].notna().all()
    assert not list(project.store.glob("jobs/*/places.bin"))
    best = record.best_latents(table.loc[table["dictionary"] == "trained", "run_id"].iloc[0])
    assert (best["score"].dropna().diff().dropna() <= 0).all()
    before = (project.store / "named" / concepts.TABLE).read_bytes()
    jobs = {p: p.stat().st_mtime_ns for p in project.store.glob("jobs/concepts-*/concepts.parquet")}
    assert saescale("concepts", "named")[0] == 0
    assert (project.store / "named" / concepts.TABLE).read_bytes() == before
    assert jobs == {p: p.stat().st_mtime_ns for p in project.store.glob("jobs/concepts-*/concepts.parquet")}


def test_an_inventory_that_is_not_there_is_refused_before_anything_is_scored(project, saescale):
    project.sweep("named", NAMED.replace("python.functions", "pythom"))
    code, _, err = saescale("concepts", "named")
    assert code == 2 and "there is no inventory 'pythom'. Choose from: english, python, stories, words" in err


def test_dictionaries_of_different_corpora_or_hooks_are_not_scored_together(project):
    project.sweep("named", NAMED.replace("data.batch_sequences: 8", "lm.hook_name: blocks.1.hook_resid_post"))
    runs = make_plan(load("named"), Store(project.store)).runs
    refuse_mixed(runs)
    other = dict(runs[1].science["data"]) | {"corpus_sha256": "0" * 64}
    with pytest.raises(ValueError, match="differ in data.corpus_sha256 .* Score one at a time"):
        refuse_mixed([runs[0], dataclasses.replace(runs[1], science={**runs[1].science, "data": other})])
    lm = dict(runs[1].science["lm"]) | {"hook_name": "blocks.2.hook_resid_post"}
    with pytest.raises(ValueError, match="differ in lm.hook_name"):
        refuse_mixed([runs[0], dataclasses.replace(runs[1], science={**runs[1].science, "lm": lm})])


def test_one_size_few_counts_and_names_left_out_are_said():
    about = {"definition": {"min_per_half": 10}, "dictionaries": [{"dictionary": "trained", "n_latents": 64}],
             "categories": {"animals": {"n_names": 9, "n_asked": 5, "n_scored": 3}},
             "left_out": [{"category": "animals", "concept": c, "reason": "never occurs"} for c in ("emu", "elk", "eel", "ox")]}
    one_size, left_out, few, too_few = warnings(about)
    assert one_size.startswith("all dictionaries have 64 latents")
    assert left_out == "4 of 9 animals left out (emu, elk, eel and 1 more): each never occurs."
    assert few == "2 of 9 animals have no score: less than 10 occurrences in a half of the documents."
    assert too_few.startswith("only 3 concepts could be scored")
