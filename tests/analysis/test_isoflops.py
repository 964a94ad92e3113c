import json
import math

import numpy as np
import pandas as pd
import pytest

from analysis import frontier, isoflop
from analysis.hull import hull
from analysis.isoflops import group

E, A, B = 1.69, 406.4, 410.7


def surface(alpha=0.34, beta=0.28, reach=8, sizes=15, budgets=None, shift=1.0, sd=0.0, seed=0):
    """The noise-free design of FITTING.md section 6.4: sizes within a factor `reach` of each optimum (times `shift`)."""
    rng, rows = np.random.default_rng(seed), []
    for c in 10.0 ** np.arange(17, 22) if budgets is None else budgets:
        best = (alpha * A / (beta * B)) ** (1 / (alpha + beta)) * (c / 6) ** (beta / (alpha + beta))
        for n in best * shift * np.geomspace(1 / reach, reach, sizes):
            loss = E + A * n**-alpha + B * (c / 6 / n) ** -beta
            rows.append((n, c / 6 / n, c, loss * math.exp(rng.normal(0, sd))))
    return pd.DataFrame(rows, columns=["N", "D", "C", "loss"])


def tokens_missed(alpha, beta, degree):
    """Per cent by which D* at 1e24 is missed."""
    best = (alpha * A / (beta * B)) ** (1 / (alpha + beta)) * (1e24 / 6) ** (beta / (alpha + beta))
    return 100 * (isoflop(surface(alpha, beta), degree=degree, draws=100).at(1e24)["D"]["estimate"] / (1e24 / 6 / best) - 1)


@pytest.mark.parametrize(
    ("alpha", "beta", "degree", "missed", "within"),
    [
        (0.34, 0.28, 2, -2.903, 0.01),
        (0.34, 0.28, 3, 0.052, 0.01),
        (0.465, 0.155, 2, -13.910, 0.02),
        (0.465, 0.155, 3, 0.331, 0.02),
    ],
)
def test_a_parabola_misses_the_optimum_by_the_published_bias_and_a_cubic_hardly(alpha, beta, degree, missed, within):
    assert tokens_missed(alpha, beta, degree) == pytest.approx(missed, abs=within)


def test_a_floor_added_to_every_loss_moves_no_minimum():
    one, other = surface(), surface()
    other["loss"] += 5.0
    both = [[b["N"]["estimate"] for b in isoflop(t, draws=100).budgets] for t in (one, other)]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-9)


def test_size_and_tokens_are_fitted_apart_and_their_sum_is_reported():
    found = isoflop(surface(sd=0.002), draws=200).to_dict()
    assert found["exponent_sum"] == pytest.approx(1, abs=0.02)
    assert found["lines"]["N"]["exponent"]["estimate"] != 1 - found["lines"]["D"]["exponent"]["estimate"]


def test_the_truth_lies_in_the_interval_of_most_noisy_tables():
    hits = 0
    for seed in range(30):
        a = isoflop(surface(sd=0.004, seed=seed), draws=200, seed=seed).exponent("N")
        hits += a["lo"] <= 0.28 / 0.62 <= a["hi"]
    assert 26 <= hits <= 30


def test_the_interval_is_as_wide_as_estimates_scatter():
    found = [isoflop(surface(sd=0.004, seed=seed), draws=200).exponent("N") for seed in range(30)]
    scatter = np.std([a["estimate"] for a in found])
    claimed = np.mean([a["hi"] - a["lo"] for a in found]) / 3.92
    assert 0.8 < claimed / scatter < 2


@pytest.mark.parametrize(
    ("table", "status"),
    [
        (surface(shift=20), "minimum_at_smallest_size"),
        (surface(shift=1 / 20), "minimum_at_largest_size"),
        (surface(sizes=4), "fewer_than_5_sizes"),
        (surface().assign(loss=2.0), "flat"),
        (surface().assign(loss=lambda t: 5 - t["loss"]), ("not_convex", "minimum_at_largest_size", "minimum_at_smallest_size")),
    ],
)
def test_a_valley_without_a_minimum_inside_its_sizes_gives_no_optimum(table, status):
    found = isoflop(table, draws=100)
    assert {b["status"] for b in found.budgets} <= {status, *(status if isinstance(status, tuple) else ())}
    assert all(b["N"] is None and b["D"] is None for b in found.budgets)
    assert not found.lines and "fewer_than_3_resolved" in found.warnings and "budgets_unresolved" in found.warnings
    with pytest.raises(ValueError, match="fewer than 3 budgets"):
        found.at(1e22)


