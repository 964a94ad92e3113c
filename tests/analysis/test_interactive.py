import hashlib
import re
from importlib import resources

import numpy as np
import pytest

from analysis import figures
from analysis.figures import style
from analysis.figures.interactive import describe, run_ids
from analysis.figures.mathtext import pieces, plain
from analysis.sweep_fit import fit_sweep


@pytest.fixture(scope="module")
def study(make_table, sweep_of):
    df = make_table(sweep_of(run_sd=0.01))
    return df, fit_sweep(df, draws=100)


@pytest.fixture
def drawn():
    """A figure of one log-log panel, and its axes."""
    figure, (ax,) = style.panels(1, 5.0, 4.0)
    ax.set(xscale="log", yscale="log", xlabel="compute $C$", ylabel="loss")
    return figure, ax


def only(described: dict) -> dict:
    return described["panels"][0]["series"][0]


@pytest.mark.parametrize("name", figures.SWEEP_FIGURES)
def test_a_figure_of_a_sweep_needs_nothing_more_to_be_interactive(study, name):
    panels = describe(figures.draw(name, *study))["panels"]
    assert all(panel["series"] and panel["x"]["log"] and panel["x"]["ticks"] for panel in panels)


def test_every_finished_run_with_a_budget_stands_behind_the_loss(study):
    described = describe(figures.draw("loss_vs_compute", *study))
    assert run_ids(described) == sorted(study[0]["run_id"])


def test_a_point_keeps_its_place_and_its_run(drawn):
    (line,) = drawn[1].plot([1e9, 1e10], [0.5, 0.25], "o", color="#c8500a")
    style.of_runs(line, ["a", "b"])
    series = only(describe(drawn[0]))
    assert (series["x"], series["y"], series["runs"]) == ([1e9, 1e10], [0.5, 0.25], [["a"], ["b"]])
    assert (series["colour"], series["marker"], series["line"]) == ("#c8500a", "circle", 0)


def test_a_mean_names_all_its_runs(drawn):
    (line,) = drawn[1].plot([1e9], [0.5], "o")
    style.of_runs(line, [["a", "b"]])
    assert run_ids(describe(drawn[0])) == ["a", "b"]


def test_as_many_runs_as_points_are_named(drawn):
    (line,) = drawn[1].plot([1e9, 1e10], [0.5, 0.25], "o")
    style.of_runs(line, ["a"])
    with pytest.raises(AssertionError, match="1 runs named for 2 points"):
        describe(drawn[0])


def test_a_gap_in_a_line_stays_a_gap(drawn):
    drawn[1].plot([1e9, 1e10, 1e11], [0.5, np.nan, 0.25])
    assert only(describe(drawn[0]))["x"] == [1e9, None, 1e11]


def test_a_line_across_the_axes_is_told_in_their_units(drawn):
    drawn[1].plot([1e9, 1e10], [0.5, 0.25])
    drawn[1].set_xlim(1e8, 1e11)
    drawn[1].axhline(0.3)
    across = describe(drawn[0])["panels"][0]["series"][1]
    assert np.allclose(across["x"], [1e8, 1e11], rtol=1e-4) and np.allclose(across["y"], 0.3)


def test_a_band_is_a_filled_shape_between_its_edges(drawn):
    drawn[1].fill_between([1e9, 1e10], [0.2, 0.1], [0.4, 0.3], color="#0a62a8", alpha=0.2)
    band = only(describe(drawn[0]))
    assert band["fill"] and band["alpha"] == 0.2
    assert {*zip(band["x"], band["y"], strict=True)} == {(1e9, 0.2), (1e10, 0.1), (1e9, 0.4), (1e10, 0.3)}


def test_a_scatter_falls_into_its_colours_with_their_runs(drawn):
    dots = drawn[1].scatter([1e9, 2e9, 3e9], [0.3, 0.2, 0.1], c=["#ff0000", "#0000ff", "#ff0000"])
    style.of_runs(dots, ["a", "b", "c"])
    series = describe(drawn[0])["panels"][0]["series"]
    assert {s["colour"]: s["runs"] for s in series} == {"#ff0000": [["a"], ["c"]], "#0000ff": [["b"]]}


