import numpy as np
import pytest

from analysis.uncertainty import draw_cell_means, draw_scatter, interval, residuals
from analysis.valleys import cells


@pytest.fixture
def grid_of(make_table, sweep_of):
    def grid(**noise):
        return cells(make_table(sweep_of(**noise)), "objective")

    return grid


def test_two_seeds_give_the_variance_of_a_mean_of_two_on_average(grid_of):
    """Plain resampling of two seeds would give half of it."""
    grid = grid_of(run_sd=0.02, random=5)
    draws = draw_cell_means(grid, 4000, np.random.default_rng(0))
    seen = np.nanmean(np.var(draws, axis=0)[grid.count > 0])
    pooled = residuals(grid)[1]
    assert seen == pytest.approx(pooled**2 / 2, rel=0.06)


def test_the_pooled_seed_sd_is_the_root_mean_variance_within_cells(grid_of):
    grid = grid_of(run_sd=0.02, seeds=3)
    values = [grid.row_ln_y[(grid.row_budget == b) & (grid.row_size == s)] for b, s in np.argwhere(grid.count > 0)]
    assert residuals(grid)[1] == pytest.approx(np.sqrt(np.mean([np.var(v, ddof=1) for v in values])))


def test_branches_of_one_trunk_move_together(grid_of):
    grid = grid_of(trunk_sd=0.03)
    draws = draw_cell_means(grid, 500, np.random.default_rng(0))
    size = list(grid.sizes).index(512)
    correlation = np.corrcoef(draws[:, 1, size], draws[:, 2, size])[0, 1]
    assert correlation > 0.99
    other = list(grid.sizes).index(256)
    assert abs(np.corrcoef(draws[:, 1, size], draws[:, 1, other])[0, 1]) < 0.2


def test_no_draw_loses_a_cell_or_invents_one(grid_of):
    grid = grid_of(run_sd=0.02)
    draws = draw_cell_means(grid, 50, np.random.default_rng(0))
    assert (np.isfinite(draws) == (grid.count > 0)[None]).all()


def test_a_run_alone_in_its_cell_gets_the_pooled_noise(make_table, sweep_of):
    df = make_table(sweep_of(run_sd=0.02))
    lonely = (df["target_flops"] == 1e11) & (df["n_latents"] == 512) & (df["seed"] == 1)
    grid = cells(df[~lonely], "objective")
    scaled, pooled = residuals(grid)
    alone = grid.count[grid.row_budget, grid.row_size] == 1
    assert alone.sum() == 1 and scaled[alone] == pytest.approx(pooled)


def test_scatter_that_seeds_explain_is_not_added_again():
    rng = np.random.default_rng(0)
    law_residuals = np.array([0.01, -0.01, -0.01, 0.01])
    assert not draw_scatter(law_residuals, 2, np.full(4, 0.001), (50, 4), rng).any()


def test_scatter_beyond_the_seeds_has_students_tails():
    rng = np.random.default_rng(0)
    noise = draw_scatter(np.array([0.01, -0.01, -0.01, 0.01]), 2, np.zeros(4), (20000, 4), rng)
    scale = np.sqrt(4e-4 / 2)
    assert np.percentile(np.abs(noise), 95) == pytest.approx(4.303 * scale, rel=0.05)  # t with 2 degrees of freedom


def test_an_interval_needs_twenty_finite_draws():
    assert interval(np.full(19, 1.0)) == (None, None)
    low, high = interval(np.append(np.arange(1001.0), np.nan))
    assert (low, high) == (25.0, 975.0)
