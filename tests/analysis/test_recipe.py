"""Runs that differ in more than a law reads are told apart and never averaged as if they were seeds."""

import numpy as np
import pandas as pd
import pytest

from analysis.recipe import recipes
from analysis.sweep_fit import fit_sweep
from analysis.sweep_laws import sweep_laws
from analysis.sweep_points import sweep_points
from analysis.tables import build_table, read_table, write_table


def run(kind="topk", n=256, n_tokens=1024, **settings):
    """One run of a plan; `settings`, as sae_k=8 for sae.k, go into its science block."""
    science = {"lm": {"hook_name": "blocks.1.hook_resid_post"}, "data": {"n_ctx": 128, "data_seed": 0},
               "sae": {"kind": kind, "n_latents": n, "k": 16, "k_aux": min(64, n)},
               "train": {"n_tokens": n_tokens, "lr": 1e-3, "precision": "float32", "dead_after_tokens": n, "seed": 0}}
    for name, value in settings.items():
        group, _, key = name.partition("_")
        science[group][key] = value
    return {"science": science}


def test_a_plan_that_varies_what_laws_read_or_average_over_has_one_recipe():
    plan = [run(n=n, train_seed=s, train_lr=n * 1e-6, data_data_seed=s, sae_k=k, lm_hook_name=h, n_tokens=t)
            for n in (32, 256) for s in (0, 1) for k in (8, 16) for h in ("a", "b") for t in (1, 2)]
    assert set(recipes(plan)) == {""}


def test_every_other_setting_in_which_runs_of_a_kind_differ_is_named():
    plan = [run(), run(data_n_ctx=256), run(train_precision="bfloat16"), run("relu_l1", train_precision="bfloat16")]
    assert recipes(plan) == ["data.n_ctx=128 train.precision=float32", "data.n_ctx=256 train.precision=float32",
                             "data.n_ctx=128 train.precision=bfloat16", ""]


def test_a_setting_that_follows_the_size_is_told_only_where_one_size_has_two():
    assert set(recipes([run(n=32), run(n=256)])) == {""}
    assert "train.dead_after_tokens=9" in recipes([run(), run(train_dead_after_tokens=9)])[1]


@pytest.fixture(scope="module")
def two_layers(make_plan, make_table):
    """A sweep at two hooks, the second a third worse: (plan, table)."""
    plan, _ = make_plan()
    table = make_table()
    deep = table.assign(hook_name="blocks.3.hook_resid_post", objective=1.5 * table["objective"])
    for name in ("run_id", "trunk_id"):
        deep[name] += "-L3"
    return plan, pd.concat([table, deep], ignore_index=True)


def test_two_hooks_are_not_averaged_as_seeds_but_refused_with_the_override_that_picks_one(two_layers):
    _, table = two_layers
    for refused in (fit_sweep, sweep_points):
        with pytest.raises(ValueError, match="mixes hook_name blocks.1.*, blocks.3.*lm.hook_name=blocks.1.hook_resid_post") as e:
            refused(table)
        assert "\n" not in str(e.value)
    blocks = sweep_laws(table, draws=100)
    assert all("mixes hook_name" in blocks[name]["reason"] for name in ("surface", "isoflop", "allocation", "learning_rate"))
    with pytest.raises(ValueError, match="mixes hook_name"):  # without budgets, too: its concepts and figures would be pooled
        fit_sweep(table.assign(target_flops=np.nan))
    one = table[table["hook_name"] == "blocks.1.hook_resid_post"]
    assert max(p["n_seeds"] for b in fit_sweep(one, draws=100)["budgets"] for p in b["points"]) == 2


@pytest.mark.parametrize(("column", "value"), [("k", 32.0), ("batch_tokens", 512), ("recipe", "data.n_ctx=256")])
def test_points_of_a_law_in_size_and_tokens_are_of_one_recipe(make_table, column, value):
    table = make_table()
    table.loc[:4, column] = value
    with pytest.raises(ValueError, match=f"mixes {column}"):
        sweep_points(table)
    assert column != "k" or len(sweep_points(table, every_k=True)) == len(table)  # a law in k reads them


def test_a_table_says_hook_and_recipe_and_one_without_them_is_read_and_fitted_alike(make_plan, make_table, tmp_path):
    plan, _ = make_plan()
    plan["runs"][0]["science"]["data"]["n_ctx"] = 64
    plan["runs"][1]["science"]["data"]["n_ctx"] = 128
    said = build_table(plan, tmp_path)
    assert set(said["hook_name"]) == {"blocks.1.hook_resid_post"} and said["recipe"][:3].tolist() == [
        "data.n_ctx=64", "data.n_ctx=128", ""]  # fmt: skip
    table = make_table()
    older = read_table(write_table(table.drop(columns=["hook_name", "recipe"]), tmp_path / "table.csv"))
    assert "recipe" not in older and fit_sweep(older, draws=100) == fit_sweep(table, draws=100)
