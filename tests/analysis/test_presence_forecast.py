"""A forecast of presence in larger dictionaries, held against dictionaries that follow the law and such that do not."""

import json

import pandas as pd
import pytest
from concept_frames import rows

from analysis.presence_forecast import foretell, outcome_page, page, verify

FITTED, LARGER = (256, 512, 1024), 4096
ABOUT = {"definition": {"score": "F1"}}


def of(frame, sizes):
    return frame[frame["n_latents"].isin(sizes)]


def scored(q_beyond=1.2, alive=1.0, seed=0):
    """The fitted sizes by q = 1.2, and 4,096 latents by another exponent, of which a share is alive."""
    follows, beyond = rows(sizes=(*FITTED, LARGER), seed=seed), rows(q=q_beyond, sizes=(*FITTED, LARGER), seed=seed)
    last = of(beyond, [LARGER]).assign(n_alive=round(alive * LARGER))
    return pd.concat([of(follows, FITTED), last], ignore_index=True)


def came_out(frame):
    forecast = json.loads(json.dumps(foretell(of(frame, FITTED), ABOUT, [LARGER], draws=100)))
    return verify(forecast, frame, ABOUT, draws=100)[0]


def test_a_dictionary_that_follows_the_law_is_foretold_within_an_interval_that_says_something():
    held = [came_out(scored(seed=seed)) for seed in range(6)]
    assert sum(row["held"] for row in held) >= 5 and sum(row["share_held"] for row in held) >= 5
    low, high = held[0]["foretold"]["f50_interval"]
    assert low < 0.5 / 1024 / 4**1.2 < high and high < 2.5 * low
    assert held[0]["foretold"]["n_alive"] == LARGER and abs(held[0]["f50_error"]) < 0.5


def test_a_dictionary_that_stopped_short_of_the_law_is_said_to_miss_it():
    row = came_out(scored(q_beyond=0.3))
    assert row["held"] is False and row["share_held"] is False and row["f50_error"] > 0.5
    assert "MISSED" in outcome_page([row])


def test_a_dictionary_in_which_presence_does_not_rise_is_said_so_in_words():
    frame = scored()
    larger = frame["n_latents"] == LARGER
    rare = frame["frequency"] < frame["frequency"].median()
    row = came_out(frame.assign(score=frame["score"].where(~larger, rare.astype(float))))
    assert row["measured"]["status"] == "not rising" and row["held"] is None
    assert "f50 none (not rising) measured" in outcome_page([row])


def test_dead_latents_are_told_from_a_failure_of_the_law():
    frame = rows(sizes=(*FITTED, 1536, LARGER))
    dead = of(frame, [1536]).assign(n_latents=LARGER, run_id="dead")  # 1,536 of 4,096 alive, and present as these are
    row = came_out(pd.concat([of(frame, FITTED), dead], ignore_index=True))
    assert row["held"] is False and row["at_alive_held"] is True
    assert abs(row["f50_error_at_alive"]) < abs(row["f50_error"]) / 2


def test_a_forecast_says_what_it_was_fitted_to_and_refuses_sizes_that_were():
    found = foretell(of(scored(), FITTED), ABOUT, [8192, LARGER], draws=50)
    assert [size["n_latents"] for size in found["sizes"]] == [LARGER, 8192] and len(found["draws"]) == 51
    assert [row["n_latents"] for row in found["law"]["fitted"]] == list(FITTED)
    assert "sizes 256, 512, 1024" in page(found) and "8192 latents" in page(found)
    with pytest.raises(ValueError, match="up to 1024"):
        foretell(of(scored(), FITTED), ABOUT, [512], draws=10)
    with pytest.raises(ValueError, match="1 distinct n_alive"):
        foretell(of(scored(), [256]), ABOUT, [512], draws=10)


def test_a_forecast_is_not_held_against_other_concepts_or_before_its_sizes_are_there():
    frame = scored()
    forecast = foretell(of(frame, FITTED), ABOUT, [LARGER], draws=20)
    with pytest.raises(ValueError, match="4096.* is scored yet"):
        verify(forecast, of(frame, FITTED), ABOUT, draws=20)
    with pytest.raises(ValueError, match="n_concepts 400 and 399"):
        verify(forecast, frame[frame["concept"] != "7"], ABOUT, draws=20)
    with pytest.raises(ValueError, match="score F1 and G"):
        verify(forecast, frame, {"definition": {"score": "G"}}, draws=20)
