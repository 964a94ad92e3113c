import json

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.codes import WARNINGS


@pytest.fixture(scope="module")
def fitted(make_twin):
    return analysis.fit("nd", make_twin(0), draws=400)


def test_known_parameters_lie_in_their_intervals(fitted, truth):
    assert fitted.status == "ok"
    for name, value in truth.items():
        assert fitted.interval(name)[0] < value < fitted.interval(name)[1]


def test_without_noise_the_parameters_are_exact_whatever_the_objective(grid_table):
    expected = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
    for objective in ("squared", "huber", "lad"):
        fit = analysis.fit("nd", grid_table, objective=objective, draws=0)
        assert fit.status == "ok" and fit.params == pytest.approx(expected, rel=1e-9)


def test_the_data_driven_threshold_covers_most_residuals_of_clean_noise(fitted):
    assert 0.65 < fitted.objective["inside_share"] < 0.9
    assert "threshold_below_noise" not in fitted.warnings


def test_a_threshold_far_below_the_noise_is_named(make_twin):
    fit = analysis.fit("nd", make_twin(0), delta=1e-5, draws=0)
    assert fit.objective["inside_share"] < 0.05 and "threshold_below_noise" in fit.warnings


def test_the_least_squares_twin_is_always_there(fitted, make_twin):
    twin = analysis.fit("nd", make_twin(0), objective="squared", draws=0)
    assert fitted.twin["params"] == pytest.approx(twin.params, rel=1e-8)


def test_outliers_that_move_an_exponent_under_least_squares_are_flagged(make_twin):
    table = make_twin(0)
    table.loc[table["D"].nsmallest(5).index, "loss"] *= 1.2
    fit = analysis.fit("nd", table, draws=200)
    assert "objective_matters" in fit.warnings
    assert abs(fit.twin["params"]["beta"] - fit.params["beta"]) > fit.se["beta"]


def test_a_result_survives_json(fitted):
    record = json.loads(json.dumps(fitted.to_dict(), allow_nan=False))
    again = analysis.FitResult.from_dict(record)
    assert again.to_dict() == fitted.to_dict()
    points = {"N": [1e9], "D": [1e11]}
    pd.testing.assert_frame_equal(again.predict(points), fitted.predict(points))


def test_a_result_of_another_schema_is_refused(fitted):
    with pytest.raises(ValueError, match="schema 99"):
        analysis.FitResult.from_dict(fitted.to_dict() | {"schema": 99})


def test_predictions_are_the_law_and_their_intervals_hold_new_runs(fitted, make_twin):
    new = make_twin(99)
    out = fitted.predict(new)
    p = fitted.params
    by_hand = p["E"] + p["A"] * new["N"] ** -p["alpha"] + p["B"] * new["D"] ** -p["beta"]
    np.testing.assert_allclose(out["estimate"], by_hand, rtol=1e-12)
    inside = ((out["lo"] <= new["loss"]) & (new["loss"] <= out["hi"])).mean()
    assert 0.92 <= inside <= 1.0
    assert ((out["curve_hi"] - out["curve_lo"]) < (out["hi"] - out["lo"])).all()


def test_the_summary_says_estimates_certificate_and_warnings(fitted):
    text = fitted.summary()
    assert "alpha" in text and "scaled gradient" in text and "status ok" in text and "cluster bootstrap, 400 draws" in text
    assert all(f"[{code}]" in text for code in fitted.warnings)


def test_the_hash_follows_the_values_used_and_not_the_order_of_rows(make_twin):
    table = make_twin(0)
    one = analysis.fit("nd", table, draws=0)
    assert analysis.fit("nd", table.sample(frac=1, random_state=1).assign(note=1), draws=0).data_hash == one.data_hash
    table.loc[0, "loss"] *= 1.0001
    assert analysis.fit("nd", table, draws=0).data_hash != one.data_hash


def test_a_mapping_is_as_good_as_a_frame(make_twin):
    table = make_twin(0)
    mapping = {name: table[name].tolist() for name in table}
    assert analysis.fit("nd", mapping, draws=0).params == analysis.fit("nd", table, draws=0).params


