import pytest

from saescale.campaign.attempts import attempt_seconds, ending, exit_name
from saescale.records.store import write_json


@pytest.fixture
def attempt(tmp_path):
    return tmp_path / "jobs" / "train-1" / "attempts" / "0"


def ended(attempt, *codes, asked=None):
    """Tasks that ended one after the other, a second apart; None for one that left nothing."""
    write_json(attempt / "start.json", {"started": 100.0, "n_tasks": len(codes)})
    for rank, code in enumerate(codes):
        if code is not None:
            write_json(attempt / exit_name(rank), {"exit_code": code, "ended": 110.0 + rank, "asked": asked})
    return ending(attempt)


@pytest.mark.parametrize(("codes", "rank", "code"), [
    ((0, 0, 0, 0), 0, 0), ((3, 3, -9, 3), 2, -9), ((3, 1, 3, 3), 1, 1), ((3, 3, None, 3), 2, None), ((4, 4, None, 4), 2, None),
    ((4, 4, 4, 4), 0, 4), ((4, 3, 4, 4), 0, 4), ((None, 1), 1, 1), ((None, -9), 1, -9),
    ((-15, 3, None, 3), 2, None), ((3, -15, -9, 0), 2, -9), ((4, -15, 4, 4), 1, -15), ((-15,), 0, -15), ((None,), 0, None)])
def test_who_was_killed_or_failed_by_itself_tells_how_it_ended_not_who_was_taken_along(attempt, codes, rank, code):
    found = ended(attempt, *codes)
    assert (found.rank, found.code, found.n_tasks) == (rank, code, len(codes))
    assert found.silent == tuple(r for r, c in enumerate(codes) if c is None)


def test_an_attempt_has_ended_when_all_its_tasks_have_and_lasts_until_then(attempt):
    assert ended(attempt, 0, None).ended is None
    assert ended(attempt, 0, 0).ended == 111.0 and attempt_seconds(attempt) == 11.0


def test_a_wish_to_be_queued_again_goes_before_a_stop_whoever_was_asked(attempt):
    ended(attempt, 4, 4, asked="stop")
    write_json(attempt / exit_name(1), {"exit_code": 4, "ended": 112.0, "asked": "requeue"})
    assert ending(attempt).asked == "requeue"
