import io
import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from analysis import figures
from analysis.codes import WARNINGS
from analysis.isoflops import isoflop
from analysis.report import write_report
from analysis.result import FitResult
from analysis.summary import exponent_rows
from analysis.sweep_fit import fit_sweep
from analysis.sweep_laws import best_rates, sweep_laws
from analysis.sweep_points import sweep_points


@pytest.fixture(scope="module")
def study(make_table, sweep_of):
    """A noisy sweep of a known interaction law, its valleys' fits and everything else."""
    df = make_table(sweep_of(run_sd=0.01))
    return df, fit_sweep(df, draws=100) | sweep_laws(df, draws=120)


def test_the_interaction_is_chosen_over_the_additive_law_and_its_exponent_is_the_true_one(study, sweep_of):
    block = study[1]["surface"]
    assert block["law"] == "nd_interaction" and block["fit"]["status"] == "ok"
    assert block["fit"]["derived"]["a"] == pytest.approx(sweep_of().law.p, abs=0.02)
    assert [m["law"] for m in block["models"] if m["chosen"]] == ["nd_interaction"] and block["others"][0]["law"]["name"] == "nd"
    assert block["fit"]["conventions"]["cluster"] == "trunk_id" and block["fit"]["holdout"]["cuts"]


def test_the_split_is_estimated_three_ways_near_the_truth(study, sweep_of):
    block = study[1]["allocation"]
    known = {method: one for method, one in block["estimates"].items() if "a" in one}
    assert {"parametric", "isoflop"} <= known.keys() and block["compute"].startswith("C = ")
    for one in known.values():
        assert one["a"]["estimate"] == pytest.approx(sweep_of().law.p, abs=0.06)
    assert len(block["disagreement"]) == len(known) * (len(known) - 1) / 2


def test_the_exponent_is_told_by_every_estimator(study):
    names = {(r["group"], r["name"]) for r in study[1]["exponents"]}
    assert {("surface", "nd_interaction, lad"), ("surface", "nd, huber"), ("iso-FLOP", "parabola in loss")} <= names
    assert any(r["note"].startswith("rejected") for r in study[1]["exponents"])


def test_a_sweep_with_one_rate_per_cell_says_why_there_is_no_rate_law(study):
    assert "At most 1 learning rates" in study[1]["learning_rate"]["reason"]


def test_fits_are_plain_json_without_nan(study):
    again = json.loads(json.dumps(study[1], allow_nan=False))
    assert FitResult.from_dict(again["surface"]["fit"]).params == study[1]["surface"]["fit"]["params"]


def test_a_sweep_without_results_gives_reasons_in_every_block(make_plan, tmp_path):
    from analysis.tables import build_table

    blocks = sweep_laws(build_table(make_plan()[0], tmp_path), draws=100)
    assert all("no run of this sweep" in block["reason"].lower() for block in blocks.values())


def test_several_kinds_in_one_table_are_refused(make_table):
    df = make_table()
    df.loc[:4, "kind"] = "relu_l1"
    with pytest.raises(ValueError, match="mixes kind"):
        sweep_points(df)


@pytest.fixture(scope="module")
def rates(make_table, sweep_of):
    """Three sizes and three horizons at four rates each; the best is 6e-3 (n / 1024)^-.5 (T / 1e5)^-.25."""
    df = make_table(sweep_of(budgets=(2.5e10, 1e11, 4e11), sizes=(256, 512, 1024, 2048), seeds=1))
    tries = []
    for factor in (0.35, 0.7, 1.4, 2.8):
        one = df.copy()
        best = 6e-3 * (one["n_latents"] / 1024) ** -0.5 * (one["n_tokens"] / 1e5) ** -0.25
        one["lr"], one["objective"] = best * factor, one["objective"] * np.exp(0.2 * math.log(factor) ** 2)
        one["run_id"] += f"-{factor}"
        tries.append(one)
    return pd.concat(tries, ignore_index=True)


def test_the_best_rate_is_fitted_over_size_and_tokens_together(rates):
    block = best_rates(rates, draws=120)
    assert block["fit"]["derived"]["p_N"] == pytest.approx(-0.5, abs=0.02)
    assert block["fit"]["derived"]["p_D"] == pytest.approx(-0.25, abs=0.02) and block["edges"] == []


def test_a_cell_whose_best_rate_is_the_largest_tried_says_so(rates):
    table = rates.copy()
    wide = table["n_latents"] == 1024
    table.loc[wide, "objective"] *= table.loc[wide, "lr"] ** -1.0  # larger rates were better there, to the end of the grid
    block = best_rates(table, draws=120)
    assert {(e["N"], e["edge"]) for e in block["edges"]} == {(1024.0, "highest")} and "lr_at_edge" in block["fit"]["warnings"]


