import json
import math

import numpy as np
import pandas as pd
import pytest

from analysis.tables import alive_window, build_table, read_table, write_table


@pytest.fixture
def store(tmp_path, make_store, sweep_of):
    plan = make_store(tmp_path, sweep_of(budgets=(2.5e10, 1e11), sizes=(256, 512, 1024), seeds=1))
    return tmp_path, plan


def result_of(root, plan, index=0):
    return root / "by-id" / plan["runs"][index]["run_id"] / "result.json"


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_every_planned_run_has_one_row_in_plan_order(store):
    root, plan = store
    assert list(build_table(plan, root)["run_id"]) == [run["run_id"] for run in plan["runs"]]


def test_a_finished_run_brings_its_metrics_flops_and_settings(store):
    root, plan = store
    row, run = build_table(plan, root).iloc[1], plan["runs"][1]
    metrics = json.loads(result_of(root, plan, 1).read_text())["metrics"]
    assert (row["state"], row["reason"]) == ("done", "")
    assert all(row[name] == value for name, value in metrics.items())
    assert row["flops_measured"] == run["flops_dense"] / 5
    assert (row["n_latents"], row["k"], row["lr"], row["wall_s"]) == (512, 16, run["science"]["train"]["lr"], 1.5)


def test_a_run_that_was_never_started_is_missing_with_numbers_nan_not_zero(store):
    root, plan = store
    result_of(root, plan).parent.rename(root / "elsewhere")
    row = build_table(plan, root).iloc[0]
    assert (row["state"], row["reason"]) == ("missing", "not started")
    assert row[["objective", "fvu", "l0", "n_alive", "ce_recovered", "flops_measured", "wall_s"]].isna().all()
    assert row["flops_dense"] == plan["runs"][0]["flops_dense"]


def test_a_running_run_is_missing_and_says_its_last_state(store):
    root, plan = store
    result_of(root, plan).unlink()
    (result_of(root, plan).parent / "status.json").write_text('{"state": "running"}')
    row = build_table(plan, root).iloc[0]
    assert row["state"] == "missing" and "running" in row["reason"]


def test_a_failed_run_says_why(store):
    root, plan = store
    result_of(root, plan).unlink()
    (result_of(root, plan).parent / "status.json").write_text('{"state": "failed", "reason": "no space left"}')
    row = build_table(plan, root).iloc[0]
    assert (row["state"], row["reason"]) == ("failed", "no space left")


def test_a_result_outlives_a_stale_failed_status(store):
    root, plan = store
    (result_of(root, plan).parent / "status.json").write_text('{"state": "failed", "reason": "first attempt"}')
    assert build_table(plan, root).iloc[0]["state"] == "done"


@pytest.mark.parametrize("content", ['{"schema": 1, "metr', "", "[1, 2]", '{"run_id": "x"}', "\udcff"])
def test_a_truncated_or_garbled_result_is_damaged(store, content):
    root, plan = store
    result_of(root, plan).write_bytes(content.encode("utf-8", "surrogateescape"))
    row = build_table(plan, root).iloc[0]
    assert row["state"] == "damaged" and row["reason"] and math.isnan(row["objective"])


def test_a_result_of_another_run_is_damaged(store):
    root, plan = store
    result_of(root, plan).write_text(result_of(root, plan, 1).read_text())
    row = build_table(plan, root).iloc[0]
    assert row["state"] == "damaged" and plan["runs"][1]["run_id"] in row["reason"]


def test_a_result_with_another_fingerprint_is_damaged(store):
    root, plan = store
    plan["runs"][0]["fingerprint"] = "another"
    row = build_table(plan, root).iloc[0]
    assert row["state"] == "damaged" and "another" in row["reason"]


def test_a_result_with_other_science_is_damaged_and_names_the_key(store):
    root, plan = store
    science = json.loads(json.dumps(plan["runs"][0]["science"]))
    science["train"]["lr"] = 0.5
    edit(result_of(root, plan), science=science)
    row = build_table(plan, root).iloc[0]
    assert row["state"] == "damaged" and "train.lr 0.5" in row["reason"]


