import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.codes import STATUSES, WARNINGS
from analysis.summary import exponent_rows
from analysis.sweep_fit import fit_sweep


@pytest.fixture(scope="module")
def clean(make_table, sweep_of):
    df = make_table(sweep_of())
    return df, fit_sweep(df, draws=100)


def test_the_exponents_of_a_known_law_are_recovered(clean, sweep_of):
    law, laws = sweep_of().law, clean[1]["laws"]
    assert laws["n_latents"]["exponent"]["estimate"] == pytest.approx(law.p, abs=0.004)
    assert laws["n_tokens"]["exponent"]["estimate"] == pytest.approx(1 - law.p, abs=0.004)
    assert laws["loss_floor"]["exponent"]["estimate"] == pytest.approx(law.loss_exponent, abs=0.01)
    assert laws["loss_floor"]["floor"]["estimate"] == pytest.approx(law.E, abs=0.003)


def test_each_minimum_lies_near_the_true_optimum(clean, sweep_of):
    for budget in clean[1]["budgets"]:
        assert budget["status"] == "bracketed"
        assert budget["n_opt"]["estimate"] == pytest.approx(sweep_of().law.n_opt(budget["target_flops"]), rel=0.06)


def test_tokens_are_solved_from_the_size(clean):
    for budget in clean[1]["budgets"]:
        n, tokens = budget["n_opt"]["estimate"], budget["tokens_opt"]["estimate"]
        assert 12 * 64 * n * tokens == pytest.approx(budget["flops_dense"], rel=1e-9)


def test_the_lines_of_size_and_tokens_multiply_to_the_compute(clean):
    n, tokens = clean[1]["laws"]["n_latents"], clean[1]["laws"]["n_tokens"]
    assert n["x_ref"] == tokens["x_ref"]
    assert 12 * 64 * n["level"]["estimate"] * tokens["level"]["estimate"] == pytest.approx(n["x_ref"], rel=1e-9)


def test_the_sum_of_exponents_is_reported_with_tokens_fitted_apart(clean):
    total = clean[1]["exponent_sum"]
    assert total["estimate"] == pytest.approx(1, abs=1e-9)
    assert total["tokens_fitted_apart"] == pytest.approx(1, abs=1e-3)


def test_the_truth_lies_in_the_interval_for_most_noisy_sweeps(make_table, sweep_of):
    sweep, hits = sweep_of(run_sd=0.02, budgets=sweep_of().budgets[:4]), {"n_latents": 0, "loss_floor": 0}
    truth = {"n_latents": sweep.law.p, "loss_floor": sweep.law.loss_exponent}
    for random in range(20):
        laws = fit_sweep(make_table(replace(sweep, random=random)), draws=200, seed=random)["laws"]
        for name in hits:
            exponent = laws[name]["exponent"]
            hits[name] += exponent["lo"] <= truth[name] <= exponent["hi"]
    assert min(hits.values()) >= 16


def test_more_seed_noise_widens_the_interval(make_table, sweep_of):
    def width(sd):
        exponent = fit_sweep(make_table(sweep_of(run_sd=sd, random=1)), draws=200)["laws"]["n_latents"]["exponent"]
        return exponent["hi"] - exponent["lo"]

    assert width(0.03) > 1.5 * width(0.003)


def test_the_same_table_gives_the_same_fit_whatever_its_row_order(clean):
    df, fits = clean
    again = fit_sweep(df.sample(frac=1, random_state=4), draws=100)
    assert json.dumps(again, sort_keys=True) == json.dumps(fits, sort_keys=True)


def test_another_seed_moves_intervals_but_no_estimate(make_table, sweep_of):
    df = make_table(sweep_of(run_sd=0.02))
    one, two = (fit_sweep(df, draws=100, seed=seed)["laws"]["n_latents"]["exponent"] for seed in (0, 1))
    assert one["estimate"] == two["estimate"] and one["lo"] != two["lo"]


def test_fits_are_plain_json_without_nan(clean):
    assert json.loads(json.dumps(clean[1], allow_nan=False)) == clean[1]


