import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.bootstrap import cluster_weights, draw
from analysis.estimate import solve_point
from analysis.laws import find
from analysis.profiles import profile
from analysis.rows import read_rows
from analysis.selection import compare


def checkpoints(seed=0, runs=40, per_run=8, run_sd=0.02):
    """Runs of several checkpoints that share one deviation."""
    rng = np.random.default_rng(seed)
    n = np.repeat(np.exp(rng.uniform(np.log(1e7), np.log(1e10), runs)), per_run)
    d = np.exp(rng.uniform(np.log(1e9), np.log(1e12), runs * per_run))
    deviation = np.repeat(rng.normal(0, run_sd, runs), per_run) + rng.normal(0, run_sd / 10, runs * per_run)
    loss = (1.8 + 480 * n**-0.35 + 2000 * d**-0.37) * np.exp(deviation)
    return pd.DataFrame({"N": n, "D": d, "loss": loss, "run": np.repeat(np.arange(runs), per_run)})


def test_checkpoints_of_a_run_are_not_independent_points():
    table = checkpoints()
    by_row = analysis.fit("nd", table, objective="squared", draws=300)
    by_run = analysis.fit("nd", table, objective="squared", draws=300, cluster="run")
    assert by_run.params == by_row.params and by_run.n_clusters == 40
    assert by_run.se["alpha"] > 1.8 * by_row.se["alpha"]
    width = {name: fit.profile["alpha"]["interval"][1] - fit.profile["alpha"]["interval"][0]
             for name, fit in (("row", by_row), ("run", by_run))}
    assert width["run"] > 1.8 * width["row"]


def test_resampling_takes_whole_clusters():
    rows = read_rows(find("nd"), checkpoints(runs=12, per_run=3), "run")
    weights = cluster_weights(rows, 50, np.random.default_rng(0))
    assert weights.shape == (50, 36) and (weights.sum(axis=1) == 36).all()
    assert (weights.reshape(50, 12, 3) == weights.reshape(50, 12, 3)[:, :, :1]).all()


def test_fewer_than_ten_clusters_are_wild_and_warned_about():
    fit = analysis.fit("nd", checkpoints(runs=8), draws=100, cluster="run")
    assert fit.bootstrap["method"] == "wild cluster bootstrap" and "few_clusters" in fit.warnings


def test_resampling_that_would_lose_a_budget_is_replaced_by_a_wild_bootstrap(make_twin):
    x = np.repeat(np.geomspace(1, 1e4, 12), 3)
    y = (0.2 + x**-0.3) * np.exp(0.01 * np.random.default_rng(0).standard_normal(36))
    assert analysis.fit("power", {"x": x, "y": y}, draws=100).bootstrap["method"] == "wild cluster bootstrap"
    assert analysis.fit("nd", make_twin(0), draws=100).bootstrap["method"] == "cluster bootstrap"


def test_bootstrap_intervals_cover_the_truth_as_often_as_they_say(make_twin, truth):
    """A quick version; benchmarks/fit.py runs 500 designs."""
    share = truth["beta"] / (truth["alpha"] + truth["beta"])
    hits, designs = {"alpha": 0, "beta": 0, "a": 0}, 40
    for seed in range(designs):
        rows = read_rows(find("nd"), make_twin(seed, rows=120))
        point = solve_point(find("nd"), rows, "huber", 6e-3)
        drawn = draw(point.surface, rows, point.objective, point.inside, 150, seed)
        values = dict(zip(point.surface.law.params, point.surface.natural(drawn.inside).T, strict=True))
        values["a"] = values["beta"] / (values["alpha"] + values["beta"])
        for name in hits:
            low, high = np.percentile(values[name], [2.5, 97.5])
            hits[name] += low < (share if name == "a" else truth[name]) < high
    assert all(hit / designs >= 0.86 for hit in hits.values())


@pytest.mark.parametrize(("decades", "points", "span"), [(1, 6, 1.28), (3, 6, 0.11)])
def test_the_profile_of_a_floor_is_as_wide_as_the_range_is_short(decades, points, span):
    x, spans, hits, designs = np.logspace(0, decades, points), [], 0, 16
    for seed in range(designs):
        y = (1 + x**-0.2) * np.exp(0.003 * np.random.default_rng(seed).standard_normal(points))
        rows = read_rows(find("power"), {"x": x, "y": y})
        point = solve_point(find("power"), rows, "squared")
        low, high = profile(point.surface, rows, point.objective, point.inside)["E"]["interval"]
        high = np.inf if high is None else high
        spans.append(high - low)
        hits += low <= 1 <= high
    assert np.isfinite(spans).all()
    assert 0.65 * span < np.median(spans) < 1.4 * span
    assert hits >= designs - 3


def test_a_floor_from_one_decade_is_said_not_to_be_identified():
    x = np.logspace(0, 1, 6)
    y = (1 + x**-0.2) * np.exp(0.003 * np.random.default_rng(1).standard_normal(6))
    warnings = analysis.fit("power", {"x": x, "y": y}, objective="squared", draws=200).warnings
    assert {"floor_needs_decades", "floor_not_identified", "few_rows", "few_clusters"} <= set(warnings)
    wide = np.logspace(0, 4, 40)
    y = (1 + wide**-0.2) * np.exp(0.003 * np.random.default_rng(1).standard_normal(40))
    found = analysis.fit("power", {"x": wide, "y": y}, objective="squared", draws=200).warnings
    assert not {"floor_needs_decades", "floor_not_identified", "few_rows", "few_clusters"} & set(found)


