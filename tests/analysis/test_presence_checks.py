"""What stands beside the law of presence: controls, categories, other definitions, saturation, alive against all latents."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis.logistic import fit_lapsed, fit_logistic, score_test
from analysis.presence import fit_joint, fit_presence, resamples
from analysis.presence_checks import categories, joint_by_sandwich
from analysis.presence_data import prepare

SIZES = (256, 512, 1024, 2048)


def frame(q=1.0, untrained=2.0, categories=(("a", 0.0), ("b", 0.0)), each=150, seed=0, kinds=("trained", "untrained"), **how):
    """Rows of concepts.parquet: presence from sigmoid(1.8 (ln f - ln f50)), f50 = .5 / 1024 (alive / 1024)^-q e^shift, where
    untrained dictionaries and categories shift f50; `easy` is the spread of what makes a concept easy in every dictionary."""
    rng = np.random.default_rng(seed)
    rows = []
    for category, shift in categories:
        for i in range(each):
            f, easy = np.exp(rng.uniform(-9.6, -4.4)), rng.normal() * how.get("easy", 0.0)
            fact = {"category": category, "concept": f"{category}{i}", "count": round(f * 4e6), "frequency": f,
                    "ambiguous": i % 10 == 0, "space_frequency": f / 2}  # fmt: skip
            for kind in kinds:
                for n in SIZES:
                    alive = n ** how.get("alive", 1.0)
                    own = shift + (untrained if kind == "untrained" else 0.0)
                    logit = 1.8 * (np.log(f * 1024 / 0.5) + q * np.log(alive / 1024) - own) + easy
                    present = rng.random() < (1 - how.get("lapse", 0.0)) / (1 + np.exp(-logit))
                    rows.append(fact | {"run_id": f"r{n}", "dictionary": kind, "n_latents": n, "n_alive": alive, "seed": 0,
                                        "score": 0.6 if present else 0.1, "f1_natural": 0.6 if present else 0.1,
                                        "prompt_hit": bool(present)})  # fmt: skip
    return pd.DataFrame(rows)


def joint_of(rows, draws=2):
    scored = prepare(rows)
    return fit_joint(scored.observe(0.5, "trained"), resamples(len(scored.concepts), draws, 0))


def test_a_category_that_needs_twice_the_frequency_is_found_and_equal_ones_are_not():
    apart = fit_presence(frame(categories=(("a", 0.0), ("b", np.log(4))), each=250, seed=1), draws=100)["categories"]
    ratio = {row["category"]: row["f50_ratio"] for row in apart["rows"]}
    assert ratio["b"] / ratio["a"] == pytest.approx(4, rel=0.35) and apart["test"]["p"] < 0.001
    low, high = next(row for row in apart["rows"] if row["category"] == "b")["f50_ratio_interval"]
    assert low < 2 < high
    same = [prepare(frame(seed=s, easy=2.0, kinds=("trained",), each=100)) for s in range(40)]
    p = np.array([categories(scored, 0.5, resamples(200, 2, 0))["test"]["p"] for scored in same])
    assert (p < 0.05).mean() <= 0.15  # dependence inside a concept does not fool it


def test_the_collapse_test_clustered_by_concept_keeps_its_level_where_pairs_are_dependent():
    """The plain likelihood ratio takes 4 dependent pairs of a concept as independent; bent curves are found by both."""
    held = [joint_of(frame(seed=s, easy=2.0, kinds=("trained",), each=100)) for s in range(40)]
    assert np.mean([joint["collapse_clustered"]["p"] < 0.05 for joint in held]) <= 0.15
    bent = frame(kinds=("trained",), each=300)
    shuffled = bent["n_latents"] == 1024
    bent.loc[shuffled, "score"] = np.random.default_rng(0).permutation(bent.loc[shuffled, "score"])
    assert fit_presence(bent, draws=20)["joint"]["trained"]["collapse_clustered"]["p"] < 1e-4


def test_q_is_tested_against_1_with_the_right_level_and_power():
    p = np.array([joint_of(frame(seed=s, kinds=("trained",), each=100))["q_test"]["p"] for s in range(40)])
    assert (p < 0.05).mean() <= 0.15
    away = fit_presence(frame(q=1.4, each=300), draws=20)["joint"]["trained"]["q_test"]
    assert away["p"] < 0.001 and away["z"] > 0


def test_the_sandwich_interval_of_q_agrees_with_the_bootstrap_over_concepts():
    rows = frame(easy=1.0, each=200, kinds=("trained",))
    fit = joint_of(rows, draws=500)["q_interval"]
    quick = joint_by_sandwich(prepare(rows).observe(0.5, "trained"))
    assert np.diff(quick["q_interval"])[0] == pytest.approx(np.diff(fit)[0], rel=0.15)


def test_training_is_told_from_no_training_by_the_gap_not_by_the_shift():
    fit = fit_presence(frame(untrained=2.0), draws=200)
    assert [row["n_latents"] for row in fit["gaps"]] == list(SIZES)
    assert all(row["gap_interval"][0] > 0.1 for row in fit["gaps"])
    same = fit_presence(frame(untrained=0.0), draws=200)
    assert same["joint"]["untrained"]["q"] == pytest.approx(1, abs=0.25)  # an untrained sigmoid that moves just as well
    assert all(low < 0 < high for low, high in (row["gap_interval"] for row in same["gaps"]))
    assert same["q_gap"]["interval"][0] < 0 < same["q_gap"]["interval"][1]


def test_alive_latents_are_preferred_to_all_latents_where_the_truth_is_alive():
    scaler = fit_presence(frame(alive=0.8, each=400, kinds=("trained",)), draws=20)["scaler"]
    assert scaler["q_total"] == pytest.approx(0.8, abs=0.1)
    assert scaler["one_curve"]["gain"] > 0 and scaler["one_curve"]["z"] > 2
    assert abs(scaler["joint"]["z"]) < 1e-3  # with a free exponent ln alive and ln total say the same here


def test_a_ceiling_below_1_is_found_and_frees_the_exponent_of_it():
    fit = fit_presence(frame(lapse=0.2, each=400, kinds=("trained",)), draws=20)["lapse"]
    assert fit["lapse_interval"][0] < 0.2 < fit["lapse_interval"][1]
    assert fit["q_interval"][0] < 1 < fit["q_interval"][1]
    few = fit_presence(frame(each=40, kinds=("trained",)), draws=20)["lapse"]
    assert few["lapse"] is None and "200 are needed" in few["reason"]


def test_the_gradient_of_the_fit_with_a_ceiling_agrees_with_differences():
    from analysis.logistic import _lapsed

    rng = np.random.default_rng(0)
    x, y, theta = rng.normal(size=(50, 3)), rng.integers(0, 2, 50).astype(float), np.array([0.2, 1.0, -0.5, 0.1])
    gradient = _lapsed(theta, x, y)[1].sum(axis=0)
    for i in range(4):
        step = np.eye(4)[i] * 1e-6
        rise = (_lapsed(theta + step, x, y)[0] - _lapsed(theta - step, x, y)[0]).sum()
        assert gradient[i] == pytest.approx(rise / 2e-6, rel=1e-5)


def test_without_dependence_the_score_test_agrees_with_the_likelihood_ratio():
    rng = np.random.default_rng(3)
    x, z = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 1))
    y = (rng.random(4000) < 1 / (1 + np.exp(-(x + 0.12 * z)[:, 0]))).astype(float)
    both = np.concatenate([x, z], axis=1)

    def likelihood(columns):
        coef = fit_logistic(columns, y, np.ones((1, 4000)))[0]
        logit = coef[0] + columns @ coef[1:]
        return (y * logit - np.logaddexp(0, logit)).sum()

    assert score_test(x, z, y, np.arange(4000)).statistic == pytest.approx(2 * (likelihood(both) - likelihood(x)), rel=0.1)
    assert fit_lapsed(x, y, np.arange(4000)).lapse < 0.05


def test_every_definition_is_a_row_beside_its_control():
    rows = fit_presence(frame(), draws=20)["sensitivity"]
    assert [row["what"].split(" at least")[0] for row in rows] == [
        "score", "score", "score", "F1 at the text's prevalence", "among the top five on a short prompt",
        "without ambiguous names", "frequency counted between two spaces", "without the smallest size",
        "without the largest size"]  # fmt: skip
    assert all(row["q_interval"][0] < row["q"] < row["q_interval"][1] for row in rows[:2])
    assert rows[2]["share"] == 0.0 and rows[2]["reason"] == "0 pairs in the rarer outcome, 10 needed"
    assert rows[5]["n_concepts"] == 270
    assert all(row["untrained_share"] < row["share"] for row in rows[3:])


def test_rare_concepts_are_left_out_by_their_count_alone_and_the_number_is_given():
    rows = frame(each=100)
    rows["count"] = (rows["frequency"] * 2e4).round()
    few = rows.loc[rows["count"] < 10, "concept"].nunique()
    fit = fit_presence(rows, draws=20)
    assert fit["excluded"]["few_counts"] == few > 10 and fit["n_concepts"] == 200 - few
    assert "presence_few_counts" in fit["warnings"]
    assert fit["f_min"] >= 9.5 / 2e4
    with pytest.raises(ValueError, match="All 200 concepts were counted fewer than 10 times"):
        fit_presence(rows.assign(count=3), draws=20)


def test_runs_of_different_corpora_are_refused():
    rows = frame(each=20)
    rows.loc[rows["n_latents"] == 256, ["count", "frequency"]] *= 2
    with pytest.raises(ValueError, match="different corpora"):
        fit_presence(rows)


def test_a_table_with_a_missing_column_a_strange_kind_or_a_repeated_pair_is_refused():
    rows = frame(each=5)
    cases = ((rows.drop(columns="score"), "no column score"), (rows.iloc[:0], "are empty"),
             (rows.assign(dictionary="frozen"), "'frozen' is no kind"), (pd.concat([rows, rows[:1]]), "two scores"))  # fmt: skip
    for broken, words in cases:
        with pytest.raises(ValueError, match=words):
            fit_presence(broken)


def test_one_size_all_present_and_none_present_are_named_not_fitted():
    rows = frame(kinds=("trained",))
    parts = (rows[rows["n_latents"] == 256], rows.assign(score=0.9), rows.assign(score=0.0))
    named = [fit_presence(part, draws=20) for part in parts]
    assert [fit["joint"]["trained"]["code"] for fit in named] == ["presence_one_size", "presence_all", "presence_none"]
    for fit in named:
        assert fit["warnings"][0] == fit["joint"]["trained"]["code"] and "presence_no_control" in fit["warnings"]
        assert fit["joint"]["trained"]["q"] is None and fit["scaler"] is None and fit["f50_law"]["g"] is None
        json.dumps(fit, allow_nan=False)
    assert named[1]["sizes"][0]["separation"] == "all_present"


def test_a_clean_step_at_every_size_gives_q_without_a_test_and_says_separated():
    rows = frame(kinds=("trained",), each=200)
    rows["score"] = np.where(rows["frequency"] * rows["n_alive"] > 0.5, 0.9, 0.1)
    fit = fit_presence(rows, draws=50)
    joint = fit["joint"]["trained"]
    assert joint["q"] == pytest.approx(1, abs=0.1) and joint["q_test"] is None and joint["code"] == "presence_separated"
    assert [row["separation"] for row in fit["sizes"]] == ["step"] * 4 and "clean step" in fit["lapse"]["reason"]
    for row in fit["sizes"]:
        assert row["f50_interval"][0] <= 0.5 / row["n_alive"] <= row["f50_interval"][1]


def test_closed_lists_say_how_much_of_them_a_dictionary_holds():
    about = {"categories": {"a": {"closed": True, "n_names": 160}}}
    complete = fit_presence(frame(), about, draws=20)["completeness"]
    assert [(row["category"], row["closed"], row["n_names"], row["n_concepts"]) for row in complete] == [
        ("a", True, 160, 150), ("b", False, None, 150)]  # fmt: skip
    shares = [row["share"] for row in complete[0]["rows"]]
    assert shares == sorted(shares) and all(row["untrained"] < row["share"] for row in complete[0]["rows"])
