import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis import allocation, estimators, fit, isocost, isoflop, points, predict
from analysis.compute import Cost

TRUE = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
SHARE = 0.28 / 0.62


def table(sd=0.002, seed=0, sizes=9):
    """Seven budgets around the optima of a known surface."""
    rng, rows = np.random.default_rng(seed), []
    for c in 10.0 ** np.arange(17, 20.1, 0.5):
        best = best_size(c)
        for n in best * np.geomspace(1 / 5, 5, sizes):
            loss = TRUE["E"] + TRUE["A"] * n ** -TRUE["alpha"] + TRUE["B"] * (c / 6 / n) ** -TRUE["beta"]
            rows.append((n, c / 6 / n, c, loss * math.exp(rng.normal(0, sd))))
    return pd.DataFrame(rows, columns=["N", "D", "C", "loss"])


def best_size(c):
    a, b = TRUE["alpha"], TRUE["beta"]
    return (a * TRUE["A"] / (b * TRUE["B"])) ** (1 / (a + b)) * (c / 6) ** (b / (a + b))


@pytest.fixture(scope="module")
def found():
    return allocation(table(seed=1), flops=1e21, draws=300)


def test_three_estimates_of_one_surface_agree_with_it_and_with_each_other(found):
    for one in found.estimates.values():
        assert one["a"]["estimate"] == pytest.approx(SHARE, abs=0.04)
        assert one["N"]["estimate"] == pytest.approx(best_size(1e21), rel=0.35)
    assert not any(pair["disagree"] for pair in found.disagreement) and len(found.disagreement) == 3
    assert "allocations_disagree" not in found.warnings


def test_the_paired_interval_of_a_difference_is_narrower_than_the_two_intervals_apart(found):
    pair = next(p for p in found.disagreement if p["between"] == ["parametric", "isoflop"])
    apart = math.hypot(*(found.estimates[m]["a"]["hi"] - found.estimates[m]["a"]["lo"] for m in ("parametric", "isoflop")))
    assert pair["lo"] < pair["estimate"] < pair["hi"] and pair["hi"] - pair["lo"] < 1.3 * apart


def test_estimates_of_one_surface_are_seldom_called_a_disagreement():
    pairs = [p for seed in range(10, 18) for p in allocation(table(seed=seed), flops=1e21, draws=150).disagreement]
    assert sum(p["disagree"] for p in pairs) <= 3 and len(pairs) >= 20


def test_a_law_that_forces_the_wrong_split_disagrees_with_the_valleys():
    split = allocation(table(), law="nd_tied", flops=1e21, draws=300)
    pair = next(p for p in split.disagreement if p["between"] == ["parametric", "isoflop"])
    assert pair["disagree"] and pair["estimate"] == pytest.approx(0.5 - SHARE, abs=0.03)
    assert "allocations_disagree" in split.warnings


def test_the_price_of_a_wrong_split_is_that_of_the_surface(found):
    assert found.penalties["parametric"]["excess_loss"] == pytest.approx(0, abs=1e-9)
    other = found.estimates["isoflop"]["N"]["estimate"]
    value = {name: np.array([[v]]) for name, v in found.fit.params.items()}
    here, best = (
        float(isocost.loss(found.fit, value, n, 1e21 / 6 / n)[0, 0])
        for n in (np.array([[other]]), np.array([[found.estimates["parametric"]["N"]["estimate"]]]))
    )
    assert found.penalties["isoflop"]["excess_loss"] == pytest.approx(here / best - 1, abs=1e-9)
    assert 0 <= found.penalties["isoflop"]["wasted_compute"] < 0.2


def test_minimising_along_the_iso_cost_curve_finds_the_closed_form(found):
    point, _ = isocost.parameters(found.fit)
    p = found.fit.params
    expected = found.fit.derived["G"] * (1e20 / 6) ** (p["beta"] / (p["alpha"] + p["beta"]))
    assert math.exp(isocost.optimum(found.fit, point, Cost(), 1e20)[0][0]) == pytest.approx(expected, rel=1e-4)


def test_a_price_per_token_whatever_the_size_favours_larger_sizes(found):
    point, _ = isocost.parameters(found.fit)
    dear = Cost(6.0, "6*N*D", overhead=6e8)
    plain, loaded = (isocost.optimum(found.fit, point, cost, 1e19)[0][0] for cost in (Cost(), dear))
    assert loaded > plain + 0.1


