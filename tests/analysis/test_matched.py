"""Kinds of SAE at one l0: the order at each size, what seeds cannot tell, and what is left out."""

import pandas as pd
import pytest

from analysis import matched
from analysis.report_laws import sections
from analysis.summary import answer_of_kinds


def row(kind, n, fvu, seed=0, l0=32.0, lr=0.01, **more):
    keeps = kind in ("topk", "batchtopk")
    said = {"k": 32.0 if keeps else None, "target_l0": None if keeps else 32.0} | more
    return {"run_id": f"{kind}-{n}-{seed}-{lr}-{said['k']}", "state": "done", "kind": kind, "n_latents": n, "n_tokens": 1000,
            "seed": seed, "lr": lr, "fvu": fvu, "l0": l0, **said}


def table(*rows):
    return pd.DataFrame(rows)


TWO_SIZES = [row("topk", 256, 0.20), row("topk", 256, 0.22, 1), row("gated", 256, 0.21), row("gated", 256, 0.25, 1),
             row("topk", 1024, 0.12), row("topk", 1024, 0.14, 1), row("gated", 1024, 0.10), row("gated", 1024, 0.11, 1)]


def test_kinds_stand_best_first_with_their_mean_and_their_seeds():
    found = matched.matched_l0(table(*TWO_SIZES))
    assert found["wanted_l0"] == 32 and [size["n_latents"] for size in found["sizes"]] == [256, 1024]
    small, large = found["sizes"]
    assert [one["kind"] for one in small["kinds"]] == ["topk", "gated"]
    assert [one["kind"] for one in large["kinds"]] == ["gated", "topk"]
    best = large["kinds"][0]
    assert best["estimate"] == pytest.approx(0.105) and (best["lo"], best["hi"], best["seeds"]) == (0.10, 0.11, 2)


def test_the_answer_names_what_seeds_do_not_tell_apart_and_whether_the_order_changes():
    said = matched.answer(matched.matched_l0(table(*TWO_SIZES)))
    assert "topk at 256 latents (0.210, within the seeds' spread of gated)" in said
    assert "gated at 1,024 latents (0.105)" in said and said.endswith("The order of kinds changes with size.")
    same = [r | {"fvu": r["fvu"] + 0.2 * (r["kind"] == "gated")} for r in TWO_SIZES]
    assert matched.answer(matched.matched_l0(table(*same))).endswith("The order of kinds does not change with size.")


def test_one_seed_claims_no_spread():
    found = matched.matched_l0(table(row("topk", 256, 0.2), row("gated", 256, 0.3)))
    assert found["sizes"][0]["kinds"][0] == {"kind": "topk", "estimate": 0.2, "lo": None, "hi": None, "l0": 32.0, "seeds": 1}
    assert matched.answer(found) == "At an l0 of 32 the lowest fvu is that of topk at 256 latents (0.200)."


def test_a_kind_that_missed_the_l0_is_left_out_and_a_size_with_one_kind_says_nothing():
    rows = [row("topk", 256, 0.2), row("gated", 256, 0.3), row("relu_l1", 256, 0.1, l0=40.0), row("topk", 512, 0.1),
            row("relu_l1", 512, 0.05, l0=36.0)]
    found = matched.matched_l0(table(*rows))
    assert [(s["n_latents"], [one["kind"] for one in s["kinds"]]) for s in found["sizes"]] == [(256, ["topk", "gated"])]
    with pytest.raises(ValueError, match="No size has two kinds within 10% of the wanted l0 32"):
        matched.matched_l0(table(*rows[3:]))


def test_each_kind_counts_at_its_best_rate_and_other_l0s_do_not_count():
    rows = [row("topk", 256, 0.2), row("topk", 256, 0.5, lr=0.1), row("gated", 256, 0.3), row("topk", 256, 0.01, k=64.0, l0=64.0)]
    assert [one["estimate"] for one in matched.matched_l0(table(*rows))["sizes"][0]["kinds"]] == [0.2, 0.3]


def test_kinds_with_fixed_penalties_have_no_l0_to_be_compared_at():
    rows = [row("relu_l1", 256, 0.2, target_l0=None), row("gated", 256, 0.3, target_l0=None)]
    with pytest.raises(ValueError, match=r"sae\.target_l0"):
        matched.matched_l0(table(*rows))


def test_runs_of_several_hooks_are_not_one_comparison():
    rows = [row("topk", 256, 0.2, hook_name="blocks.0"), row("gated", 256, 0.3, hook_name="blocks.1")]
    with pytest.raises(ValueError, match="mixes hook_name"):
        matched.matched_l0(table(*rows))


def test_the_report_shows_a_row_per_kind_and_a_column_per_size():
    block = matched.matched_l0(table(*TWO_SIZES))
    section, = sections({"matched_l0": block})
    assert "Kinds at the same l0" in section and "1,024 latents" in section and "0.105 [0.100, 0.110], l0 32.0" in section
    assert section.index("gated") < section.index("topk")  # best at the largest size first
    assert answer_of_kinds({"matched_l0": block}) == matched.answer(block)
    assert answer_of_kinds({}) == answer_of_kinds({"matched_l0": {"reason": "none"}}) == ""
