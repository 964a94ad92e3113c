"""Epoch AI's 240 points, against the numbers of exact optimisation; skipped where the csv is not at hand."""

import numpy as np
import pytest

import analysis
from analysis.bootstrap import solve_draws
from analysis.estimate import solve_point
from analysis.laws import find
from analysis.objective import Objective
from analysis.rows import read_rows
from analysis.selection import compare
from analysis.solve import Problem

SE = {"A": 124.494, "B": 1293.169, "E": 0.02566, "alpha": 0.01540, "beta": 0.02059}
RESAMPLES = [  # the first five of legacy numpy seed 42: A, B, E, alpha, beta
    (349.556, 2356.25, 1.79333, 0.328633, 0.371855),
    (487.836, 1509.95, 1.80358, 0.348965, 0.349989),
    (728.411, 2507.01, 1.86166, 0.372424, 0.375040),
    (317.833, 2328.80, 1.78664, 0.323206, 0.371303),
    (319.983, 2877.61, 1.79808, 0.323745, 0.381286),
]


def test_the_huber_optimum_is_exact(epoch):
    fit = analysis.fit("nd", epoch, delta=1e-3, draws=0)
    assert fit.objective["value"] == pytest.approx(0.001018274018, rel=1e-9)
    assert fit.status == "ok" and fit.certificate.scaled_gradient <= 1e-8
    assert (fit.params["A"], fit.params["B"]) == pytest.approx((477.826, 2143.42), rel=1e-4)
    exponents = fit.params["E"], fit.params["alpha"], fit.params["beta"], fit.derived["a"]
    assert exponents == pytest.approx((1.8172181, 0.3473105, 0.3671724, 0.5138995), abs=1e-6)


def test_the_published_point_estimate_is_least_absolute_deviations(epoch):
    fit = analysis.fit("nd", epoch, objective="lad", draws=0)
    found = [fit.params[name] for name in ("A", "B", "E", "alpha", "beta")]
    assert found == pytest.approx([482.006, 2085.436, 1.816864, 0.347813, 0.365854], rel=1e-4)


def test_five_points_move_the_exponent_under_a_robust_loss_too(epoch_245):
    fit = analysis.fit("nd", epoch_245, delta=1e-3, draws=0)
    assert (fit.params["alpha"], fit.params["beta"]) == pytest.approx((0.3493129, 0.4530493), abs=1e-5)


def test_least_squares_gives_its_own_published_numbers(epoch):
    fit = analysis.fit("nd", epoch, objective="squared", draws=0)
    assert [fit.params["alpha"], fit.params["beta"], fit.derived["a"]] == pytest.approx([0.360253, 0.405883, 0.529780], abs=1e-5)


def test_the_published_resamples_give_the_published_parameters_and_standard_errors(epoch):
    """The same 4000 resamples as published: the first five rows, standard errors to three digits."""
    state = np.random.RandomState(42)
    rows = read_rows(find("nd"), epoch)
    weights = np.stack([np.bincount(state.choice(240, size=240, replace=True), minlength=240) for _ in range(4000)]).astype(float)
    point = solve_point(find("nd"), rows, "huber", 1e-3)
    over = point.surface
    found = solve_draws(Problem(over, rows.ln_y[None], weights, Objective("huber", 1e-3)), point.inside, rows.ln_y, 4000)
    assert (found.cosine <= 1e-6).all()
    values = dict(zip(over.law.params, over.natural(found.points).T, strict=True))
    names = ("A", "B", "E", "alpha", "beta")
    for i, row in enumerate(RESAMPLES):
        assert [values[name][i] for name in names] == pytest.approx(row, rel=5e-4)  # theirs stop a little early
    for name, se in SE.items():
        assert values[name].std() == pytest.approx(se, rel=1e-3)


def test_own_resampling_gives_the_same_standard_errors(epoch):
    fit = analysis.fit("nd", epoch, delta=1e-3, draws=4000)
    for name in ("A", "E", "alpha", "beta"):  # B's draws are heavy-tailed: its own sd scatters by more than 8 %
        assert fit.se[name] == pytest.approx(SE[name], rel=0.08)
    assert fit.interval("B") == pytest.approx((1042.4, 5810.4), rel=0.1)
    assert fit.interval("A") == pytest.approx((286.1, 743.6), rel=0.08)


def test_the_model_table_is_the_one_worked_out_before(epoch):
    table = compare(["nd", "nd_tied", "nd_plain", "nd_kaplan"], epoch).set_index("law")
    assert table.loc["nd", ["aic", "bic"]].tolist() == pytest.approx([-2375.8, -2355.0], abs=0.06)
    assert table.loc["nd_tied", ["aic", "bic"]].tolist() == pytest.approx([-2367.5, -2350.0], abs=0.06)
    assert table.loc["nd_plain", ["aic", "bic"]].tolist() == pytest.approx([-1986.6, -1969.2], abs=0.06)
    assert table.loc["nd_kaplan", ["aic", "bic"]].tolist() == pytest.approx([-1978.1, -1960.7], abs=0.06)
