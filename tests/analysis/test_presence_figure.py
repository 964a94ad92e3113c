import math

import numpy as np
import pytest
from concept_frames import frame_of

from analysis.figures import CONCEPT_FIGURES, draw
from analysis.presence import fit_presence

FREQUENCIES = np.geomspace(1e-4, 1e-2, 140)


def record_with(steps, trained=(True, True, False, False), sizes=(512, 1024, 512, 1024)):
    """Dictionary i has every concept more frequent than steps[i]."""
    return {
        "concepts": [{"name": f"w{i}", "frequency": float(f)} for i, f in enumerate(FREQUENCIES)],
        "dictionaries": [
            {"run_id": f"r{i}", "n_latents": n, "n_alive": n // 2, "seed": 0, "trained": t}
            for i, (n, t) in enumerate(zip(sizes, trained, strict=True))
        ],
        "scores": [[0.8 if f > step else 0.1 for f in FREQUENCIES] for step in steps],
    }


def drawn(record, name="concept_presence"):
    frame = frame_of(record)
    fit = fit_presence(frame, draws=50)
    return draw(name, frame, fit), fit


def legend_lines(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def drawn_marks(figure):
    return sum(len(ax.lines) + sum(len(c.get_offsets()) for c in ax.collections) for ax in figure.axes)


def test_both_panels_name_their_axes_and_units():
    figure, _ = drawn(record_with([2e-3, 1e-3, 5e-3, 4e-3]))
    assert all("occurrences per token" in ax.get_xlabel() for ax in figure.axes)
    assert "score ≥ 0.5" in figure.axes[0].get_ylabel()
    assert [ax.get_xscale() for ax in figure.axes] == ["log"] * 2


def test_points_are_shares_of_concepts_in_bins_with_wilson_intervals():
    figure, _ = drawn(record_with([FREQUENCIES[69], 1e-3, 5e-3, 4e-3]))
    bars = figure.axes[0].containers[0]
    x, share = bars.lines[0].get_data()
    assert share.tolist() == [0, 0, 0, 0.5, 1, 1, 1]  # 7 bins of 20, the step in the middle of the fourth
    centre = math.exp(np.log(FREQUENCIES[60:80]).mean())
    assert x[3] == pytest.approx(centre * 1.05**-0.5)
    low, high = bars.lines[2][0].get_segments()[3][:, 1]
    assert (low, high) == (pytest.approx(0.2993, abs=2e-4), pytest.approx(0.7007, abs=2e-4))  # Wilson, 10 of 20


def test_a_curve_stops_where_no_concept_was_sampled():
    figure, _ = drawn(record_with([2e-3, 1e-3, 5e-3, 4e-3]))
    long = [line.get_xdata() for line in figure.axes[0].lines if len(line.get_xdata()) == 200]
    assert len(long) == 2
    assert all(x[0] == pytest.approx(1e-4) and x[-1] == pytest.approx(1e-2) for x in long)


def test_a_50_percent_frequency_beyond_the_range_is_written_as_a_bound_and_has_no_ring():
    figure, fit = drawn(record_with([2.0, 1e-3, 2.0, 2.0]))
    assert [row["status"] for row in fit["sizes"]] == ["> f_max", "inside range", "> f_max", "> f_max"]
    rings = [[line for line in ax.lines if line.get_markersize() == 8] for ax in figure.axes]
    assert [len(found) for found in rings] == [1, 0]
    assert legend_lines(figure.axes[0])[0].startswith("512 (256): > 1$")
    assert legend_lines(figure.axes[1]) == ["512: not known", "1,024: ≤ 0.10"]


def test_the_controls_are_drawn_in_every_figure_of_concepts():
    record = record_with([2e-3, 1e-3, 5e-3, 4e-3])
    for name in CONCEPT_FIGURES:
        with_control, _ = drawn(record, name)
        alone, _ = drawn({**record, "dictionaries": record["dictionaries"][:2], "scores": record["scores"][:2]}, name)
        assert drawn_marks(with_control) > drawn_marks(alone), name


def test_one_size_without_control_is_drawn_by_every_figure_and_says_so():
    for name in CONCEPT_FIGURES:
        figure, fit = drawn(record_with([1e-3], trained=(True,), sizes=(512,)), name)
        assert figure.axes
    assert fit["warnings"] == ["presence_one_size", "presence_no_control"]
    words = [text.get_text() for name in ("concept_presence", "concept_collapse") for ax in
             drawn(record_with([2.0], trained=(True,), sizes=(512,)), name)[0].axes for text in ax.texts]  # fmt: skip
    assert words == ["not scored", "not scored"]
    figure, _ = drawn(record_with([2.0], trained=(True,), sizes=(512,)), "concept_collapse")
    assert "no exponent: 1 distinct n_alive" in figure.axes[0].get_legend().get_title().get_text()


def test_the_law_of_the_50_percent_frequency_is_drawn_beside_1_over_n_alive():
    figure, fit = drawn(record_with([2e-3, 1e-3, 5e-3, 4e-3]), "concept_f50")
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    n, inverse = lines["1 / n_alive"].get_data()
    assert (n * inverse).tolist() == pytest.approx([1.0, 1.0])
    (law,) = (line for label, line in lines.items() if label.startswith("trained: "))
    n, f50 = law.get_data()
    assert -np.log(f50[-1] / f50[0]) / np.log(n[-1] / n[0]) == pytest.approx(fit["joint"]["trained"]["q"])


def test_two_seeds_of_a_size_are_one_curve_with_averaged_points():
    record = record_with([FREQUENCIES[69], FREQUENCIES[79]], trained=(True, True), sizes=(512, 512))
    figure, _ = drawn(record)
    (bars,) = figure.axes[0].containers
    assert bars.lines[0].get_ydata()[3] == pytest.approx(0.25)
