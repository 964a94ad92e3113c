"""Figures of splitting, steering and probing, from made-up comparisons; of studies of their own, from what was published."""

import json
from pathlib import Path

import numpy as np
import pytest

from analysis import figures
from analysis.figures.steering import ARMS, chosen_effect

SCALES = [-2.0, 0.0, 1.0, 4.0]
RESULTS = Path(__file__).parents[2] / "results"


def row(n_latents, arm, first, second):
    return {"n_latents": n_latents, "arm": arm, "concept": "yield", "first": first, "second": second}


@pytest.fixture
def steering():
    r = np.random.default_rng(0)
    return {"scales": SCALES, "concepts": [{"concept": "a"}, {"concept": "b"}],
            "rows": [row(n, arm, r.normal(size=4).tolist(), r.normal(size=4).tolist()) for n in (64, 256) for arm in ARMS
                     for _ in range(2)]}


def pair(small, large, trained, novel=0.4):
    return {"small": small, "large": large, "trained": trained, "n_small_alive": small, "novel_fraction": novel,
            "latents_per_small": [{"threshold": t, "mean": 0.5, "counts": [small - 8, 4, 2, 1, 1, 0, 0]} for t in (0.5, 0.7)],
            "cosine_edges": [0.0, 0.5, 1.0], "by_cosine": {"novel": [20, 2], "reconstruction": [5, 30]}}


@pytest.fixture
def splitting():
    sizes = [(64, 256), (64, 1024), (256, 1024)]
    return {"pairs": [pair(s, n, True) for s, n in sizes] + [pair(s, n, False, novel=None) for s, n in sizes]}


@pytest.fixture
def probing():
    def row(kind, n, k, accuracy):
        return {"dictionary": kind, "n_latents": n, "k": k, "accuracy": accuracy, "accuracy_se": 0.01, "n_concepts": 9}

    controls = [row("activations", 128, None, 0.97), row("neurons", 128, 1, 0.8), row("neurons", 128, 3, 0.9)]
    return {"ks": [1, 3], "summary": controls + [row(kind, n, k, (0.8 if kind == "trained" else 0.7) + n / 10_000 + k / 100)
                                                 for kind in ("trained", "untrained") for n in (64, 256) for k in (1, 3)]}


def test_probing_has_a_line_per_k_trained_and_not_and_the_raw_activations_across(probing):
    ax, = figures.draw("probing", probing).axes
    drawn = [tuple(round(float(y), 4) for y in line.get_ydata()) for line in ax.lines]
    for base in (0.8, 0.7):
        for k in (1, 3):
            assert tuple(round(base + n / 10_000 + k / 100, 4) for n in (64, 256)) in drawn
    assert (0.97, 0.97) in drawn


def test_the_effect_is_measured_on_places_that_did_not_choose_the_scale():
    """The first half likes 4 and the second 1: each is read at the other's choice. Scales of 0 and below are not chosen."""
    noisy = row(64, "trained", [9.0, 9.0, 0.5, 2.0], [9.0, 9.0, 1.5, -1.0])
    assert chosen_effect(noisy, np.array(SCALES)) == pytest.approx((-1.0 + 0.5) / 2)


def test_steering_has_a_line_per_arm_by_scale_and_by_size(steering):
    figure = figures.draw("steering", steering)
    by_scale, by_size = figure.axes
    curves = [line for line in by_scale.lines if len(line.get_xdata()) == len(SCALES)]
    assert len(curves) == len(ARMS) and len(by_size.containers) == len(ARMS)
    own = [np.add(r["first"], r["second"]) / 2 for r in steering["rows"] if (r["n_latents"], r["arm"]) == (256, "trained")]
    assert curves[0].get_ydata() == pytest.approx(np.mean(own, 0))
    assert [t.get_text() for t in by_size.get_legend().get_texts()] == [words for words, *_ in ARMS.values()]


def test_splitting_draws_each_pair_and_leaves_out_what_is_missing(splitting):
    children, novel, by_cosine = figures.draw("splitting", splitting).axes
    assert len(children.lines) == 4  # two larger ones of the smallest, trained and untrained
    assert children.lines[0].get_ydata() == pytest.approx(np.array([56, 4, 2, 1, 1, 0, 0]) / 64)
    drawn = [line for line in novel.lines if len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in drawn] == [[256, 1024], [1024]]
    assert [line.get_ydata().tolist() for line in by_cosine.lines] == [[0.8, 2 / 32]] * 2  # each beside the next smaller


@pytest.mark.parametrize("name", figures.RECORD_FIGURES)
def test_each_is_interactive_and_has_words(name, request, tmp_path):
    published = next(RESULTS.glob(f"*/{name}.json"), None) if name in ("rubric", "oversample", "manifolds") else None
    made = figures.write(name, tmp_path, json.loads(published.read_text()) if published else request.getfixturevalue(name))
    assert made["plot"] is not None and made["title"] != name and len(made["caption"]) > 100