def test_a_frontier_that_is_too_short_gives_its_reason_and_the_others_stand():
    split = allocation(table().query("C < 2e18"), flops=1e19, draws=100)
    assert "lie on the frontier" in split.estimates["frontier"]["reason"] and "frontier_too_short" in split.warnings
    assert split.estimates["parametric"]["a"]["estimate"] and split.to_dict()["frontier"] is None


def test_everything_is_plain_json_and_a_page_of_text(found):
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
    assert "parametric" in found.summary() and "wasted" in found.summary()


def test_a_larger_budget_is_predicted_with_an_interval_that_holds_what_the_surface_gives(found):
    best = best_size(1e21)
    truth = TRUE["E"] + TRUE["A"] * best ** -TRUE["alpha"] + TRUE["B"] * (1e21 / 6 / best) ** -TRUE["beta"]
    said = predict(table(), flops=1e21, split=found)
    assert said.method == "parametric" and said.loss["lo"] < truth < said.loss["hi"]
    assert said.N["lo"] < best < said.N["hi"] and said.D["lo"] < 1e21 / 6 / best < said.D["hi"]
    assert said.distance["C"] == pytest.approx(1) and said.others.keys() == {"isoflop", "frontier"}
    assert json.loads(json.dumps(said.to_dict(), allow_nan=False)) and "decades" in said.summary()


def test_far_extrapolation_is_said_and_inside_there_is_none():
    rows = points(table())
    near = predict(rows, at={"N": rows["N"].median(), "D": rows["D"].median()}, draws=100)
    far = predict(rows, at={"N": 1e12, "D": 1e13}, draws=100)
    assert near.distance["N"] == near.distance["D"] == 0 and "far_extrapolation" not in near.warnings
    assert "far_extrapolation" in far.warnings and far.distance["N"] > 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "either at"),
        ({"at": {"N": 1e8}, "flops": 1e18}, "either at"),
        ({"at": {"N": 1e8}}, "give D"),
        ({"at": {"N": 1e8, "D": 1e9, "K": 3}}, "has no K"),
        ({"flops": -1.0}, "flops=-1.0"),
        ({"at": {"N": math.nan, "D": 1}}, "N=nan"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(asked, said):
    with pytest.raises(ValueError, match=said):
        predict(table(), draws=100, **asked)


def test_the_best_learning_rate_follows_its_own_law():
    rng, rows = np.random.default_rng(0), []
    for n in (256, 1024, 4096):
        for d in (1e5, 4e5, 1.6e6):
            best = 5e-3 * (n / 1024) ** -0.5 * (d / 4e5) ** -0.2
            for lr in best * np.array([0.3, 0.6, 1.0, 1.7, 3.0]):
                rows.append((n, d, lr, 0.2 * math.exp(0.15 * math.log(lr / best) ** 2 + rng.normal(0, 0.003))))
    rates = fit("lr", pd.DataFrame(rows, columns=["N", "D", "lr", "loss"]), draws=200)
    said = predict(table(), flops=1e21, split=allocation(table(), flops=1e21, draws=100), lr=rates)
    expected = 5e-3 * (said.N["estimate"] / 1024) ** -0.5 * (said.D["estimate"] / 4e5) ** -0.2
    assert said.lr["estimate"] == pytest.approx(expected, rel=0.5) and said.lr["lo"] < expected < said.lr["hi"]


def test_a_split_that_no_method_can_make_is_refused():
    rising = table(sd=0.0).assign(loss=lambda t: 2 + 1e-3 * np.log(t["N"]))
    with pytest.raises(ValueError, match="No way to split|one value|rows"):
        predict(rising, flops=1e21, draws=100)


def test_valleys_given_are_used_as_they_are():
    rows = points(table())
    valleys = isoflop(rows, degree=2, draws=100)
    assert allocation(rows, valleys=valleys, draws=100).valleys is valleys


def test_runs_of_one_budget_say_that_several_are_needed_and_not_that_there_is_no_optimum():
    one = table(seed=1)
    one = one[np.isclose(one["C"], 1e18)]
    with pytest.raises(ValueError, match="all runs have one compute budget: how the best split moves .* needs several; isoflop"):
        predict(one, flops=1e19, law="nd_plain", draws=100)


def test_a_law_that_misses_its_cells_is_rejected_among_the_estimators(monkeypatch):
    found = SimpleNamespace(status="ok", derived={"a": 0.6}, warnings=("law_misses_cells",), interval=lambda _: (0.5, 0.7))
    monkeypatch.setattr(estimators, "fit_law", lambda *_, **__: found)
    notes = {r["note"] for r in estimators.exponents(table(), draws=100) if r["group"] == "surface"}
    assert notes == {"rejected: off from the means of repeated cells"}