def test_a_valley_as_flat_as_its_noise_is_not_resolved():
    found = isoflop(surface(reach=1.3, sd=0.02), draws=100)
    assert {b["status"] for b in found.budgets} & {"curvature_uncertain", "vertex_outside", "not_convex"}
    assert "budgets_unresolved" in found.warnings


def test_two_budgets_give_no_exponent():
    found = isoflop(surface(budgets=(1e18, 1e20)), draws=100)
    assert [b["status"] for b in found.budgets] == ["bracketed"] * 2 and not found.lines


def test_budgets_that_agree_within_the_tolerance_are_one():
    ln_c = np.log([1.0, 1.09, 1.2, 1.3, 10.0, 11.0])
    assert group(ln_c, 0.1).tolist() == [0, 0, 0, 1, 2, 2]
    jittered = surface()
    jittered["C"] *= np.random.default_rng(0).uniform(0.98, 1.02, len(jittered))
    assert len(isoflop(jittered, draws=100).budgets) == 5


def test_tokens_that_do_not_follow_from_size_are_noticed():
    table = surface()
    table["D"] = table["D"] ** 1.2
    assert "exponents_do_not_add_up" in isoflop(table, draws=100).warnings


def test_only_the_sizes_nearest_the_lowest_are_used_when_asked():
    found = isoflop(surface(), sizes=5, draws=100)
    assert {b["n_sizes"] for b in found.budgets} == {5} and found.conventions["sizes"] == 5


def test_the_same_rows_in_another_order_give_the_same_result():
    table = surface(sd=0.002)
    one, two = isoflop(table, draws=100), isoflop(table.sample(frac=1, random_state=3), draws=100)
    assert one.exponent("N")["estimate"] == pytest.approx(two.exponent("N")["estimate"], rel=1e-9)
    assert one.data_hash == two.data_hash


def test_everything_is_plain_json_and_a_page_of_text():
    found = isoflop(surface(sd=0.002), draws=100)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
    assert "5 of 5 resolved" in found.summary() and "a + b" in found.summary()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"degree": 4}, "degree"),
        ({"scale": "log"}, "scale"),
        ({"sizes": 3}, "sizes"),
        ({"tolerance": 2}, "tolerance"),
        ({"draws": 5}, "draws"),
        ({"cluster": "run"}, "cluster"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        isoflop(surface(), **settings)


def test_the_hull_of_a_hand_worked_cloud():
    x, y = np.array([0.0, 1, 2, 3, 4, 2, 5]), np.array([4.0, 2, 1.9, 0.5, 0.4, 3, 0.6])
    assert hull(x, y).tolist() == [0, 1, 3, 4]


def test_the_frontier_of_known_optima_gives_their_exponent():
    found = frontier(surface(sizes=41, budgets=10.0 ** np.arange(17, 22.1, 0.5)), draws=200)
    assert found.a == pytest.approx(0.28 / 0.62, abs=0.01) and found.a + found.b == pytest.approx(1, abs=1e-9)
    assert len(found.members) == 11 and found.to_dict()["a"]["lo"] <= found.a <= found.to_dict()["a"]["hi"]


def test_a_frontier_of_fewer_than_five_runs_is_refused():
    with pytest.raises(ValueError, match="lie on the frontier"):
        frontier(surface(budgets=(1e18, 1e19, 1e20)), draws=100)


def test_three_budgets_foretell_far_ahead_without_draws_beyond_a_number():
    """One degree of freedom has draws with tails that no float holds: they count as far away and are not left out."""
    found = isoflop(surface(budgets=(1e17, 1e18, 1e19), sd=0.02, sizes=7, seed=5), draws=1000)
    with np.errstate(over="raise"):
        there = found.at(1e24)["N"]
    assert there["lo"] < there["estimate"] < there["hi"] < np.inf
