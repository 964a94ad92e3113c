import numpy as np
import pytest

from analysis.lines import power_law
from analysis.valleys import cells, turns, valley, vertices

LN_N = np.log([64.0, 128, 256, 512, 1024, 2048])


def parabola(vertex, curvature=0.3, low=-2.0):
    return low + curvature * (LN_N - np.log(vertex)) ** 2


def test_a_parabola_in_ln_n_gives_back_its_vertex_and_depth():
    for form in ("parabola3", "parabola5", "cubic"):
        found = valley(LN_N, parabola(300.0), form)
        assert found.status == "bracketed"
        assert np.exp(found.ln_x) == pytest.approx(300, rel=1e-9)
        assert found.ln_y == pytest.approx(-2, abs=1e-9)


def test_the_three_point_vertex_agrees_with_a_hand_worked_case():
    found = valley(np.array([0.0, 1.0, 3.0]), np.array([2.0, 1.0, 3.0]))  # 2 - 5x/3 + 2x^2/3: vertex 5/4, 23/24
    assert found.ln_x == pytest.approx(5 / 4) and found.ln_y == pytest.approx(23 / 24)


def test_a_cubic_finds_the_minimum_of_an_asymmetric_valley_that_the_parabola_misses():
    ln_y = 0.02 * (LN_N - 5.9) ** 3 + 0.2 * (LN_N - 5.9) ** 2
    assert valley(LN_N, ln_y, "cubic").ln_x == pytest.approx(5.9, abs=1e-9)
    assert abs(valley(LN_N, ln_y, "parabola5").ln_x - 5.9) > 0.01


def test_a_minimum_at_the_largest_size_is_not_an_optimum():
    found = valley(LN_N, parabola(4000.0))
    assert found.status == "minimum_at_largest_size" and np.isnan(found.ln_x)


def test_a_minimum_at_the_smallest_size_is_not_an_optimum():
    assert valley(LN_N, parabola(30.0)).status == "minimum_at_smallest_size"


@pytest.mark.parametrize("form", ["parabola3", "parabola5", "cubic"])
def test_a_parabola_opening_downwards_is_not_an_optimum(form):
    found = valley(LN_N, -parabola(300.0), form)
    assert found.status != "bracketed" and np.isnan(found.ln_x)


def test_a_five_point_parabola_that_is_concave_is_not_an_optimum():
    ln_y = np.array([-5.0, 0.0, -0.1, 0.0, -0.05])[:5]
    assert valley(LN_N[:5], np.array([0.0, 3.0, -0.1, 3.0, 0.0]), "parabola5").status == "not_convex"
    assert valley(LN_N[:5], ln_y).status == "minimum_at_smallest_size"


def test_a_five_point_vertex_outside_its_points_is_not_an_optimum():
    ln_y = np.array([4.0, 2.5, 1.5, 0.9, 0.85, 0.86])
    found = valley(LN_N[:5], np.array([4.0, 3.0, 2.1, 1.3, 1.31]), "parabola5")
    assert found.status == "vertex_outside" and np.isnan(found.ln_x)
    assert valley(LN_N, ln_y).status == "bracketed"


def test_a_flat_valley_has_no_optimum():
    assert valley(LN_N, np.zeros(6)).status == "flat"
    assert valley(LN_N, np.array([0.0, -1, -1, -1, 0, 0])).status != "flat"


def test_two_sizes_are_too_few():
    assert valley(LN_N, np.array([1.0, np.nan, 0.5, np.nan, np.nan, np.nan])).status == "too_few_sizes"


def test_an_absent_size_is_skipped_not_read_as_zero():
    ln_y = parabola(300.0)
    ln_y[4] = np.nan
    assert np.exp(valley(LN_N, ln_y).ln_x) == pytest.approx(300)


def test_many_curves_at_once_equal_one_by_one():
    rng = np.random.default_rng(0)
    curves = rng.normal(size=(200, 6))
    x, y = vertices(LN_N, curves)
    single = [valley(LN_N, curve) for curve in curves]
    np.testing.assert_array_equal(x, [v.ln_x for v in single])
    np.testing.assert_array_equal(y, [v.ln_y for v in single])
    assert 0 < np.isfinite(x).sum() < 200


def test_seeds_are_averaged_in_the_logarithm(make_table, sweep_of):
    df = make_table(sweep_of(run_sd=0.3))
    grid = cells(df, "objective")
    cell = df[(df["target_flops"] == 1e11) & (df["n_latents"] == 512)]["objective"]
    assert grid.ln_y[2, list(grid.sizes).index(512)] == pytest.approx(np.log(cell).mean())


def test_a_valley_turns_once():
    assert turns(parabola(300.0)) == 1
    assert turns(np.array([3.0, 2, 2.5, 1, 2])) == 3


def test_the_pilot_table_gives_the_published_minima_and_exponent():
    """The measured valleys of the 64-wide pilot: n* 208, 402, 800, 1,565, 3,073 (rounded losses), exponent .487."""
    nan = np.nan
    fvu = [
        [0.2392, 0.1815, 0.1690, 0.2248, nan, nan, nan, nan],
        [0.2282, 0.1625, 0.1243, 0.1181, 0.1569, 0.3516, nan, nan],
        [0.2269, 0.1564, 0.1108, 0.0870, 0.0826, 0.1123, 0.2646, 0.6803],
        [nan, 0.1547, 0.1064, 0.0776, 0.0625, 0.0602, 0.0811, 0.2165],
        [nan, nan, nan, 0.0738, 0.0556, 0.0460, 0.0446, 0.0612],
    ]
    ln_n = np.log(64.0 * 2 ** np.arange(8))
    found = np.array([valley(ln_n, np.log(row)).ln_x for row in fvu])
    np.testing.assert_allclose(np.exp(found), [208, 402, 800, 1564, 3073], rtol=4e-3)
    ln_c = np.log([6.25e9, 2.5e10, 1e11, 4e11, 1.6e12])
    assert power_law(ln_c, found).slope == pytest.approx(0.487, abs=1e-3)
