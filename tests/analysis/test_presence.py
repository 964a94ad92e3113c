import json
import math

import numpy as np
import pytest
from concept_frames import frame_of

from analysis.logistic import RIDGE, fit_logistic
from analysis.presence import fit_joint, fit_presence
from analysis.presence_data import prepare

SIZES = (256, 512, 1024, 2048)


def quick(record, **settings):
    return fit_presence(frame_of(record), **{"draws": 120, **settings})


def observe(record, tau):
    return prepare(frame_of(record)).observe(tau, "trained")


def planted(q=1.0, c=0.5, slope=1.8, n_concepts=400, seed=0, sizes=SIZES, untrained_shift=None, ln_range=(-9.6, -4.4)):
    """Presence drawn from sigmoid(slope * (ln f - ln f50)), f50 = (c / 1024) * (n / 1024)^-q, n_alive = n."""
    rng = np.random.default_rng(seed)
    ln_f = np.sort(rng.uniform(*ln_range, n_concepts))
    record = {"concepts": [{"name": f"w{i}", "frequency": float(math.exp(v))} for i, v in enumerate(ln_f)]}
    record["dictionaries"], record["scores"] = [], []
    for trained, shift in ((True, 0.0), (False, untrained_shift)):
        if shift is None:
            continue
        for n in sizes:
            ln_f50 = math.log(c / 1024) - q * math.log(n / 1024) + shift
            present = rng.random(n_concepts) < 1 / (1 + np.exp(-slope * (ln_f - ln_f50)))
            dictionary = {"run_id": f"{trained}{n}", "n_latents": n, "n_alive": n, "seed": 0, "trained": trained}
            record["dictionaries"].append(dictionary)
            record["scores"].append(np.where(present, 0.9, 0.1).tolist())
    return record


def record_of(frequencies, scores, sizes=None):
    sizes = sizes or SIZES[: len(scores)]
    return {
        "concepts": [{"name": f"w{i}", "frequency": f} for i, f in enumerate(frequencies)],
        "dictionaries": [
            {"run_id": f"r{i}", "n_latents": n, "n_alive": n, "seed": i, "trained": True} for i, n in enumerate(sizes)
        ],
        "scores": scores,
    }