def test_the_data_hash_follows_the_losses_and_nothing_else(clean):
    df, fits = clean
    assert fit_sweep(df.assign(wall_s=9.0), draws=100)["data_hash"] == fits["data_hash"]
    changed = df.copy()
    changed.loc[0, "objective"] *= 1.0001
    assert fit_sweep(changed, draws=100)["data_hash"] != fits["data_hash"]


def test_both_axes_are_named(clean):
    axes = clean[1]["axes"]
    assert (axes["y"], axes["x"]) == ("objective", "flops_dense")
    assert clean[1]["laws"]["loss"]["y"] == "objective"


def test_a_budget_whose_minimum_ran_out_of_the_grid_is_left_out_of_the_laws(clean):
    df, fits = clean
    cut = df[~((df["target_flops"] == 1.6e12) & (df["n_latents"] > 2048))]
    short = fit_sweep(cut, draws=100)
    last = short["budgets"][-1]
    assert last["status"] == "minimum_at_largest_size" and last["n_opt"] is None and last["best_sampled"]["n_latents"] == 2048
    assert "budgets_unbracketed" in short["warnings"]
    assert short["laws"]["n_latents"]["dof"] == fits["laws"]["n_latents"]["dof"] - 1


def test_two_bracketed_budgets_give_no_exponent_and_a_warning(make_table, sweep_of):
    fits = fit_sweep(make_table(sweep_of(budgets=(2.5e10, 1e11))), draws=100)
    assert fits["laws"]["n_latents"] is None and "fewer_than_3_bracketed" in fits["warnings"]
    assert [b["status"] for b in fits["budgets"]] == ["bracketed"] * 2
    assert all(row[1] is None and "needed" in row[4] for row in exponent_rows(fits))


def test_a_sweep_without_results_has_budgets_and_no_numbers(make_plan, tmp_path):
    from analysis.tables import build_table

    fits = fit_sweep(build_table(make_plan()[0], tmp_path), draws=100)
    assert "no_finished_runs" in fits["warnings"] and {b["status"] for b in fits["budgets"]} == {"no_results"}
    json.dumps(fits, allow_nan=False)


def test_a_floor_under_two_decades_of_compute_is_flagged(make_table, sweep_of):
    narrow = fit_sweep(make_table(sweep_of(budgets=tuple(np.geomspace(1e10, 9e11, 5)))), draws=100)
    wide = fit_sweep(make_table(sweep_of(budgets=tuple(np.geomspace(1e10, 1.1e12, 5)))), draws=100)
    assert "floor_unidentified" in narrow["warnings"] and narrow["laws"]["loss_floor"]["identified"] is False
    assert "floor_unidentified" not in wide["warnings"] and wide["laws"]["loss_floor"]["identified"] is True


def test_three_budgets_give_exponents_but_no_floor_and_no_hold_out(make_table, sweep_of):
    fits = fit_sweep(make_table(sweep_of(budgets=(6.25e9, 2.5e10, 1e11))), draws=100)
    assert fits["laws"]["n_latents"]["dof"] == 1
    assert fits["laws"]["loss_floor"] is None and fits["hold_out"] is None
    assert {"floor_needs_4_budgets", "holdout_not_possible"} <= set(fits["warnings"])


def test_the_largest_budget_is_predicted_from_the_others(clean):
    df, fits = clean
    less = fit_sweep(df[df["target_flops"] < 1e12], draws=100)["laws"]
    hold = fits["hold_out"]
    for name, sign in (("n_latents", 1), ("loss", -1)):
        law = less[name]
        line = law["level"]["estimate"] * (1.6e12 / law["x_ref"]) ** (sign * law["exponent"]["estimate"])
        assert hold[name]["predicted"] == pytest.approx(line, rel=1e-6)
        assert hold[name]["error_percent"] == pytest.approx(100 * (line / hold[name]["seen"] - 1), abs=1e-3)


def test_failed_missing_and_damaged_rows_are_left_out_and_counted(clean):
    df = clean[0].copy()
    df.loc[:2, "state"] = ["missing", "failed", "damaged"]
    fits = fit_sweep(df, draws=100)
    assert fits["rows"] == {"in_table": len(df), "planned": len(df), "done": len(df) - 3, "used": len(df) - 3}
    assert {"runs_missing", "runs_failed", "runs_damaged"} <= set(fits["warnings"])
    assert "cells_missing" in fits["budgets"][0]["warnings"]


