"""Two mixes of one text: words whose presence follows the mix, and words whose presence follows something else."""

import numpy as np
import pandas as pd
import pytest

from analysis.oversampled import compare


def mixes(rho, n=500, seeds=3, seed=0):
    """P = sigmoid(2 (ln f - ln f50)), of which `rho` is the mix's own frequency and the rest the word's."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(-9, -5, n)
    shift = rng.choice([-0.6, 0.0, 0.6], n)
    frames = []
    for mix, sign in enumerate((1, -1)):
        rows = []
        for run in range(seeds):
            p = 1 / (1 + np.exp(-2 * (base + rho * sign * shift + 7)))
            for kind in ("trained", "untrained"):
                rows.append(pd.DataFrame({"run_id": f"m{mix}r{run}", "dictionary": kind, "category": "words",
                                          "concept": [f"w{i}" for i in range(n)], "count": 50,
                                          "frequency": np.exp(base + sign * shift),
                                          "score": (rng.random(n) < p).astype(float)}))  # fmt: skip
        frames.append(pd.concat(rows, ignore_index=True))
    return frames, base, shift


@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_what_follows_the_mix_is_told_from_what_does_not(rho):
    frames, _, _ = mixes(rho)
    found = compare(frames, [[], []], taus=(0.5,), draws=200)["rho"][0]
    assert found["rho_interval"][0] < rho < found["rho_interval"][1]
    assert not found["rho_interval"][0] < 1 - rho < found["rho_interval"][1]
    assert found["between"] == pytest.approx(2, abs=0.4)


def test_named_words_are_compared_with_themselves_in_the_mix_that_does_not_repeat_them():
    frames, _, shift = mixes(1.0)
    named = [[f"w{i}" for i in np.flatnonzero(shift > 0)[:40]], [f"w{i}" for i in np.flatnonzero(shift < 0)[:40]]]
    shares = compare(frames, named, taus=(0.5,), draws=200)["shares"]
    first = next(row for row in shares if row["words"] == "named" and row["dictionary"] == "trained")
    assert first["n_words"] == 80 and first["difference_interval"][0] > 0
    assert first["difference"] == pytest.approx(first["frequent"] - first["rare"])
    moved = next(row for row in shares if row["words"] == "moved" and row["dictionary"] == "trained")
    assert moved["n_words"] == int((shift != 0).sum()) - 80


def test_words_that_only_one_mix_could_score_are_left_out():
    frames, _, _ = mixes(1.0, n=60)
    frames[0] = frames[0][frames[0]["concept"] != "w3"]
    assert compare(frames, [[], []], taus=(0.5,), draws=10)["n_words"] == 59


def test_presence_everywhere_gives_no_ratio():
    frames, _, _ = mixes(1.0, n=60)
    found = compare([frame.assign(score=1.0) for frame in frames], [[], []], taus=(0.5,), draws=10)
    assert found["rho"][0]["rho"] is None