def changed(table, **columns):
    return table.assign(**columns)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.drop(columns="D"), "D is missing from the table, which has N, loss"),
        (lambda t: changed(t, loss=t["loss"].mask(t.index == 3)), "1 of 240 values.*first in row 3"),
        (lambda t: changed(t, loss=-t["loss"]), "240 of 240 values that are missing, infinite, zero or negative"),
        (lambda t: changed(t, loss=2.5), "same value in all 240 rows"),
        (lambda t: changed(t, N=1e9), "Column 'N' has one value only"),
        (lambda t: changed(t, N="big"), "Column 'N' holds something that is not a number"),
        (lambda t: t.head(5), "5 parameters and the table 5 rows"),
        (lambda t: pd.concat([t.head(4)] * 5), "only 4 distinct combinations of N, D"),
    ],
)
def test_a_table_that_no_fit_could_use_is_refused_with_the_reason(make_twin, change, match):
    with pytest.raises(ValueError, match=match):
        analysis.fit("nd", change(make_twin(0)))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"objective": "l2"}, "choose one of huber, lad, squared"),
        ({"objective": "lad", "delta": 1e-3}, "delta=0.001 belongs to the huber objective"),
        ({"delta": -1.0}, "not a threshold"),
        ({"draws": 10}, "draws=10 is too few"),
        ({"cluster": "run"}, "no column 'run' to cluster by; the table has N, D, loss"),
        ({"cluster": [1] * 240}, "one cluster"),
        ({"cluster": [1, 2]}, "each of the 240 rows"),
    ],
)
def test_options_that_mean_nothing_are_refused(make_twin, options, match):
    with pytest.raises(ValueError, match=match):
        analysis.fit("nd", make_twin(0), **options)


def test_ten_rows_for_six_parameters_are_warned_about(make_twin):
    fit = analysis.fit("nd_interaction", make_twin(0, rows=10), draws=0)
    assert "few_rows" in fit.warnings


def test_duplicated_rows_are_warned_about(make_twin):
    table = make_twin(0)
    assert "duplicate_rows" in analysis.fit("nd", pd.concat([table, table.head(1)]), draws=0).warnings
    assert "duplicate_rows" not in analysis.fit("nd", table, draws=0).warnings


def test_columns_that_move_together_are_named(make_twin):
    table = make_twin(0)
    table["D"] = 20 * table["N"] * np.exp(np.random.default_rng(0).normal(0, 0.01, len(table)))
    assert "columns_move_together" in analysis.fit("nd_plain", table, draws=0).warnings


def test_no_interval_ever_comes_from_a_fit_that_is_not_ok():
    """One decade, a curve without a floor: whatever the status, intervals exist only for 'ok'."""
    x, seen = np.geomspace(1, 10, 6), set()
    for seed in range(6):
        y = (0.2 + x**-0.2) * np.exp(0.01 * np.random.default_rng(seed).standard_normal(6))
        fit = analysis.fit("power", {"x": x, "y": y}, draws=100)
        seen.add(fit.status)
        assert (fit.intervals is not None) == (fit.status == "ok")
        assert (fit.predict({"x": [20.0]})["lo"].notna().all()) == (fit.status == "ok")
    assert len(seen) > 1


def test_every_warning_a_fit_can_give_has_words():
    import re
    from pathlib import Path

    source = Path(analysis.__file__).parent
    found = set()
    for name in ("diagnostics", "rows", "estimate"):
        found |= set(re.findall(r'"([a-z]+(?:_[a-z]+)+)"', (source / f"{name}.py").read_text()))
    codes = {code for code in found if code in WARNINGS}
    assert {"term_vanished", "few_rows", "wider_law_needed", "lr_at_edge", "sizes_unconverged", "no_skill"} <= codes
    mentioned = set(re.findall(r'found\.append\("(\w+)"\)', (source / "diagnostics.py").read_text()))
    mentioned |= set(re.findall(r'found\.append\("(\w+)"\)', (source / "rows.py").read_text()))
    assert mentioned <= set(WARNINGS)
