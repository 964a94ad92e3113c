import numpy as np
import pytest
from scipy.optimize import minimize

import analysis
from analysis.certificate import certify
from analysis.derivatives import model
from analysis.laws import LAWS, find
from analysis.objective import Objective
from analysis.solve import Problem, evaluate, solve
from analysis.surface import surface


def problem(table, law="nd", objective=None):
    ln_y = np.log(table["loss"].to_numpy())
    over = surface(find(law), {name: table[name].to_numpy() for name in find(law).columns}, ln_y)
    return Problem(over, ln_y[None], np.ones((1, len(ln_y))), objective or Objective("huber", 1e-3))


@pytest.mark.parametrize("name", [*LAWS])
def test_gradient_and_curvature_are_those_of_differences(name):
    rng, law = np.random.default_rng(2), find(name)
    columns = {column: np.exp(rng.uniform(0, 3, 25)) for column in law.columns}
    if law.levels:
        columns |= {column: rng.integers(1, 3, 25).astype(float) for column in law.levels}
    ln_y = rng.normal(0, 0.3, 25)
    over = surface(law, columns, ln_y)
    this = Problem(over, ln_y[None], rng.uniform(0.5, 2, (1, 25)), Objective("squared"))
    point = rng.uniform(0.2, 0.6, (1, over.size))
    state, h = evaluate(this, point), 1e-5
    steps = np.eye(over.size) * h
    up, down = (evaluate(this, point + sign * steps) for sign in (1, -1))
    np.testing.assert_allclose(state.gradient[0], (up.value - down.value) / (2 * h), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.curvature[0], (up.gradient - down.gradient) / (2 * h), rtol=1e-5, atol=1e-5)


def test_the_optimum_is_the_one_scipy_finds_when_pushed(make_twin):
    table = make_twin(3)
    fit = analysis.fit("nd", table, delta=1e-3, draws=0)
    n, d, ln_y = (np.log(table[name].to_numpy()) for name in ("N", "D", "loss"))

    def objective(p):
        r = np.logaddexp(np.logaddexp(p[0], p[1] - p[3] * n), p[2] - p[4] * d) - ln_y
        return 1e6 * np.where(np.abs(r) <= 1e-3, r * r / 2, 1e-3 * (np.abs(r) - 5e-4)).sum()

    begin = [np.log(fit.params[name]) for name in ("E", "A", "B")] + [fit.params["alpha"], fit.params["beta"]]
    options = {"ftol": 1e-15, "maxiter": 10000, "maxfun": 10**6}
    pushed = minimize(objective, np.array(begin) * 1.01, method="L-BFGS-B", options=options)
    assert fit.objective["value"] * 1e6 <= pushed.fun * (1 + 1e-9)
    assert pushed.fun <= fit.objective["value"] * 1e6 * (1 + 1e-3)


def test_random_starts_reach_the_optimum_by_falling_thresholds_and_none_is_certified_elsewhere(make_twin):
    table, rng = make_twin(0), np.random.default_rng(0)
    best = analysis.fit("nd", table, delta=1e-3, draws=0).objective["value"] / 1e-6
    this = problem(table)
    box = np.stack([rng.uniform(-1, 1, 100), *rng.uniform(0, 25, (2, 100)), *rng.uniform(0, 2, (2, 100))], axis=1)
    points = np.linalg.solve(this.surface.back, box.T).T
    for step in (np.inf, 1.6e-2, 4e-3, 1e-3):
        kind = Objective("squared") if step == np.inf else Objective("huber", step)
        found = solve(Problem(this.surface, this.ln_y, this.weights, kind), points)
        points = found.points
    at_best = found.value <= best * (1 + 1e-8)
    assert (at_best & found.certified).mean() >= 0.85
    assert not (found.certified & ~at_best & ~np.isclose(found.value, best, rtol=1e-6)).any()


def test_success_is_never_taken_for_convergence(make_twin):
    """A search cut short says so, whatever it has reached."""
    this = problem(make_twin(0))
    short = solve(this, np.linalg.solve(this.surface.back, [0.0, 5.0, 5.0, 0.5, 0.5])[None], iterations=2)
    assert not short.certified[0] and certify(this.surface, short, 1e-3)[1].status != "ok"


def test_a_term_that_the_data_do_not_have_is_named():
    x = np.geomspace(10, 1e5, 20)
    y = 3 * x**-0.3 * np.exp(-0.002 * np.log(x) ** 2)  # bends the other way: the best floor is zero
    fit = analysis.fit("power", {"x": x, "y": y}, draws=200)
    assert fit.status == "degenerate" and fit.certificate.vanished == ("E",)
    assert fit.intervals is None and fit.profile is None and "term_vanished" in fit.warnings
    assert np.isnan(fit.predict({"x": [1e6]})[["lo", "hi"]].to_numpy()).all()


def test_the_same_call_gives_the_same_bits(make_twin):
    one, two = (analysis.fit("nd", make_twin(1), draws=200, seed=3).to_dict() for _ in range(2))
    assert one == two
    other = analysis.fit("nd", make_twin(1), draws=200, seed=4)
    assert other.params == one["params"] and other.intervals["alpha"] != tuple(one["intervals"]["alpha"])


def test_many_problems_at_once_are_the_problems_one_by_one(make_twin):
    this = problem(make_twin(2), objective=Objective("huber", 6e-3))
    weights = np.random.default_rng(0).multinomial(240, np.full(240, 1 / 240), size=5).astype(float)
    begin = np.linalg.solve(this.surface.back, [0.6, 6.0, 7.5, 0.35, 0.37])
    together = solve(Problem(this.surface, this.ln_y, weights, this.objective), np.repeat(begin[None], 5, axis=0))
    for i in range(5):
        alone = solve(Problem(this.surface, this.ln_y, weights[i : i + 1], this.objective), begin[None])
        np.testing.assert_allclose(together.points[i], alone.points[0], rtol=1e-8)


def test_weights_are_multiplicities(make_twin):
    """A row of weight 2 is that row twice: no argument takes a precision or a standard deviation that could be mistaken."""
    import inspect

    table = make_twin(4, rows=60)
    twice = analysis.fit("nd", table.loc[[*range(60), 0, 1, 2]], draws=0, objective="squared")
    this = problem(table, objective=Objective("squared"))
    weights = np.ones((1, 60))
    weights[0, :3] = 2
    begin = np.linalg.solve(this.surface.back, [0.6, 6.0, 7.5, 0.35, 0.37])[None]
    found = solve(Problem(this.surface, this.ln_y, weights, this.objective), begin)
    assert this.surface.natural(found.points)[0] == pytest.approx(list(twice.params.values()), rel=1e-6)
    assert not {"weights", "sd", "sigma"} & set(inspect.signature(analysis.fit).parameters)


def test_the_jacobian_of_a_law_with_an_outer_power_includes_it(make_twin):
    this = problem(make_twin(0), law="nd_kaplan")
    point = np.array([[20.0, 25.0, 0.8, 0.1]])
    h = 1e-6
    moved = point + np.array([[0, 0, 0, h]])
    ln_y, jacobian, _ = model(this.surface, point)
    np.testing.assert_allclose(jacobian[0, 3], (model(this.surface, moved)[0] - ln_y)[0] / h, rtol=1e-4)
