import numpy as np
import pytest
from scipy.optimize import minimize

from analysis.lines import floor_law, floor_laws, power_law, power_laws

LN_C = np.log([6e9, 2.5e10, 1e11, 4e11, 1.6e12])


def test_a_power_law_is_recovered_exactly():
    law = power_law(LN_C, 1.5 - 0.23 * LN_C)
    assert law.slope == pytest.approx(-0.23, rel=1e-12) and law.dof == 3
    np.testing.assert_allclose(law.ln(LN_C), 1.5 - 0.23 * LN_C, rtol=1e-12)


def test_a_power_law_equals_polyfit_on_noisy_points():
    ln_y = np.array([0.1, -0.4, -0.3, -1.1, -1.0])
    assert power_law(LN_C, ln_y).slope == pytest.approx(np.polyfit(LN_C, ln_y, 1)[0])


def test_one_budget_is_refused():
    with pytest.raises(ValueError, match="2 distinct budgets"):
        power_law(np.zeros(3), np.arange(3.0))


def test_many_lines_at_once_skip_lost_points():
    ln_y = np.stack([1.5 - 0.23 * LN_C, np.array([0.1, -0.4, -0.3, -1.1, -1.0]), np.ones(5)])
    ln_y[1, 0] = ln_y[2, :3] = np.nan
    level, slope = power_laws(LN_C, ln_y)
    expected = np.polyfit(LN_C[1:], ln_y[1, 1:], 1)
    assert slope[:2] == pytest.approx([-0.23, expected[0]])
    assert level[1] == pytest.approx(np.polyval(expected, LN_C.mean()))
    assert np.isnan(slope[2]) and np.isnan(level[2])


@pytest.mark.parametrize(("floor", "exponent"), [(0.0147, 0.30), (0.002, 0.25), (0.04, 0.6)])
def test_a_law_with_a_floor_is_recovered_and_certified(floor, exponent):
    law = floor_law(LN_C, np.log(floor + 0.07 * np.exp(-exponent * (LN_C - LN_C.mean()))))
    assert law.floor == pytest.approx(floor, rel=1e-5) and law.exponent == pytest.approx(exponent, rel=1e-5)
    assert law.status == "ok" and law.agreeing_starts == 4


def test_a_noisy_floor_fit_reaches_the_optimum_of_a_slow_search():
    ln_y = np.log(0.0147 + 0.07 * np.exp(-0.3 * (LN_C - LN_C.mean()))) + np.array([0.02, -0.01, 0.0, 0.02, -0.01])
    law = floor_law(LN_C, ln_y)

    def cost(p):
        return np.sum((np.log(np.exp(p[2]) + np.exp(p[0] - p[1] * (LN_C - LN_C.mean()))) - ln_y) ** 2)

    starts = [(-2.7, a, np.log(e)) for a in (0.2, 0.4) for e in (0.003, 0.03)]
    options = {"xatol": 1e-10, "fatol": 1e-16, "maxiter": 20000, "maxfev": 20000}
    slow = min((minimize(cost, s, method="Nelder-Mead", options=options) for s in starts), key=lambda fit: fit.fun)
    assert (law.residuals**2).sum() <= slow.fun * (1 + 1e-9)
    assert law.exponent == pytest.approx(slow.x[1], abs=1e-4)


def test_data_that_bend_the_other_way_put_the_floor_at_its_bound():
    law = floor_law(LN_C, -0.2 * (LN_C - LN_C.mean()) - 0.01 * (LN_C - LN_C.mean()) ** 2)
    assert law.status == "at_bound" and law.at_bound == ("floor",) and law.floor == 0.0


def test_three_budgets_are_too_few_for_a_floor():
    with pytest.raises(ValueError, match="at least 4 budgets"):
        floor_law(LN_C[:3], -0.2 * LN_C[:3])


def test_many_floor_fits_at_once_equal_one_by_one():
    clean = np.log(0.0147 + 0.07 * np.exp(-0.3 * (LN_C - LN_C.mean())))
    draws = clean + np.random.default_rng(3).normal(0, 0.05, size=(40, 5))
    points, gradient = floor_laws(LN_C, draws, floor_law(LN_C, clean))
    assert (gradient < 1e-7).all()
    for row, draw in zip(points, draws, strict=True):
        single = floor_law(LN_C, draw)
        assert row[1] == pytest.approx(single.exponent, abs=2e-4)
        assert row[2] == pytest.approx(single.floor, abs=2e-5)
    assert (points[:, 2] == 0).any() and (points[:, 2] > 0).any()  # both kinds of draw occur