def test_a_legend_entry_knows_the_series_that_look_like_it(drawn):
    ax = drawn[1]
    (filled,) = ax.plot([1e9], [1], "o", color="#1a1a1a")
    (hollow,) = ax.plot([1e9], [2], "o", color="#1a1a1a", markerfacecolor="white")
    ax.legend([hollow, filled], ["not fitted", "fitted $n^*$"])
    panel = describe(drawn[0])["panels"][0]
    keys = [entry["key"] for entry in panel["legend"]["entries"]]
    assert [series["keys"] for series in panel["series"]] == [[keys[1]], [keys[0]]]


def test_a_legend_of_one_panel_speaks_for_the_others():
    figure, axes = style.panels(2, 8.0, 4.0)
    handles = [ax.plot([1, 2], [1, 2], color="#c8500a", label="law")[0] for ax in axes]
    axes[1].legend(handles=handles[1:])
    first, second = describe(figure)["panels"]
    assert first["series"][0]["keys"] == second["series"][0]["keys"] == [second["legend"]["entries"][0]["key"]]


def test_an_image_stays_a_picture(drawn):
    drawn[1].set(xscale="linear", yscale="linear")
    drawn[1].imshow(np.eye(3))
    assert describe(drawn[0]) is None


def test_panels_that_share_numbers_get_them_back():
    figure, axes = style.panels(2, 8.0, 4.0)
    for ax in axes:
        ax.plot([1, 2], [1, 2])
    axes[0].set_ylabel("loss")
    axes[1].set_yticklabels([])
    first, second = describe(figure)["panels"]
    assert second["y"]["ticks"] == first["y"]["ticks"] and second["y"]["label"] == [["loss", ""]]


def test_mathematics_becomes_text_with_raised_and_lowered_parts():
    parts = [["f", "i"], ["50", "sub"], [" ∝ ", ""], ["C", "i"], ["-q", "sup"], [", all", ""]]
    assert pieces(r"$f_{50} \propto C^{-q}$, all") == parts
    assert plain(r"$\mathdefault{10^{9}}$") == "10⁹"
    assert plain(r"2.5$\times 10^{-4}$") == "2.5 × 10⁻⁴"
    assert plain("C^q") == "C^q" and plain("$C^q$") == "C^q"


def test_what_the_report_is_drawn_with_is_what_its_registry_gave():
    vendor = resources.files("analysis").joinpath("vendor")
    row = r"^\| (\S+\.js) \| \S+ \S+ \| (\S+) \| (\w+) \((\S+)\) \| (\w{64}) \|$"
    rows = re.findall(row, vendor.joinpath("README.md").read_text(), re.MULTILINE)
    assert [row[0] for row in rows] == ["chart.umd.min.js"]
    for name, version, licence, where, digest in rows:
        content = vendor.joinpath(name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest and f"v{version}".encode() in content[:200]
        assert licence in vendor.joinpath(where).read_text()
        assert b"</script" not in content.lower() and b"<!--" not in content


def test_an_axis_that_runs_downwards_and_a_turned_word_stay_so(drawn):
    drawn[1].plot([1e9, 1e10], [0.5, 0.25])
    drawn[1].invert_yaxis()
    drawn[1].text(1e9, 0.3, "rare", rotation=90)
    (panel,) = describe(drawn[0])["panels"]
    assert panel["y"]["reverse"] and "reverse" not in panel["x"]
    assert (panel["texts"][0]["words"], panel["texts"][0]["turn"]) == ("rare", 90)


def test_hollow_dots_and_panels_put_aside_are_what_they_are():
    figure, axes = style.panels(2, 8.0, 4.0)
    axes[0].scatter([1, 2], [1, 2], facecolors="none", edgecolors="#0a62a8")
    axes[1].set_visible(False)
    (panel,) = describe(figure)["panels"]
    assert (panel["series"][0]["face"], panel["series"][0]["colour"]) == ("none", "#0a62a8")


def test_an_error_bar_stands_in_the_legend_in_its_colour(drawn):
    drawn[1].errorbar([1e9], [0.5], yerr=[0.1], fmt="o", color="#0a62a8", label="seen")
    drawn[1].legend()
    (panel,) = describe(drawn[0])["panels"]
    (entry,) = panel["legend"]["entries"]
    assert entry["colour"] == "#0a62a8" and all(series["keys"] == [entry["key"]] for series in panel["series"])
