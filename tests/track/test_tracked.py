import json

import pytest
from made import make, metric_row

from saescale.records.store import Store
from saescale.track.tracked import Book, ending, planned, rows


@pytest.fixture
def made(tmp_path):
    return make(tmp_path)


@pytest.fixture
def run(made):
    return planned(made.store, "tiny")[0]


def test_an_id_is_the_sweep_and_the_run_and_never_longer_than_wandb_takes(run):
    from dataclasses import replace

    assert run.wandb_id() == f"tiny-{run.run_id}"
    assert run.wandb_id(2) == f"tiny-{run.run_id}-2"
    long = replace(run, sweep="a-sweep-with-a-name-that-nobody-would-want-to-type-twice")
    other = replace(long, run_id=run.run_id[:-1] + "x")
    assert len(long.wandb_id()) <= 64 and long.wandb_id() == long.wandb_id() != other.wandb_id()
    assert not set(replace(run, sweep="what?/how#").wandb_id()) & set("/\\#?%:")


def test_tags_are_kind_layer_size_and_budget(run):
    from dataclasses import replace

    assert run.tags == ("topk", "L2", "n16", "C6.3e8")
    assert replace(run, target_flops=None).tags == ("topk", "L2", "n16")


def test_a_branch_shows_its_trunks_rows_up_to_its_fork_until_it_has_its_own(made, run):
    made.log_trunk(0, [metric_row(s) for s in (32, 64, 80, 96, 128)])  # 100 steps with a decay of 0.2: it forks at 80
    assert [r["step"] for r in rows(made.store, run)] == [32, 64, 80]
    made.log(0, [metric_row(s) for s in (32, 64, 80, 100)])
    assert [r["step"] for r in rows(made.store, run)] == [32, 64, 80, 100]


def test_a_torn_line_and_a_row_that_came_twice_are_no_rows(made, run):
    made.log(0, [metric_row(32), metric_row(64), metric_row(64)], torn='{"step": 96, "tok')
    with (made.run_dir(0) / "metrics.jsonl").open("a") as f:
        f.write('\n[1]\n{"tokens": 3}\n' + json.dumps(metric_row(100)) + "\n")
    assert [r["step"] for r in rows(made.store, run)] == [32, 64, 100]


def test_the_summary_is_the_record_and_a_missing_number_is_missing(made, run):
    made.log(0, [metric_row(100)])
    assert ending(made.store, run).state is None
    made.finish(0)
    stands = ending(made.store, run)
    assert stands.state == "done"
    assert (stands.summary["fvu"], stands.summary["tokens_per_s"], stands.summary["n_alive"]) == (0.25, 12800.0, 12)
    assert stands.summary["alive_window_tokens"] == 2048
    assert "ce_recovered" not in stands.summary and "flops_lm" not in stands.summary


def test_a_failure_from_before_the_launch_may_be_tried_again_and_is_no_end(made, run):
    made.fail(0, "diverged: loss is nan")
    assert ending(made.store, run).summary == {"reason": "diverged: loss is nan"}
    assert ending(made.store, run, failed_since=4e9).state is None


def test_a_damaged_record_ends_nothing(made, run):
    made.finish(0)
    (made.run_dir(0) / "result.json").write_text('{"schema": 1')
    assert ending(made.store, run).state is None


def test_the_book_knows_what_is_where_and_gives_a_deleted_run_another_id(made, run):
    book = Book(made.store.sweep_dir("tiny") / "track")
    assert not book.has(run, "offline", 3, "done")
    book.write(run, id="x", where="https://a/b/c", rows=3, ended="done")
    assert book.has(run, "https://a/b/c", 3, "done") and book.has(run, "offline", 3, "done")
    assert not book.has(run, "https://a/b/c", 4, "done") and not book.has(run, "https://a/b/other", 3, "done")
    book.write(run, where="https://a/b/c", deleted=True)
    assert book.is_deleted(run, "https://a/b/c") and not book.is_deleted(run, "https://a/b/other")
    book.revive(run)
    assert not book.is_deleted(run, "https://a/b/c") and book.wandb_id(run) == f"tiny-{run.run_id}-2"
    (book.folder / f"{run.run_id}.json").write_text("{")
    assert book.read(run) == {} and book.wandb_id(run) == f"tiny-{run.run_id}"


def test_a_sweep_stays_in_the_project_it_began_in(made):
    book = Book(made.store.sweep_dir("tiny") / "track")
    assert book.place() == {}
    book.remember("mine", None)
    assert Book(made.store.sweep_dir("tiny") / "track").place() == {"project": "mine", "entity": None}
    book.place_file.write_text("{")
    assert book.place() == {}


def test_a_sweep_without_a_plan_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="has no plan"):
        planned(Store(tmp_path), "nothing")
