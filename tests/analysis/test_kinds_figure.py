"""The figure that compares kinds of SAE."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis import figures
from analysis.frontiers import wanted_l0
from analysis.size_and_k import most

KINDS = {"topk": 0.0, "relu_l1": 0.3, "gated": 0.1}


@pytest.fixture
def table(make_table):
    """Three kinds, l0 8 to 64 at 1,024 latents and 32 at three sizes; penalties miss their l0 by a little."""
    rows = []
    for kind, worse in KINDS.items():
        for n, l0 in [(1024, l0) for l0 in (8, 16, 32, 64)] + [(256, 32), (4096, 32)]:
            fvu = (1 + worse) * l0**-0.5 * n**-0.1
            wanted = {"k": float(l0), "target_l0": math.nan} if kind == "topk" else {"k": math.nan, "target_l0": float(l0)}
            found = l0 * (1 if kind == "topk" else 1.05)
            rows.append({"kind": kind, "n_latents": n, "n_tokens": 65536, "state": "done", "target_flops": math.nan, "l0": found,
                         "fvu": fvu, "delta_ce": 2 * fvu, **wanted})
    df = make_table().iloc[: len(rows)].reset_index(drop=True)
    return df.drop(columns=list(rows[0]), errors="ignore").join(pd.DataFrame(rows))


def test_a_sweep_of_several_kinds_gets_their_figure_and_one_without_budgets_no_other(table):
    assert figures.of_sweep(table, {"budgets": []}) == ("kinds",)
    assert figures.of_sweep(table, {"budgets": [{}]}) == (*figures.SWEEP_FIGURES, "kinds")
    assert figures.of_sweep(table.assign(kind="topk"), {"budgets": [{}]}) == figures.SWEEP_FIGURES


def test_each_kind_is_a_line_against_l0_at_one_size_and_against_size_at_one_l0(table):
    axes = np.array(figures.draw("kinds", table, {}).axes).reshape(2, 2)
    assert (most(table.assign(wanted_l0=wanted_l0(table)), "n_latents", "wanted_l0"), most(
        table.assign(wanted_l0=wanted_l0(table)), "wanted_l0", "n_latents")) == (1024, 32)
    for row in axes:
        assert [len(line.get_xdata()) for line in row[0].lines] == [4, 4, 4]
        assert [len(line.get_xdata()) for line in row[1].lines] == [3, 3, 3]
        assert "n_latents = 1,024" in row[0].get_xlabel() and "32 to 34, wanted 32" in row[1].get_xlabel()
    assert list(axes[0][0].lines[0].get_xdata()) == pytest.approx([8 * 1.05, 16 * 1.05, 32 * 1.05, 64 * 1.05])  # gated
    labels = [t.get_text() for t in axes[0][1].get_legend().get_texts()]
    assert labels == sorted(KINDS)


def test_a_kind_tried_at_several_rates_is_shown_at_its_best(table):
    slow = table.assign(lr=1e-6, fvu=2 * table["fvu"], delta_ce=2 * table["delta_ce"])
    one, other = (figures.draw("kinds", t, {}).axes[0].lines for t in (table, pd.concat([table, slow], ignore_index=True)))
    assert [line.get_ydata().tolist() for line in one] == [line.get_ydata().tolist() for line in other]


def test_a_sweep_of_kinds_without_results_or_language_model_still_draws(table):
    figures.draw("kinds", table.assign(state="missing"), {})
    without = table.assign(delta_ce=math.nan).drop(columns="target_l0")
    assert len(figures.draw("kinds", without, {}).axes[2].texts) == 1