def test_a_science_key_that_only_a_newer_plan_knows_damages_nothing(store):
    root, plan = store
    plan["runs"][0]["science"]["train"]["new_option"] = None
    assert build_table(plan, root).iloc[0]["state"] == "done"


def test_a_metric_that_was_not_measured_is_nan(store):
    root, plan = store
    metrics = json.loads(result_of(root, plan).read_text())["metrics"] | {"ce_recovered": None, "delta_ce": math.nan}
    edit(result_of(root, plan), metrics=metrics)
    row = build_table(plan, root).iloc[0]
    assert row["state"] == "done" and math.isnan(row["ce_recovered"]) and math.isnan(row["delta_ce"])


def test_one_alive_window_serves_all_rows_and_is_the_smallest_that_meets_the_rule(store):
    root, plan = store
    df = build_table(plan, root)
    assert set(df["alive_window_tokens"]) == {100 * 1024 / 16}
    assert set(df["alive_rule_met"]) == {"yes"}


def test_n_alive_counts_first_firings_inside_the_window_only(store):
    root, plan = store
    window = 100 * 1024 // 16
    fired = np.full(256, -1)
    fired[:5] = [0, 17, window - 1, window, 60000]
    np.save(result_of(root, plan).parent / "first_fired.npy", fired)
    assert build_table(plan, root).iloc[0]["n_alive"] == 3


def test_the_window_is_capped_by_the_held_out_set_and_the_rows_say_so():
    done = pd.DataFrame({"n_latents": [256, 4096], "l0": [16.0, 4.0], "n_held_out_tokens": [50000.0, 60000.0]})
    assert alive_window(done) == 50000
    assert alive_window(done.assign(l0=[16.0, 16.0])) == 25600


def test_a_capped_window_is_flagged_row_by_row(store):
    root, plan = store
    for i in range(len(plan["runs"])):
        path = result_of(root, plan, i)
        edit(path, metrics=json.loads(path.read_text())["metrics"] | {"n_held_out_tokens": 4000})
    df = build_table(plan, root)
    assert set(df["alive_window_tokens"]) == {4000}
    assert dict(zip(df["n_latents"], df["alive_rule_met"], strict=True)) == {256: "yes", 512: "yes", 1024: "no"}


@pytest.mark.parametrize("damage", ["absent", "garbled", "wrong length"])
def test_without_a_usable_first_fired_n_alive_is_nan_and_the_row_says_why(store, damage):
    root, plan = store
    path = result_of(root, plan).parent / "first_fired.npy"
    path.unlink()
    if damage == "garbled":
        path.write_bytes(b"no numpy")
    if damage == "wrong length":
        np.save(path, np.zeros(7, int))
    row = build_table(plan, root).iloc[0]
    assert row["state"] == "done" and math.isnan(row["n_alive"]) and "n_alive unknown" in row["reason"]


def test_a_table_read_back_is_the_table_written(store):
    root, plan = store
    result_of(root, plan).write_text("{")
    plan["runs"][1]["run_id"] = "007"
    df = build_table(plan, root)
    pd.testing.assert_frame_equal(read_table(write_table(df, root / "table.csv")), df, check_exact=True)


def test_writing_a_table_leaves_nothing_else_behind(store):
    root, plan = store
    write_table(build_table(plan, root), root / "out" / "table.csv")
    assert [path.name for path in (root / "out").iterdir()] == ["table.csv"]


def test_a_table_with_no_run_finished_can_be_built_and_read(tmp_path, make_plan):
    plan, _ = make_plan()
    df = read_table(write_table(build_table(plan, tmp_path), tmp_path / "table.csv"))
    assert set(df["state"]) == {"missing"} and df["objective"].isna().all()


def test_a_missing_table_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="saescale collect"):
        read_table(tmp_path / "table.csv")


@pytest.mark.parametrize("cut", [
    lambda raw: raw[:0], lambda raw: raw[:raw.rstrip().rfind(b"\n") + 90], lambda raw: b"\xff\xfe" + raw])
def test_a_table_that_is_empty_or_cut_off_is_refused_by_its_path(store, cut):
    root, plan = store
    path = write_table(build_table(plan, root), root / "table.csv")
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(ValueError, match=r"table.csv cannot be read .*saescale collect") as e:
        read_table(path)
    assert "\n" not in str(e.value)
