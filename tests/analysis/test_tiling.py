"""The best division of latents over spheres: one sphere against the circle's formula, many against trying every division."""

import itertools

import numpy as np
import pytest

from analysis.tiling import divide, left_on_sphere


def test_what_latents_leave_of_a_circle_is_the_formulas():
    left = left_on_sphere(2, 12)
    exact = [1.0, 0.75] + [(1 - np.sin(2 * np.pi / n) / (2 * np.pi / n)) / 2 for n in range(2, 13)]
    assert left[[0, 1, 2, 3, 4, 6, 8, 12]] == pytest.approx(np.array(exact)[[0, 1, 2, 3, 4, 6, 8, 12]], abs=0.03)


def test_one_latent_of_a_sphere_reads_half_of_one_axis():
    assert left_on_sphere(4, 2)[1] == pytest.approx(1 - 1 / 8, abs=0.01)


def test_the_division_leaves_least_of_all_divisions():
    p, left = np.array([0.6, 0.25, 0.15]), np.array([1.0, 0.7, 0.45, 0.3, 0.2, 0.15, 0.12])
    every = [n for n in itertools.product(range(7), repeat=3) if sum(n) == 6]
    best = min(every, key=lambda n: (p * left[list(n)]).sum())
    found = divide(p, left, 6)
    assert tuple(found.latents) == best and found.loss == pytest.approx((p * left[list(best)]).sum())
    assert found.discovered == sum(n > 0 for n in best)


def test_gains_that_rise_first_are_taken_together():
    found = divide(np.array([0.5, 0.5]), np.array([1.0, 0.95, 0.4, 0.35]), 2)  # two on one feature, not one on each
    assert sorted(found.latents) == [0, 2] and found.loss == pytest.approx(0.7)


def test_a_feature_that_wants_more_latents_than_are_known_of_is_refused():
    with pytest.raises(ValueError, match="more than 2 of 4 latents"):
        divide(np.array([0.99, 0.01]), np.array([1.0, 0.5, 0.25]), 4)