def test_runs_without_a_budget_are_not_fitted(clean):
    df, fits = clean
    loose = df.iloc[:3].assign(target_flops=math.nan, run_id=["a", "b", "c"], objective=1e-9, grids="concepts")
    again = fit_sweep(pd.concat([df, loose]), draws=100)
    assert again["laws"] == fits["laws"] and again["rows"]["planned"] == len(df)


def test_one_seed_gives_no_interval_for_a_budget_and_says_so(make_table, sweep_of):
    fits = fit_sweep(make_table(sweep_of(seeds=1, run_sd=0.01)), draws=200)
    assert "single_seed" in fits["warnings"] and fits["bootstrap"]["seed_sd_ln_y"] is None
    assert fits["budgets"][0]["n_opt"]["lo"] is None
    assert fits["laws"]["n_latents"]["exponent"]["lo"] < fits["laws"]["n_latents"]["exponent"]["hi"]


def test_a_table_of_two_recipes_is_refused_by_name(clean):
    df = clean[0].copy()
    df.loc[:4, "k"] = 32.0
    with pytest.raises(ValueError, match="mixes k 16, 32"):
        fit_sweep(df)


def test_an_unknown_loss_is_refused_with_the_choices(clean):
    with pytest.raises(ValueError, match="choose one of objective, fvu, delta_ce"):
        fit_sweep(clean[0], y="perplexity")


def test_the_best_learning_rate_of_a_cell_is_used_and_said(clean):
    df, fits = clean
    worse = df[df["n_latents"] == 512].assign(lr=1e-5, objective=df["objective"] * 2)
    worse["run_id"] += "-slow"
    again = fit_sweep(pd.concat([df, worse], ignore_index=True), draws=100)
    assert again["laws"]["n_latents"]["exponent"]["estimate"] == fits["laws"]["n_latents"]["exponent"]["estimate"]
    assert "best_lr_per_cell" in again["warnings"] and again["rows"]["used"] == len(df)


def test_a_valley_no_deeper_than_its_noise_is_flagged(make_table, sweep_of):
    df = make_table(sweep_of(budgets=(1e11,), sizes=(512, 724, 1024)))
    rng = np.random.default_rng(0)
    df["objective"] = df["n_latents"].map({512: 0.101, 724: 0.1, 1024: 0.101}) * np.exp(rng.normal(0, 0.05, len(df)))
    df.loc[df["n_latents"] == 724, "objective"] *= 0.95
    assert "shallow_valley" in fit_sweep(df, draws=100)["budgets"][0]["warnings"]


def test_a_badly_trained_size_inside_the_valley_is_flagged(clean):
    df = clean[0].copy()
    df.loc[(df["target_flops"] == 1e11) & (df["n_latents"] == 256), "objective"] *= 3
    assert "several_minima" in fit_sweep(df, draws=100)["budgets"][2]["warnings"]


def test_the_fit_of_relu_l1_with_varying_l0_is_flagged(clean):
    df = clean[0].assign(kind="relu_l1", k=math.nan, sparsity_coeff=5.0, l0=clean[0]["n_latents"] / 10.0)
    fits = fit_sweep(df, draws=100)
    assert "l0_varies" in fits["warnings"] and fits["recipe"]["k"] is None


def test_every_code_has_its_words(clean, make_table, sweep_of):
    noisy = fit_sweep(make_table(sweep_of(run_sd=0.2, budgets=(2.5e10, 1e11, 4e11))), draws=100)
    for fits in (clean[1], noisy):
        assert set(fits["warnings"]) <= WARNINGS.keys()
        assert {b["status"] for b in fits["budgets"]} <= STATUSES.keys()
        assert {code for b in fits["budgets"] for code in b["warnings"]} <= WARNINGS.keys()


def test_the_summary_has_each_exponent_with_its_interval(clean):
    rows = {name: (estimate, low, high) for name, estimate, low, high, _ in exponent_rows(clean[1])}
    exponent = clean[1]["laws"]["n_latents"]["exponent"]
    assert rows["optimal size n* ~ C^p: p"] == (exponent["estimate"], exponent["lo"], exponent["hi"])
    assert len(rows) == 5
