import io
import math

import pandas as pd
import pytest

from analysis import figures
from analysis.sweep_fit import fit_sweep


@pytest.fixture(scope="module")
def study(make_table, sweep_of):
    df = make_table(sweep_of(run_sd=0.01))
    df.loc[(df["target_flops"] == 1.6e12) & (df["n_latents"] > 2048), ["state", "objective"]] = ["missing", math.nan]
    return df, fit_sweep(df, draws=100)


@pytest.mark.parametrize("name", figures.SWEEP_FIGURES)
def test_every_axis_has_a_label_and_a_unit_where_it_has_one(study, name):
    for ax in figures.draw(name, *study).axes:
        assert ax.get_xlabel() and ax.get_ylabel()
        assert ax.get_xscale() == "log"
        assert "n_latents" in ax.get_xlabel() or "FLOPs" in ax.get_xlabel()


@pytest.mark.parametrize("name", figures.SWEEP_FIGURES)
def test_a_figure_is_written_as_svg_and_png(study, tmp_path, name):
    made = figures.write(name, tmp_path, *study)
    assert (tmp_path / made["svg"]).read_bytes().lstrip().startswith(b"<?xml")
    assert (tmp_path / made["png"]).read_bytes().startswith(b"\x89PNG")
    assert made["title"] and len(made["caption"]) > 80


def test_the_same_inputs_give_the_same_bytes(study, tmp_path):
    for folder in ("a", "b"):
        figures.write("isoflop_valleys", tmp_path / folder, *study)
    for suffix in ("svg", "png"):
        name = f"isoflop_valleys.{suffix}"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a" / "isoflop_valleys.svg").read_bytes()


def test_a_figure_ignores_the_users_matplotlib_settings(study):
    import matplotlib

    before = figures.draw("optimal_allocation", *study).axes[0]
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        after = figures.draw("optimal_allocation", *study).axes[0]
    assert after.xaxis.label.get_size() == before.xaxis.label.get_size()
    assert after.get_facecolor() == before.get_facecolor() == (1, 1, 1, 1)


def legend_of(name, df):
    return [text.get_text() for text in figures.draw(name, df, fit_sweep(df, draws=100)).axes[0].get_legend().get_texts()]


@pytest.mark.parametrize("name", ["isoflop_valleys", "optimal_allocation"])
def test_a_legend_speaks_of_intervals_over_seeds_only_where_some_are_drawn(study, name):
    df = study[0]
    assert any("95 % over seeds" in label for label in legend_of(name, df))
    one_seed = legend_of(name, df[df["seed"] == 0])
    assert any("minimum" in label for label in one_seed) and not any("seeds" in label for label in one_seed)
    no_minimum = legend_of(name, df[df["n_latents"] == 256])
    assert not any("minimum" in label for label in no_minimum)


def test_one_curve_per_dictionary_size_is_in_the_legend(study):
    legend = figures.draw("loss_vs_compute", *study).axes[0].get_legend()
    labels = [text.get_text() for text in legend.get_texts()]
    assert {f"{n:,}" for n in study[0]["n_latents"]} <= set(labels)


@pytest.mark.parametrize("name", ["loss_vs_compute", "quality_vs_compute"])
def test_a_curve_of_cells_tried_at_several_rates_goes_through_their_best(study, name):
    df, fits = study
    slow = df.assign(run_id=df["run_id"] + "-slow", lr=1e-6, objective=2 * df["objective"], ce_recovered=0.5)
    one, other = (figures.draw(name, table, fits).axes[0].lines for table in (df, pd.concat([df, slow], ignore_index=True)))
    curves = [[line.get_ydata().tolist() for line in lines if line.get_marker() == "None"] for lines in (one, other)]
    assert curves[0] == curves[1] and len(curves[0]) >= 8


def test_an_unbracketed_budget_is_hollow_and_has_no_star(study):
    ax = figures.draw("isoflop_valleys", *study).axes[0]
    stars = [line for line in ax.lines if line.get_marker() == "*"]
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert len(stars) == 4 and len(hollow) == 1
    assert "not bracketed" in ax.get_legend().get_texts()[4].get_text()


def test_exponents_and_intervals_stand_in_the_legend(study):
    exponent = study[1]["laws"]["n_latents"]["exponent"]
    text = figures.draw("optimal_allocation", *study).axes[0].get_legend().get_texts()[0].get_text()
    assert f"{exponent['estimate']:.2f} [{exponent['lo']:.2f}, {exponent['hi']:.2f}]" in text


@pytest.mark.parametrize("name", figures.SWEEP_FIGURES)
def test_a_sweep_without_results_still_draws(make_plan, tmp_path, name):
    from analysis.tables import build_table

    df = build_table(make_plan()[0], tmp_path)
    figures.draw(name, df, fit_sweep(df, draws=100)).savefig(svg := io.BytesIO(), format="svg")
    assert svg.getvalue().rstrip().endswith(b"</svg>")


@pytest.mark.parametrize("name", figures.SWEEP_FIGURES)
def test_two_budgets_draw_without_a_law(make_table, sweep_of, name):
    df = make_table(sweep_of(budgets=(2.5e10, 1e11), seeds=1))
    figure = figures.draw(name, df, fit_sweep(df, draws=100))
    figure.savefig(io.BytesIO(), format="svg")
    assert any(len(line.get_xdata()) for axes in figure.axes for line in axes.lines)


def test_l0_gets_a_panel_only_where_it_differs(study):
    df, fits = study
    assert len(figures.draw("quality_vs_compute", df, fits).axes) == 2
    assert len(figures.draw("quality_vs_compute", df.assign(l0=df["n_latents"] / 10.0), fits).axes) == 3


def test_an_unknown_figure_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="loss_vs_compute"):
        figures.load("pie_chart")


def test_every_registered_figure_can_be_loaded_and_has_words():
    from analysis.figures.words import WORDS

    assert set(figures.FIGURES) == set(WORDS)
    assert all(callable(figures.load(name)) for name in figures.FIGURES)
