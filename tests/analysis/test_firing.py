"""How often latents fire, by size and by kind: the record, its figure and its table in the report."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from analysis import figures
from analysis.figures.interactive import describe, run_ids
from analysis.firing import firing
from analysis.report_laws import sections
from analysis.tables import build_table

TOKENS = 65536
KINDS = {"topk": 0.0, "relu_l1": 0.25, "gated": 0.5}  # dead shares


def test_frequencies_are_counts_over_the_held_out_tokens(make_store, tmp_path):
    plan = make_store(tmp_path)
    df = build_table(plan, tmp_path)
    run = df[df["n_latents"] == 256].sort_values("n_tokens").iloc[-1]
    counts = np.zeros(256, int)
    counts[:192] = 65  # of 65,536 held-out tokens: just under 1e-3
    np.save(tmp_path / "by-id" / run["run_id"] / "fire_counts.npy", counts)
    found = firing(df, tmp_path)
    (size,) = found["sizes"]
    assert (size["n_latents"], size["dead_share"]) == (256, 0.25) and size["median"] == pytest.approx(65 / 65536)
    at = np.searchsorted(found["edges"], 65 / 65536) - 1
    assert size["share"][at] == 0.75 and sum(size["share"]) == 0.75 and found["n_held_out_tokens"] == 65536
    np.save(tmp_path / "by-id" / run["run_id"] / "fire_counts.npy", counts[:10])
    assert firing(df, tmp_path)["sizes"] == []


@pytest.fixture
def several(make_table, tmp_path):
    """(table, store): three kinds at wanted l0 8 (one size) and 32 (three sizes), two horizons, two rates, two seeds. Only runs
    of l0 32 at the longest horizon and best rate have the dead share of their kind: of all others every latent is dead."""
    rows = []
    for kind, dead in KINDS.items():
        for n, l0, n_tokens, lr, seed in [(n, l0, t, lr, s) for n in (64, 256, 1024) for l0 in (8, 32) for t in (512, 1024)
                                          for lr in (1e-3, 2e-3) for s in (0, 1) if n == 256 or l0 == 32]:
            wanted = {"k": float(l0), "target_l0": math.nan} if kind == "topk" else {"k": math.nan, "target_l0": float(l0)}
            best = l0 == 32 and n_tokens == 1024 and lr == 2e-3
            rows.append({"run_id": f"{kind}-{n}-{l0}-{n_tokens}-{lr}-{seed}", "kind": kind, "n_latents": n, "n_tokens": n_tokens,
                         "lr": lr, "seed": seed, "fvu": 1e-4 / lr, "objective": lr, "state": "done", "target_flops": math.nan,
                         "n_held_out_tokens": TOKENS, "dead": dead if best else 1.0, **wanted})
    table = pd.concat([make_table().iloc[[0] * len(rows)].drop(columns=list(rows[0]), errors="ignore").reset_index(drop=True),
                       pd.DataFrame(rows)], axis=1)
    for row in table.itertuples():
        counts = np.full(row.n_latents, 65)
        counts[: int(row.dead * row.n_latents)] = 0
        (folder := tmp_path / "by-id" / row.run_id).mkdir(parents=True)
        np.save(folder / "fire_counts.npy", counts)
    return table, tmp_path


def pooled(record: dict) -> dict:
    """The record as it was written before kinds were told apart."""
    sizes = [{k: v for k, v in s.items() if k != "kind"} for s in record["sizes"] if s["kind"] == "topk"]
    return {key: value for key, value in record.items() if key != "wanted_l0"} | {"sizes": sizes}


def test_kinds_are_told_apart_at_one_wanted_l0_the_longest_horizon_and_the_best_rate(several):
    found = firing(*several)
    assert found["wanted_l0"] == 32 and len(found["runs"]) == len(several[0])
    assert [(s["kind"], s["n_latents"]) for s in found["sizes"]] == [(k, n) for k in sorted(KINDS) for n in (64, 256, 1024)]
    for size in found["sizes"]:
        assert (size["n_tokens"], size["runs"], size["dead_share"]) == (1024, 2, KINDS[size["kind"]])
        assert sum(size["share"]) == pytest.approx(1 - KINDS[size["kind"]])
    json.dumps(found)


def test_one_kind_and_wanted_l0_is_pooled_over_rates_by_size(several):
    table = several[0][(several[0]["kind"] == "gated") & (several[0]["target_l0"] == 32)]
    found = firing(table, several[1])
    assert found.keys() == {"edges", "n_held_out_tokens", "sizes", "runs"}
    expected = [{"n_latents": n, "n_tokens": 1024, "runs": 4, "dead_share": 0.75} for n in (64, 256, 1024)]
    assert [{key: s[key] for key in expected[0]} for s in found["sizes"]] == expected
    assert all("kind" not in s for s in found["sizes"])


def test_one_kind_of_several_wanted_l0_is_shown_at_one(several):
    table = several[0][several[0]["kind"] == "topk"]
    found = firing(table, several[1])
    assert found["wanted_l0"] == 32 and [s["dead_share"] for s in found["sizes"]] == [0, 0, 0]
    left, right = figures.draw("firing", table, {"firing": found}).axes
    assert left.get_title(loc="left") == "wanted $L_0$ 32" and len(left.patches) == 3
    assert "wanted $L_0$ 32" in right.get_title(loc="left") and max(max(line.get_ydata()) for line in right.lines) == 0


def test_kinds_without_a_wanted_l0_are_still_told_apart(several):
    table = several[0][several[0]["k"].isna()].assign(target_l0=math.nan)
    found = firing(table, several[1])
    assert found["wanted_l0"] is None and {s["kind"] for s in found["sizes"]} == {"gated", "relu_l1"}
    axes = figures.draw("firing", table, {"firing": found}).axes
    assert all("no wanted $L_0$" in ax.get_title(loc="left") for ax in axes)


def test_a_horizon_that_few_kinds_have_reached_is_not_compared(several):
    table = several[0]
    early = table[~((table["kind"] != "topk") & (table["n_tokens"] == 1024) & (table["n_latents"] == 64))]
    tokens = {(s["kind"], s["n_latents"]): s["n_tokens"] for s in firing(early, several[1])["sizes"]}
    assert {tokens[kind, 64] for kind in KINDS} == {512} and {tokens[kind, 256] for kind in KINDS} == {1024}


def test_each_kind_is_a_histogram_at_the_largest_shared_size_and_a_line_against_size(several):
    table = several[0][~((several[0]["kind"] == "gated") & (several[0]["n_latents"] == 1024))]
    record = firing(table, several[1])
    figure = figures.draw("firing", table, {"firing": record})
    left, right = figure.axes
    assert left.get_title(loc="left") == "n_latents = 256, wanted $L_0$ 32" and len(left.patches) == 3
    lines = [line for line in right.lines if line.get_linestyle() == "-"]
    assert [list(line.get_xdata()) for line in lines] == [[64, 256], [64, 256, 1024], [64, 256, 1024]]
    assert [set(line.get_ydata()) for line in lines] == [{KINDS[kind]} for kind in sorted(KINDS)]
    assert [text.get_text() for text in right.get_legend().get_texts()] == sorted(KINDS)
    described = describe(figure)
    assert run_ids(described) == sorted(run for line in lines for group in line.runs for run in group)
    assert len(run_ids(described)) == 2 * (2 + 3 + 3) and all(s["keys"] for p in described["panels"] for s in p["series"])


def test_a_record_of_kinds_pooled_has_kinds_on_the_right_and_says_so_on_the_left(several):
    record = firing(*several)
    new, old = (figures.draw("firing", several[0], {"firing": r}).axes for r in (record, pooled(record)))
    assert "all kinds and settings of a size pooled" in old[0].get_title(loc="left") and len(old[0].patches) == 3
    assert [line.get_ydata().tolist() for line in old[1].lines] == [line.get_ydata().tolist() for line in new[1].lines]


def test_a_record_without_the_runs_of_the_table_says_to_fit_again(several):
    record = firing(*several)
    right = figures.draw("firing", several[0].assign(state="missing"), {"firing": record}).axes[1]
    assert "fit again" in right.texts[0].get_text()


def test_the_table_of_dead_latents_has_a_column_of_kinds_where_there_are_several(several):
    record = firing(*several)
    (text,) = sections({"firing": record})
    assert ">kind</th>" in text and "wanted l0 of 32" in text and len(re.findall(r">(?:topk|gated|relu_l1)</td>", text)) == 9
    (text,) = sections({"firing": pooled(record)})
    assert ">kind</th>" not in text and "wanted" not in text
