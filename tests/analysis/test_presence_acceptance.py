"""The simulated truth of concept presence: thresholds ~ 1 / n, slope 1.8 per e-fold, 400 concepts, five dictionaries."""

import numpy as np
import pytest
from concept_frames import frame_of

from analysis.presence import fit_joint, fit_presence
from analysis.presence_data import Observations

SIZES = np.array([4096, 16384, 65536, 262144, 1048576])
SLOPE, CONCEPTS = 1.8, 400


def drawn(seed, f_min=1e-7, slopes=(SLOPE,) * 5, count=SIZES, c=1.0):
    """Pairs (concept, dictionary); the threshold is c / n, `count` what the fit is told of each size."""
    rng = np.random.default_rng(seed)
    ln_f = rng.uniform(np.log(f_min), np.log(1e-2), CONCEPTS)
    logit = np.array(slopes)[:, None] * (ln_f[None] + np.log(SIZES / c)[:, None])
    present = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(float)
    ln_n, concept = np.repeat(np.log(np.asarray(count, float)), CONCEPTS), np.tile(np.arange(CONCEPTS), 5)
    return Observations(present.ravel(), np.tile(ln_f, 5), ln_n, concept)


def weights(draws):
    drawn_weights = np.random.default_rng(0).multinomial(CONCEPTS, np.full(CONCEPTS, 1 / CONCEPTS), size=draws)
    return np.concatenate([np.ones((1, CONCEPTS)), drawn_weights])


@pytest.mark.slow
def test_q_is_1_within_its_monte_carlo_error_and_its_interval_covers_1_as_often_as_it_should():
    fits = [fit_joint(drawn(seed), weights(150)) for seed in range(120)]
    q = np.array([fit["q"] for fit in fits])
    assert abs(q.mean() - 1) < 3 * q.std() / np.sqrt(len(q))
    assert 0.88 <= np.mean([low <= 1 <= high for low, high in (fit["q_interval"] for fit in fits)]) <= 0.99


@pytest.mark.parametrize("f_min", [1e-5, 3e-5])
def test_the_joint_fit_stays_sharp_when_the_largest_thresholds_lie_below_every_frequency(f_min):
    """Thresholds 5 / n: with the floor at 3e-5 two of the five lie below it and cannot be found one by one."""
    q = [fit_joint(drawn(seed, f_min, c=5.0), weights(2))["q"] for seed in range(60)]
    assert np.std(q) <= 0.05 and abs(np.mean(q) - 1) < 3 * np.std(q) / np.sqrt(60)


def test_the_collapse_test_seldom_rejects_the_truth_and_nearly_always_one_dictionary_of_half_the_slope():
    one = weights(1)
    under_truth = [fit_joint(drawn(seed), one) for seed in range(100)]
    bent = [fit_joint(drawn(seed, slopes=(1.8, 1.8, 0.9, 1.8, 1.8)), one) for seed in range(60)]
    assert under_truth[0]["collapse_df"] == 7
    assert np.mean([fit["collapse_p"] < 0.05 for fit in under_truth]) <= 0.09
    assert np.mean([fit["collapse_p"] < 0.05 for fit in bent]) >= 0.95


def test_total_latents_instead_of_alive_ones_bend_q_by_the_exponent_of_alive():
    """Alive falls as n^-.15 of the total: thresholds 1 / alive are total^-.85."""
    total = SIZES ** (1 / 0.85)
    q = np.mean([fit_joint(drawn(seed, count=total), weights(1))["q"] for seed in range(20)])
    assert q == pytest.approx(0.85, abs=0.03)


def test_the_result_names_the_count_of_latents_it_used():
    rng = np.random.default_rng(0)
    record = {"concepts": [{"name": f"w{i}", "frequency": f} for i, f in enumerate(np.geomspace(1e-5, 1e-2, 60))]}
    record["dictionaries"] = [{"run_id": str(n), "n_latents": n, "n_alive": n, "seed": 0, "trained": True} for n in (256, 512)]
    record["scores"] = rng.random((2, 60)).tolist()
    assert fit_presence(frame_of(record), draws=20)["count"] == "n_alive"
