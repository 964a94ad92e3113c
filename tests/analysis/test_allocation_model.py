"""The allocation of latents over features: against a greedy solution, and the exponents of the two regimes."""

import heapq

import numpy as np
import pytest

from analysis.allocation_model import Allocation, allocate, discrete, exponents, limited

SIZES = np.geomspace(300, 100_000, 12)


@pytest.mark.parametrize(
    ("alpha", "beta", "discovered", "loss", "limits"),
    [
        (0.5, 2.0, 0.977, -0.494, (1.0, -0.5)),
        (1.0, 0.3, 0.631, -0.281, (0.65, -0.3)),
        (0.7, 0.2, 0.677, -0.181, (1.2 / 1.7, -0.2)),
    ],
)
def test_exponents_of_the_benign_and_the_pathological_regime(alpha, beta, discovered, loss, limits):
    """The slopes of a numeric solve over 300 to 100,000 latents, and the limits of theory a few per cent beyond them."""
    i = np.arange(1, 2_000_001.0)
    found = allocate(i ** -(1 + alpha), beta, SIZES, tail=i[-1] ** -alpha / alpha)
    d, l = exponents(SIZES, found)
    assert (d, l) == (pytest.approx(discovered, abs=0.015), pytest.approx(loss, abs=0.015))
    assert (d, l) == (pytest.approx(limits[0], abs=0.05), pytest.approx(limits[1], abs=0.05))


def test_the_lagrangian_agrees_with_giving_one_latent_at_a_time_where_it_helps_most():
    p, beta = np.arange(1, 3001.0) ** -1.6, 0.7
    n, gain = np.zeros(len(p), int), [(-q * (1 - 2**-beta), i) for i, q in enumerate(p)]
    heapq.heapify(gain)
    for _ in range(500):
        _, i = heapq.heappop(gain)
        n[i] += 1
        heapq.heappush(gain, (-p[i] * ((1 + n[i]) ** -beta - (2 + n[i]) ** -beta), i))
    found = allocate(p, beta, np.array([500]))
    assert found.loss[0] <= (p * (1.0 + n) ** -beta).sum() / p.sum()  # whole latents can only do worse
    assert found.loss[0] == pytest.approx((p * (1.0 + n) ** -beta).sum() / p.sum(), rel=5e-3)
    assert found.discovered[0] == pytest.approx((n >= 1).sum(), rel=0.35)  # between one half and one a whole latent decides


def test_latents_for_whole_features_leave_the_rest_of_the_rates():
    found = discrete(np.array([0.4, 0.3, 0.2, 0.1]), np.array([1, 3, 9]))
    assert found.discovered.tolist() == [1, 3, 4]
    assert found.loss == pytest.approx([0.6, 0.1, 0.0])
    tail = discrete(np.arange(1, 1_000_001.0) ** -1.5, np.array([100, 200, 400, 800]))
    assert exponents(np.array([100, 200, 400, 800]), tail)[1] == pytest.approx(-0.5, abs=0.03)


def test_k_latents_per_token_leave_what_fires_beyond_them():
    sizes, equal = np.array([1, 4]), (1.0, 1.0)
    free = limited(np.array([0.5, 0.5, 0.5, 0.5]), 4, sizes, equal)
    assert free == pytest.approx(discrete(np.full(4, 0.5), sizes).loss, abs=0.01)
    one = limited(np.array([0.5, 0.5, 0.5, 0.5]), 1, sizes, equal)  # one is kept where any fires
    assert one[0] == pytest.approx(0.75, abs=0.01) and one[1] == pytest.approx(1 - (1 - 0.5**4) / 2, abs=0.01)


def test_rates_out_of_order_and_more_latents_than_the_list_can_take_are_refused():
    with pytest.raises(ValueError, match="the most frequent feature first"):
        allocate(np.array([0.1, 0.2]), 1.0, np.array([1]))
    with pytest.raises(ValueError, match="reach the end of 10 features"):
        allocate(np.arange(1, 11.0) ** -2, 1.0, np.array([1000]))
    assert exponents(np.array([1.0, 10.0]), Allocation(np.array([1.0, 10.0]), np.array([1.0, 0.1]))) == pytest.approx((1, -1))