def test_a_sweep_of_rates_without_budgets_is_fitted_drawn_and_reported(rates, make_plan, tmp_path):
    loose = rates.assign(target_flops=np.nan)
    fits = fit_sweep(loose, draws=100) | {"learning_rate": best_rates(loose, draws=120)}
    assert fits["budgets"] == [] and figures.of_sweep(loose, fits) == ("learning_rate",)
    drawn = [figures.write("learning_rate", tmp_path / "report" / "figures", loose, fits)]
    assert "Best learning rate" in write_report(tmp_path, make_plan()[0], loose, fits, drawn).read_text()


@pytest.fixture(scope="module")
def full(study, rates):
    """Every block filled."""
    share = {"n_latents": 256, "n_tokens": 9, "runs": 1, "dead_share": 0.1, "share": [0.3, 0.6], "median": 1e-2}
    dots = [{"run_id": study[0]["run_id"].iloc[0], "n_latents": 256, "n_tokens": 9, "seed": 0, "dead_share": 0.1}]
    counts = {"edges": [1e-4, 1e-2, 1.0], "n_held_out_tokens": 65536, "sizes": [share], "runs": dots}
    return study[0], study[1] | {"firing": counts, "learning_rate": best_rates(rates, draws=120)}


@pytest.mark.parametrize("name", (*figures.LAW_FIGURES, "learning_rate", "firing"))
def test_every_law_figure_draws_from_full_fits_and_from_empty_ones(full, name):
    for fits in (full[1], {"budgets": [], "surface": {"reason": "why not"}}):
        figure = figures.draw(name, full[0], fits)
        figure.savefig(svg := io.BytesIO(), format="svg")
        assert svg.getvalue().rstrip().endswith(b"</svg>") and all(ax.get_xlabel() for ax in figure.axes)


def test_held_out_points_are_hollow_and_the_law_was_fitted_without_them(full):
    ax = figures.draw("law_fit", *full).axes[0]
    hollow = sum(len(line.get_xdata()) for line in ax.lines if line.get_markerfacecolor() == "white")
    assert hollow == (full[0]["target_flops"] == full[0]["target_flops"].max()).sum()
    assert full[1]["surface"]["below"]["fit"]["n_rows"] == len(full[0]) - hollow


def test_unresolved_budgets_are_hollow_in_the_valleys(make_table, sweep_of):
    df = make_table(sweep_of())
    df = df[~((df["target_flops"] == 1.6e12) & (df["n_latents"] > 2048))]
    fits = {"isoflop": isoflop(sweep_points(df), scale="ln_loss", sizes=5, draws=100).to_dict()}
    ax = figures.draw("valleys", df, fits).axes[0]
    stars = [line for line in ax.lines if line.get_marker() == "*"]
    bad = sum(b["status"] != "bracketed" for b in fits["isoflop"]["budgets"])
    assert bad >= 1 and len(stars) == len(fits["isoflop"]["budgets"]) - bad


def test_a_sweep_gets_the_figures_it_can_fill(full, study):
    assert set(figures.LAW_FIGURES) - set(figures.of_sweep(*full)) == {"valleys"}
    assert "learning_rate" not in figures.of_sweep(*study) and "firing" in figures.of_sweep(*full)
    nothing = full[1] | {"exponents": [{"estimate": None}], "others": [{"name": "theirs"}]}
    assert "exponents" not in figures.of_sweep(full[0], nothing) and "others" in figures.of_sweep(full[0], nothing)


def test_the_report_holds_the_models_the_split_the_rates_and_the_dead(full, make_plan, tmp_path):
    text = write_report(tmp_path, make_plan()[0], full[0], full[1], []).read_text()
    for words in ("The split of compute, three ways", "held-out error", "Influence", "Best learning rate", "Dead latents"):
        assert words in text
    assert re.search(r"nd_interaction</td>.*?chosen", text, re.S)


def test_the_terminal_shows_the_surface_the_cubic_valleys_and_the_rate(full):
    rows = {row[0]: row[1] for row in exponent_rows(full[1])}
    a = full[1]["allocation"]["estimates"]["parametric"]["a"]["estimate"]
    assert rows["n* ~ C^a by the surface nd_interaction: a"] == a and "best lr ~ n^p T^q: q" in rows


def test_the_guide_names_no_warning_that_does_not_exist():
    from pathlib import Path

    text = (Path(__file__).resolve().parents[2] / "docs" / "fitting.md").read_text()
    first = [row.split(" | ")[0] for row in text.split("## Warnings")[1].splitlines()]
    named = {code for cell in first for code in re.findall(r"`([a-z0-9_]+)`", cell)}
    assert len(named) > 20 and named <= WARNINGS.keys()