def test_a_profile_point_is_a_constrained_minimum():
    """Against a slow search with the parameter held."""
    from scipy.optimize import minimize_scalar

    x = np.logspace(0, 2, 8)
    y = (1 + x**-0.3) * np.exp(0.01 * np.random.default_rng(0).standard_normal(8))
    rows = read_rows(find("power"), {"x": x, "y": y})
    point = solve_point(find("power"), rows, "squared")
    low, _ = profile(point.surface, rows, point.objective, point.inside)["alpha"]["interval"]

    def rss(alpha):
        def given(ln_share):
            base = np.exp(ln_share) + x**-alpha
            r = np.log(base) - np.log(y)
            return ((r - r.mean()) ** 2).sum()

        cuts = range(-12, 6, 2)
        return min(minimize_scalar(given, bounds=(a, a + 3), method="bounded", options={"xatol": 1e-10}).fun for a in cuts)

    best = (point.residuals**2).sum()
    t2 = (rss(low) - best) / (best / 5)
    assert t2 == pytest.approx(2.5706**2, rel=0.01)


def test_a_law_that_fails_on_larger_runs_widens_its_predictions():
    """A power law without floor on data that have one: errors grow along the axis, and so do the intervals."""
    x = np.geomspace(1, 1e5, 60)
    y = (0.5 + 3 * x**-0.4) * np.exp(0.005 * np.random.default_rng(0).standard_normal(60))
    wrong = analysis.fit("power_plain", {"x": x, "y": y}, draws=200)
    right = analysis.fit("power", {"x": x, "y": y}, draws=200)
    assert wrong.widening > 2 and "intervals_widened" in wrong.warnings and "residuals_structured" in wrong.warnings
    assert right.widening < 1.6 and right.holdout["skill_plain"] > 0.8
    assert [cut["n_train"] for cut in right.holdout["cuts"]] == [36, 45, 54]
    assert wrong.holdout["cuts"][-1]["bias"] > 0 and abs(right.holdout["cuts"][-1]["bias"]) < 0.02


def test_one_cluster_that_decides_is_named(make_twin):
    table = make_twin(0, rows=40)
    far = table["D"].idxmin()
    table.loc[far, "D"] /= 30
    fit = analysis.fit("nd", table, objective="squared", draws=200)
    assert fit.influence[0]["cluster"] == str(far)
    without = analysis.fit("nd", table.drop(index=far), objective="squared", draws=0)
    shift = (without.params["beta"] - fit.params["beta"]) / fit.se["beta"]
    assert fit.influence[0]["shift"]["beta"] == pytest.approx(shift, rel=1e-4)


def test_an_additive_law_on_data_with_an_interaction_is_rejected_by_name():
    n, d = (a.ravel() for a in np.meshgrid(2.0 ** np.arange(6, 12), np.geomspace(3e4, 1e6, 6)))
    noise = np.exp(0.03 * np.random.default_rng(0).standard_normal(36))
    loss = (0.0105 + 2.2 * n**-0.57 + 142 * n**0.53 * d**-1.03) * noise
    fit = analysis.fit("nd", {"N": n, "D": d, "loss": loss}, draws=100)
    assert "wider_law_needed" in fit.warnings and fit.diagnostics["wider"]["law"] == "nd_interaction"
    table = compare("nd_interaction", {"N": n, "D": d, "loss": loss}).set_index("law")
    assert table["chosen"].to_dict() == {"nd": False, "nd_interaction": True}


def test_a_larger_law_is_not_chosen_for_noise(make_twin):
    table = compare(["nd", "nd_interaction"], make_twin(0)).set_index("law")
    assert table["chosen"].to_dict() == {"nd": True, "nd_interaction": False}
    with pytest.raises(ValueError, match="different columns"):
        compare(["nd", "power"], make_twin(0))


def test_a_law_of_the_wrong_shape_is_named_by_its_distance_from_repeated_cells():
    """Three seeds agree within 1 %; a plain power law is 10 % off the means of the cells, the right one is not."""
    sizes = np.geomspace(1, 1e4, 8)
    x = np.repeat(sizes, 3)
    noise = 0.01 * np.random.default_rng(0).standard_normal(24)
    misses = analysis.fit("power_plain", {"x": x, "y": x**-0.4 * np.exp(noise + 0.1 * np.tile([1.0, -1.0], 4).repeat(3))})
    holds = analysis.fit("power_plain", {"x": x, "y": x**-0.4 * np.exp(noise)})
    lack = misses.diagnostics["lack_of_fit"]
    assert lack["cells"] == 8 and lack["within"] == pytest.approx(0.01, rel=0.5)
    assert lack["between"] == pytest.approx(0.11, rel=0.15)
    assert "law_misses_cells" in misses.warnings
    assert holds.diagnostics["lack_of_fit"]["between"] < 0.01 and "law_misses_cells" not in holds.warnings
    once = analysis.fit("power_plain", {"x": sizes, "y": sizes**-0.4})
    assert once.diagnostics["lack_of_fit"] is None
