import itertools
import json

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.laws import LAWS, Law, find
from analysis.surface import surface


def test_a_users_own_law_is_one_declaration_and_recovers_its_parameters():
    law = Law("shifted", {"E": "1", "A": "(x + s)**-alpha"}, y="y", ranges={"s": (1.0, 1e4), "alpha": (0.05, 2.0)})
    x = np.geomspace(10, 1e6, 30)
    fit = analysis.fit(law, {"x": x, "y": 0.3 + 4 * (x + 200) ** -0.3}, draws=0)
    assert fit.status == "ok"
    assert list(fit.params.values()) == pytest.approx([0.3, 4, 200, 0.3], rel=1e-6)


def test_a_law_survives_json():
    for law in LAWS.values():
        assert Law.from_dict(json.loads(json.dumps(law.to_dict()))) == law


def test_an_unknown_law_lists_those_there_are():
    with pytest.raises(ValueError, match="power.*nd_interaction.*lr"):
        find("chinchila")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"terms": {}}, "at least one term"),
        ({"terms": {"A": "x**-alpha"}, "ranges": {"alpha": (0.1, 1), "beta": (0.1, 1)}}, "range for beta"),
        ({"terms": {"A": "x**-A"}}, "A as a coefficient and inside"),
        ({"terms": {"A": "x**-alpha"}, "ranges": {"alpha": (0.1, 1)}, "derived": {"q": "gamma / alpha"}}, "gamma, not among"),
        ({"terms": {"A": "import os"}}, "cannot be read"),
    ],
)
def test_a_declaration_that_means_nothing_is_refused(words, match):
    with pytest.raises(ValueError, match=match):
        Law("mine", **words)


def test_laws_affine_in_their_exponents_are_recognised_and_others_are_not():
    rng = np.random.default_rng(0)
    columns = {name: rng.uniform(2, 9, 40) for name in ("x", "N", "D", "K", "lr")}
    for name, law in LAWS.items():
        used = {column: columns[column] for column in law.columns}
        assert (surface(law, used, np.zeros(40)).features is None) == (name == "broken")


@pytest.mark.parametrize("name", ["power", "power_plain", "nd", "nd_tied", "nd_plain", "nd_kaplan", "nd_interaction"])
def test_each_law_is_recovered_without_noise(name):
    law, rng = find(name), np.random.default_rng(1)
    columns = {column: np.exp(rng.uniform(np.log(1e3), np.log(1e7), 60)) for column in law.columns}
    params = {"E": 0.5, "A": 60.0, "B": 90.0, "alpha": 0.4, "beta": 0.5, "c": 0.15, "ratio": 0.8, "alpha_D": 0.3}
    from analysis.result import curve

    y = curve(law, columns, {p: params[p] for p in law.params})
    fit = analysis.fit(law, columns | {law.y: y}, draws=0)
    assert fit.status == "ok"
    assert fit.params == pytest.approx({p: params[p] for p in law.params}, rel=1e-7)


def test_sparsity_and_size_are_recovered_with_floor_and_interaction():
    n, k = (a.ravel() for a in np.meshgrid(np.geomspace(2048, 262144, 8), [16.0, 32, 64, 128, 256, 512]))
    loss = np.exp(-0.5 + 0.26 * np.log(k) - 0.017 * np.log(n) - 0.042 * np.log(k) * np.log(n)) + np.exp(-1.32 - 0.085 * np.log(k))
    fit = analysis.fit("nk", {"N": n, "K": k, "loss": loss}, draws=0)
    expected = {"A": np.exp(-0.5), "Z": np.exp(-1.32), "beta_k": 0.26, "beta_n": -0.017, "gamma": -0.042, "eta": -0.085}
    assert fit.status == "ok" and fit.params == pytest.approx(expected, rel=1e-6)


def test_a_smooth_break_is_found_inside_the_range():
    x, rng = np.geomspace(1e2, 1e7, 40), np.random.default_rng(0)
    y = 5 * x**-0.1 * (1 + (x / 3e4) ** 2) ** (0.5 * (0.1 - 0.35)) * np.exp(0.01 * rng.standard_normal(40))
    fit = analysis.fit("broken", {"x": x, "y": y}, draws=200)
    assert fit.status == "ok" and fit.interval("x_break")[0] < 3e4 < fit.interval("x_break")[1]
    assert fit.params["alpha"] == pytest.approx(0.1, abs=0.01) and fit.params["alpha_after"] == pytest.approx(0.35, abs=0.01)


