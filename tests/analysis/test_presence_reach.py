"""What a rare concept asks for: alive latents and training tokens, from a law whose truth is known."""

import numpy as np
import pytest
from concept_frames import rows

from analysis.presence import fit_presence
from analysis.presence_reach import reach


def test_the_alive_latents_for_a_frequency_are_those_of_the_law_within_their_interval():
    wanted = 0.5 / 1024 / 4**1.2  # the 50 % frequency of 4,096 alive latents
    found = reach(rows(), {}, wanted, n_tokens=1_000_000, draws=200)
    assert found.n_alive["lo"] < 4096 < found.n_alive["hi"] and found.n_alive["hi"] < 1.6 * found.n_alive["lo"]
    assert found.decades_beyond == pytest.approx(np.log10(found.n_alive["estimate"] / 2048))
    f50_of_2048 = 0.5 / 1024 / 2**1.2
    assert found.seen == pytest.approx(1e6 * f50_of_2048, rel=0.15)  # occurrences at the largest dictionary's 50 % frequency
    assert found.tokens["lo"] < 1e6 * f50_of_2048 / wanted < found.tokens["hi"]
    assert found.warnings == [] and "2048" not in found.summary()


def test_presence_that_levels_off_below_1_is_said_to_bend_what_a_concept_asks_for():
    """One concept in ten never has a latent: the law without a ceiling then asks for half as many latents again."""
    frame = rows(seed=1)
    frame.loc[frame["concept"].astype(int) % 10 == 0, "score"] = 0.0
    found = reach(frame, {}, 0.5 / 1024 / 4**1.2, draws=100)
    assert found.warnings == ["presence_levels_off"] and "levels off" in found.summary()
    fits = fit_presence(frame, draws=20)
    assert "presence_levels_off" in fits["warnings"] and fits["lapse"]["lapse_interval"][0] > 0
    assert "presence_levels_off" not in fit_presence(rows(seed=1), draws=20)["warnings"]


def test_a_frequency_far_beyond_what_was_trained_is_said_to_be():
    found = reach(rows(), {}, 1e-9, draws=50)
    assert found.warnings == ["far_extrapolation"] and found.tokens is None
    assert "decades beyond the largest dictionary" in found.summary() and "warning: " in found.summary()
    assert found.at_q1["estimate"] != pytest.approx(found.n_alive["estimate"], rel=0.2)  # q is not 1 here


@pytest.mark.parametrize("frequency", [0.0, 1.0, -1e-6, 2.0])
def test_a_frequency_that_is_no_share_is_refused(frequency):
    with pytest.raises(ValueError, match="between 0 and 1"):
        reach(rows(n=20), {}, frequency)


def test_without_a_law_the_reason_is_the_answer():
    with pytest.raises(ValueError, match="no law to predict by: 1 distinct n_alive"):
        reach(rows(sizes=(256,), n=50), {}, 1e-6)