def test_the_batched_fit_agrees_with_a_general_optimiser():
    from scipy.optimize import minimize

    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 2)) * [1.0, 3.0] + [5.0, -2.0]
    y = (rng.random(60) < 1 / (1 + np.exp(-(x[:, 0] - 5)))).astype(float)
    w = rng.integers(0, 4, 60).astype(float)
    centre, spread = x.mean(axis=0), x.std(axis=0)

    def penalised(b):
        logit = b[0] + (x - centre) / spread @ b[1:]
        return -(w * (y * logit - np.logaddexp(0, logit))).sum() + RIDGE / 2 * (b @ b)

    slow = minimize(penalised, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    fast = fit_logistic(x, y, np.stack([np.ones(60), w]))[1]
    assert fast[1:] * spread == pytest.approx(slow[1:], abs=1e-5)
    assert fast[0] + fast[1:] @ centre == pytest.approx(slow[0], abs=1e-5)


def test_lopsided_and_separated_samples_converge_too():
    # Without halving, one of these runs away.
    rng = np.random.default_rng(1)
    for _ in range(300):
        n = rng.integers(20, 400)
        x = np.exp(rng.normal(size=(n, 2)))
        steep, middle = 10 ** rng.uniform(-1, 2), 3 * rng.normal()
        y = (rng.random(n) < 1 / (1 + np.exp(-np.clip(steep * (x[:, 0] - middle), -50, 50)))).astype(float)
        assert np.isfinite(fit_logistic(x, y, np.ones((2, n)))).all()


def test_a_hand_worked_saturated_fit_reproduces_the_two_shares():
    # Half of the concepts at x=0 are present 1 in 4, at x=1 3 in 4: intercept ln(1/3), slope 2 ln 3.
    x = np.repeat([0.0, 1.0], 400)[:, None]
    y = np.tile([1.0, 0.0, 0.0, 0.0], 100).tolist() + np.tile([1.0, 1.0, 1.0, 0.0], 100).tolist()
    coef = fit_logistic(x, np.array(y), np.ones((1, 800)))[0]
    assert coef == pytest.approx([-math.log(3), 2 * math.log(3)], abs=1e-4)


@pytest.mark.parametrize("q", [0.7, 1.0, 1.3])
def test_a_known_exponent_lies_in_its_interval_and_near_the_estimate(q):
    joint = quick(planted(q=q))["joint"]["trained"]
    low, high = joint["q_interval"]
    assert low < q < high
    assert high - low < 0.5
    assert joint["q"] == pytest.approx(q, abs=0.15)


def test_a_known_50_percent_frequency_lies_in_its_interval_at_every_size():
    sizes = quick(planted(n_concepts=600, seed=3))["sizes"]
    for row in sizes:
        low, high = row["f50_interval"]
        assert row["status"] == "inside range"
        assert low < 0.5 / row["n_latents"] < high
        assert row["c"] == pytest.approx(row["f50"] * row["n_alive"])


def test_the_intervals_are_as_wide_as_estimates_scatter_between_samples():
    weights = np.random.default_rng(0).multinomial(400, np.full(400, 1 / 400), size=100).astype(float)
    weights = np.concatenate([np.ones((1, 400)), weights])
    fits = [fit_joint(observe(planted(seed=s), 0.5), weights) for s in range(80)]
    scatter = np.std([fit["q"] for fit in fits])
    claimed = np.mean([fit["q_interval"][1] - fit["q_interval"][0] for fit in fits]) / 3.92
    assert claimed == pytest.approx(scatter, rel=0.25)
    assert np.mean([fit["q_interval"][0] < 1.0 < fit["q_interval"][1] for fit in fits]) >= 0.85


def test_concepts_that_are_easy_in_every_dictionary_widen_the_interval():
    # The same presence copied to 4 seeds of every size holds no more concepts: the interval must not shrink by sqrt(4).
    one = planted()
    copies = [{**d, "run_id": f"{d['run_id']}-{seed}", "seed": seed} for seed in range(4) for d in one["dictionaries"]]
    four = {**one, "dictionaries": copies, "scores": one["scores"] * 4}
    width = [np.diff(quick(r)["joint"]["trained"]["q_interval"])[0] for r in (one, four)]
    assert width[1] == pytest.approx(width[0], rel=0.02)


def test_presence_that_does_not_know_the_size_has_exponent_0_and_no_collapse():
    joint = quick(planted(q=0.0))["joint"]["trained"]
    assert joint["q"] == pytest.approx(0.0, abs=0.1)
    assert joint["collapse_share"] < 0.5


def test_one_curve_in_f_times_n_alive_keeps_nearly_all_of_the_effect_when_q_is_1():
    assert quick(planted(q=1.0))["joint"]["trained"]["collapse_share"] > 0.9


def test_alive_latents_are_the_axis_not_all_latents():
    record = planted(q=1.0)
    for d in record["dictionaries"]:
        d["n_alive"] = d["n_latents"] ** 0.5
    assert quick(record)["joint"]["trained"]["q"] == pytest.approx(2.0, abs=0.3)


def test_when_too_little_is_present_the_50_percent_frequency_is_a_bound_above_the_range():
    rng = np.random.default_rng(0)
    f = np.exp(rng.uniform(-9, -5, 300))
    scores = np.where(rng.random(300) < 0.2 * (np.log(f) + 9) / 4, 0.8, 0.0)
    row = quick(record_of(f.tolist(), [scores.tolist()]))["sizes"][0]
    assert row["status"] == "> f_max"
    assert row["f50"] is None and row["c"] is None
    assert row["bound"] == pytest.approx(f.max())
    assert row["f50_interval"][1] is None


def test_when_nearly_all_is_present_the_50_percent_frequency_is_a_bound_below_the_range():
    f = np.geomspace(1e-4, 1e-2, 200)
    scores = np.where(np.arange(200) % 10 == 0, 0.0, 0.9)
    scores[150:] = 0.9
    row = quick(record_of(f.tolist(), [scores.tolist()]))["sizes"][0]
    assert (row["status"], row["f50"]) == ("< f_min", None)
    assert row["bound"] == pytest.approx(1e-4)
    assert row["f50_interval"][0] is None


@pytest.mark.parametrize(("score", "status"), [(0.0, "> f_max"), (1.0, "< f_min")])
def test_none_present_and_all_present_are_bounds_not_errors(score, status):
    fit = quick(record_of(np.geomspace(1e-4, 1e-2, 120).tolist(), [[score] * 120, [score] * 120]))
    assert [row["status"] for row in fit["sizes"]] == [status, status]
    assert fit["joint"]["trained"]["q"] is None
    assert "0 pairs in the rarer outcome" in fit["joint"]["trained"]["reason"]


def test_a_clean_step_in_frequency_is_found_at_the_step():
    f = np.geomspace(1e-4, 1e-2, 101)
    row = quick(record_of(f.tolist(), [np.where(f > 1.02e-3, 1.0, 0.0).tolist()]))["sizes"][0]
    assert row["f50"] == pytest.approx(1.023e-3, rel=0.03)
    assert math.isfinite(row["slope"])


def test_presence_that_falls_with_frequency_has_no_50_percent_frequency():
    f = np.geomspace(1e-4, 1e-2, 200)
    row = quick(record_of(f.tolist(), [np.where(f < 1e-3, 1.0, 0.0).tolist()]))["sizes"][0]
    assert (row["status"], row["f50"], row["f50_interval"]) == ("not rising", None, [None, None])


def test_trained_against_untrained_is_a_number_where_both_are_inside_the_range():
    fit = quick(planted(untrained_shift=math.log(4), n_concepts=800))
    middle = next(r for r in fit["ratios"] if r["n_latents"] == 1024)
    assert middle["relation"] == "="
    assert middle["ratio_interval"][0] < 0.25 < middle["ratio_interval"][1]
    assert middle["at_most_half"] is True


def test_an_untrained_50_percent_frequency_above_the_range_bounds_the_ratio_from_above():
    f = np.geomspace(1e-4, 1e-2, 101)
    record = record_of(f.tolist(), [np.where(f > 1e-3, 1.0, 0.0).tolist(), [0.0] * 101], sizes=(512, 512))
    record["dictionaries"][1]["trained"] = False
    (ratio,) = quick(record)["ratios"]
    assert ratio["relation"] == "<="
    assert ratio["ratio"] == pytest.approx(0.1, rel=0.05)
    assert ratio["at_most_half"] is True


def test_a_bound_that_does_not_settle_the_question_leaves_it_open():
    f = np.geomspace(1e-4, 1e-2, 101)
    record = record_of(f.tolist(), [np.where(f > 8e-3, 1.0, 0.0).tolist(), [0.0] * 101], sizes=(512, 512))
    record["dictionaries"][1]["trained"] = False
    (ratio,) = quick(record)["ratios"]
    assert (ratio["relation"], ratio["at_most_half"]) == ("<=", None)
    assert ratio["ratio"] > 0.5


def test_an_untrained_50_percent_frequency_below_the_range_bounds_the_ratio_from_below():
    f = np.geomspace(1e-4, 1e-2, 101)
    record = record_of(f.tolist(), [np.where(f > 1e-3, 1.0, 0.0).tolist(), [1.0] * 101], sizes=(512, 512))
    record["dictionaries"][1]["trained"] = False
    (ratio,) = quick(record)["ratios"]
    assert (ratio["relation"], ratio["at_most_half"]) == (">=", False)
    assert ratio["ratio"] == pytest.approx(10, rel=0.05)


def test_two_50_percent_frequencies_beyond_the_same_end_say_nothing_of_their_ratio():
    record = record_of(np.geomspace(1e-4, 1e-2, 101).tolist(), [[0.0] * 101] * 2, sizes=(512, 512))
    record["dictionaries"][1]["trained"] = False
    (ratio,) = quick(record)["ratios"]
    assert (ratio["ratio"], ratio["relation"], ratio["at_most_half"]) == (None, None, None)


def test_the_share_that_changes_counts_gains_and_losses_across_the_sizes():
    scores = [[0.0, 0.9, 0.9, 0.0, 0.9], [0.0, 0.9, 0.0, 0.9, 0.0], [0.0, 0.9, 0.0, 0.9, 0.9]]
    changes = quick(record_of([1e-4, 2e-4, 3e-4, 4e-4, 5e-4], scores))["changes"]
    assert changes == {"share": pytest.approx(3 / 5), "gained": pytest.approx(1 / 5), "lost": pytest.approx(1 / 5)}


def test_a_size_with_two_seeds_is_read_at_their_mean_score():
    scores = [[0.9, 0.9], [0.3, 0.0], [0.9, 0.2]]
    changes = quick(record_of([1e-4, 2e-4], scores, sizes=(256, 256, 512)))["changes"]
    assert changes == {"share": 0.0, "gained": 0.0, "lost": 0.0}


def test_a_missing_score_is_left_out_and_is_not_absence():
    record = planted(seed=5)
    whole = quick(record)
    for row in record["scores"]:
        row[:100] = [None] * 100
    part = quick(record)
    for n in range(100):
        for row in record["scores"]:
            row[n] = 0.0
    absent = quick(record)
    f50 = [fit["sizes"][0]["f50"] for fit in (whole, part, absent)]
    assert f50[1] == pytest.approx(f50[0], rel=0.15)
    assert part["sizes"][-1]["present_share"] > absent["sizes"][-1]["present_share"] * 1.2


def test_the_same_seed_gives_the_same_json_and_another_seed_other_intervals():
    record = planted(untrained_shift=1.5)
    first, again, other = (json.dumps(quick(record, seed=s), allow_nan=False) for s in (0, 0, 1))
    assert first == again
    assert first != other
    assert json.loads(first)["joint"]["trained"]["q"] == json.loads(other)["joint"]["trained"]["q"]


def test_a_threshold_that_is_no_score_and_a_dictionary_without_scores_are_refused():
    record = planted()
    with pytest.raises(ValueError, match="tau=1.5"):
        quick(record, tau=1.5)
    with pytest.raises(ValueError, match="True256 .trained. has no score"):
        quick({**record, "scores": [[None] * 400, *record["scores"][1:]]})