def test_the_best_learning_rate_moves_as_a_power_of_size_and_tokens_and_an_edge_is_said():
    axes = [256.0, 1024, 4096], [1e5, 4e5, 1.6e6], np.geomspace(2e-3, 2e-2, 6)
    n, d, lr = (a.ravel() for a in np.meshgrid(*axes, indexing="ij"))
    best = 5e-3 * np.sqrt(1024 / n) * (d / 4e5) ** -0.15
    noise = np.exp(0.01 * np.random.default_rng(1).standard_normal(len(n)))
    loss = (0.01 + 30 * n**-0.6 + 200 * d**-0.6) * np.exp(0.15 * np.log(lr / best) ** 2) * noise
    fit = analysis.fit("lr", {"N": n, "D": d, "lr": lr, "loss": loss}, draws=200)
    assert fit.interval("p_N")[0] < -0.5 < fit.interval("p_N")[1] and fit.interval("p_D")[0] < -0.15 < fit.interval("p_D")[1]
    assert "lr_at_edge" in fit.warnings
    assert {cell["edge"] for cell in fit.diagnostics["edge_cells"]} == {"lowest"}
    assert all(cell["N"] == 4096 for cell in fit.diagnostics["edge_cells"])
    with pytest.raises(ValueError, match="level per cell"):
        fit.predict({"N": [1.0], "D": [1.0], "lr": [1.0]})


def test_loss_and_tokens_at_convergence_follow_their_laws():
    n, d = (a.ravel() for a in np.meshgrid(2.0 ** np.arange(6, 13), 2.0 ** np.arange(14, 26), indexing="ij"))
    loss = (0.02 + 2 * n**-0.5) * (1 + (30 * n**0.6 / d) ** 0.8)
    fit = analysis.fit("convergence", {"N": n, "D": d, "loss": loss}, draws=0)
    assert fit.params["alpha"] == pytest.approx(0.5, abs=0.01) and fit.params["E"] == pytest.approx(0.0203, abs=0.0005)
    assert -fit.parts["tokens"].params["alpha"] == pytest.approx(0.6, abs=0.02)


def test_a_size_that_has_not_converged_is_left_out_and_named():
    n, d = (a.ravel() for a in np.meshgrid(2.0 ** np.arange(6, 13), 2.0 ** np.arange(14, 20), indexing="ij"))
    loss = (0.02 + 2 * n**-0.5) * (1 + (30 * n**0.6 / d) ** 0.8)
    fit = analysis.fit("convergence", {"N": n, "D": d, "loss": loss}, draws=0)
    assert fit.diagnostics["unconverged"] == [2048.0, 4096.0] and "sizes_unconverged" in fit.warnings


def test_two_seeds_far_apart_in_one_cell_leave_the_law_of_the_best_rate_certified():
    """All rows of that cell lie beyond the threshold, half above and half below: its level may move between them, no exponent."""
    rng, rows = np.random.default_rng(0), []
    for n, d, lr, seed in itertools.product((256, 1024, 4096), (1e5, 1e6), 1e-3 * 2.0 ** np.arange(5), (-1, 1)):
        best = 4e-3 * (n / 1024) ** -0.3 * (d / 3e5) ** -0.35
        apart = 0.1 if (n, d) == (1024, 1e6) else 0.002
        loss = np.exp(0.2 * np.log(lr / best) ** 2 + seed * apart + rng.normal(0, 0.005))
        rows.append({"N": n, "D": d, "lr": lr, "loss": loss, "run": f"{n}-{lr:g}-{seed}"})
    found = analysis.fit("lr", pd.DataFrame(rows), cluster="run", draws=100)
    assert found.status == "ok" and found.interval("p_N") is not None
    assert found.derived["p_N"] == pytest.approx(-0.3, abs=0.03) and found.derived["p_D"] == pytest.approx(-0.35, abs=0.03)
