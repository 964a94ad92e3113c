"""How rare a concept may be and still have a latent: logistic fits of presence against frequency.

A concept is present in a dictionary when its held-out F1 is at least tau. Per dictionary size
P(present) = sigmoid(a + b ln f); f50 = exp(-a / b) is the frequency at which half of the concepts have a latent.
Jointly P = sigmoid(a + s_f ln f + s_n ln n_alive), so f50 ~ n_alive^-q with q = s_n / s_f; q = 1 is one curve in
f * n_alive.

Intervals are 95 % percentiles of a bootstrap over CONCEPTS: a drawn concept brings its presence in every dictionary, so
what sizes share is not counted twice. A 50 % frequency outside the sampled frequencies is a bound, never a number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analysis.collapse import collapse

# Coefficients of the standardised columns carry the prior N(0, 1 / RIDGE): 0.001 moves a fit to 300 concepts by about
# 1e-5 and keeps it finite where presence is separated by frequency (all present, none present, a clean step).
RIDGE = 1e-3
NEWTON_STEPS = 100
GRADIENT_TOLERANCE = 1e-6
MIN_EACH_WAY = 10  # present and absent pairs below which a joint slope is not reported
QUANTILES = (0.025, 0.975)


class Observations(NamedTuple):
    """One group of dictionaries: (concept, dictionary) pairs flattened."""

    present: np.ndarray  # float64 [pair], 0 or 1
    ln_f: np.ndarray  # float64 [pair]
    ln_n: np.ndarray  # float64 [pair], ln n_alive of the dictionary
    concept: np.ndarray  # int64 [pair]


def fit_presence(concepts: dict, tau: float = 0.5, draws: int = 400, seed: int = 0) -> dict:
    """Every number of the concept figure, JSON-serialisable.

    `concepts` is concepts.json of the contract. Returns
    sizes       per (trained, n_latents), seeds pooled: n_alive (mean over seeds), present_share, intercept, slope
                (per e-fold of frequency), f50, f50_interval, status, bound, c = f50 * n_alive and c_interval.
                status: "inside range"; "> f_max" or "< f_min" (then f50 is null and `bound` holds that end of the
                range); or "not rising". In an interval null means: beyond the sampled range on that side.
    joint       for "trained" and "untrained": q, q_interval, slopes, c_at_q1, collapse_share, collapse_p; null with a `reason`
                when fewer than MIN_EACH_WAY pairs are present or absent, or with one size only
    ratios      per size, trained f50 / untrained f50: value, or bound with relation "<=" or ">="; at_most_half
    changes     share of concepts whose presence differs between trained sizes; gained and lost, smallest to largest
    q_by_tau    q of the trained dictionaries with another tau, so that nobody reads meaning into one
    """
    if not 0 < tau < 1:
        raise ValueError(f"tau={tau} is not an F1 to reach: choose a number above 0 and below 1, for example 0.5.")
    _check(concepts)
    n_concepts = len(concepts["concepts"])
    weights = _resamples(n_concepts, draws, seed)
    frequencies = [c["frequency"] for c in concepts["concepts"]]
    ln_range = np.log([min(frequencies), max(frequencies)])
    sizes, ln_f50 = [], {}
    keys = {(d["trained"], d["n_latents"]) for d in concepts["dictionaries"]}
    for key in sorted(keys, key=lambda k: (not k[0], k[1])):
        row, ln_f50[key] = _fit_size(concepts, key, tau, weights, ln_range)
        sizes.append(row)
    kinds = (("trained", True), ("untrained", False))
    return {
        "schema": 1,
        "count": "n_alive",
        "tau": tau,
        "draws": draws,
        "ridge": RIDGE,
        "n_concepts": n_concepts,
        "f_min": float(np.exp(ln_range[0])),
        "f_max": float(np.exp(ln_range[1])),
        "sizes": sizes,
        "joint": {name: fit_joint(observe(concepts, tau, trained), weights) for name, trained in kinds},
        "ratios": _ratios(ln_f50, ln_range),
        "changes": _changes(concepts, tau),
        "q_by_tau": [{"tau": t, **_q_only(fit_joint(observe(concepts, t, True), weights))} for t in (0.3, 0.5, 0.7)],
    }


def _resamples(n_concepts: int, draws: int, seed: int) -> np.ndarray:
    """How often each concept is drawn, float64 [1 + draws, concept]; the first row is the data as they are."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_concepts, np.full(n_concepts, 1 / n_concepts), size=draws)
    return np.concatenate([np.ones((1, n_concepts)), drawn])


def _check(concepts: dict) -> None:
    n, m = len(concepts["dictionaries"]), len(concepts["concepts"])
    if n == 0 or m == 0 or len(concepts["scores"]) != n or any(len(row) != m for row in concepts["scores"]):
        raise ValueError(
            f"The concept record lists {n} dictionaries and {m} concepts, but scores of another shape or none: "
            "scores must hold one row per dictionary and one number per concept. Score the concepts again."
        )
    rows = zip(concepts["dictionaries"], concepts["scores"], strict=True)
    empty = [d["run_id"] for d, row in rows if set(row) == {None}]
    if empty:
        raise ValueError(f"{', '.join(empty)} has no score for any concept: leave it out or score on more tokens.")


def observe(concepts: dict, tau: float, trained: bool, n_latents: int | None = None) -> Observations:
    """The scored pairs of the trained or untrained dictionaries, of one size or of all."""
    scores = np.array(concepts["scores"], dtype=np.float64)
    chosen = [
        i for i, d in enumerate(concepts["dictionaries"])
        if d["trained"] == trained and (d["n_alive"] > 0 if n_latents is None else d["n_latents"] == n_latents)
    ]  # fmt: skip
    ln_n = np.log([max(concepts["dictionaries"][i]["n_alive"], 1.0) for i in chosen])  # a size alone does not use it
    which, concept = np.nonzero(~np.isnan(scores[chosen]))
    ln_f = np.log([c["frequency"] for c in concepts["concepts"]])
    present = (scores[chosen][which, concept] >= tau).astype(np.float64)
    return Observations(present, ln_f[concept], ln_n[which], concept)


def fit_logistic(columns: np.ndarray, present: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Penalised maximum likelihood of P(present) = sigmoid(coef[0] + columns @ coef[1:]) for many weightings at once.

    Newton's method on sum w log P - RIDGE / 2 |coef of standardised columns|^2, all rows of `weights` in one batch.
    columns [pair, column]; present [pair] in {0, 1}; weights [draw, pair] -> coefficients [draw, 1 + column] in the
    units of `columns`. Every row but the first starts where the first ended. Raises ArithmeticError if the gradient
    does not vanish.
    """
    centre, spread = columns.mean(axis=0), columns.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    x = np.concatenate([np.ones((len(columns), 1)), (columns - centre) / spread], axis=1)
    first = _newton(x, present, weights[:1], np.zeros((1, x.shape[1])))
    coef = np.concatenate([first, _newton(x, present, weights[1:], np.repeat(first, len(weights) - 1, axis=0))])
    slopes = coef[:, 1:] / spread
    return np.concatenate([coef[:, :1] - slopes @ centre[:, None], slopes], axis=1)


def _newton(x: np.ndarray, present: np.ndarray, weights: np.ndarray, coef: np.ndarray) -> np.ndarray:
    """Coefficients [draw, column of x] at which the gradient vanishes, from the start `coef`.

    A step that lowers the penalised likelihood of a draw is halved, for that draw alone.
    """
    products = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    sign = 2 * present - 1
    reached = np.full(len(coef), -np.inf)
    step, gradient = np.zeros_like(coef), np.full_like(coef, np.inf)
    for _ in range(NEWTON_STEPS):
        trial = coef + step
        seen = 1.0 / (1.0 + np.exp(-sign * np.clip(trial @ x.T, -500, 500)))  # probability of what was seen
        value = np.einsum("dp,dp->d", weights, np.log(seen)) - RIDGE / 2 * (trial**2).sum(axis=1)
        better = value >= reached - 1e-12 * np.abs(reached)
        coef = np.where(better[:, None], trial, coef)
        reached = np.where(better, value, reached)
        gradient[better] = ((weights * (1 - seen)) @ (sign[:, None] * x) - RIDGE * trial)[better]
        if np.abs(gradient).max(initial=0.0) < GRADIENT_TOLERANCE * len(x):
            return coef
        curvature = ((weights * seen * (1 - seen)) @ products).reshape(len(coef), *[x.shape[1]] * 2)
        newton = np.linalg.solve(curvature + RIDGE * np.eye(x.shape[1]), gradient[:, :, None])[:, :, 0]
        step = np.where(better[:, None], newton, step / 2)
    raise ArithmeticError(f"the logistic fit did not converge in {NEWTON_STEPS} Newton steps")


def _ln_f50(coef: np.ndarray, ln_range: np.ndarray) -> np.ndarray:
    """ln f50 per draw; +inf where 50 % lies above the sampled frequencies, -inf below, nan where P does not rise."""
    p_logit = coef[:, :1] + coef[:, 1:2] * ln_range  # at f_min, f_max
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = -coef[:, 0] / coef[:, 1]
    inside = np.where(coef[:, 1] > 0, inside, np.nan)
    return np.where(p_logit.max(axis=1) < 0, np.inf, np.where(p_logit.min(axis=1) > 0, -np.inf, inside))


def _interval(ln_values: np.ndarray) -> list[float | None]:
    """95 % of exp(draws) as order statistics, so +-inf (beyond the range) may be an end: it is given as null."""
    drawn = ln_values[~np.isnan(ln_values)]
    if len(drawn) < 0.95 * len(ln_values) or not len(drawn):
        return [None, None]
    ends = np.quantile(drawn, QUANTILES, method="inverted_cdf")
    return [float(np.exp(e)) if np.isfinite(e) else None for e in ends]


def _fit_size(concepts: dict, key: tuple[bool, int], tau: float, weights: np.ndarray, ln_range: np.ndarray):
    """(row of `sizes`, ln f50 per draw with the data as they are first) of one dictionary size."""
    trained, n_latents = key
    members = [d for d in concepts["dictionaries"] if (d["trained"], d["n_latents"]) == key]
    n_alive = float(np.mean([d["n_alive"] for d in members]))
    data = observe(concepts, tau, trained, n_latents)
    coef = fit_logistic(data.ln_f[:, None], data.present, weights[:, data.concept])
    ln_f50 = _ln_f50(coef, ln_range)
    f50 = float(np.exp(ln_f50[0])) if np.isfinite(ln_f50[0]) else None
    status = {np.inf: "> f_max", -np.inf: "< f_min"}.get(ln_f50[0], "inside range" if f50 is not None else "not rising")
    interval = _interval(ln_f50[1:])
    return {
        "trained": trained,
        "n_latents": n_latents,
        "seeds": len(members),
        "n_alive": n_alive,
        "present_share": float(data.present.mean()) if len(data.present) else None,
        "intercept": float(coef[0, 0]),
        "slope": float(coef[0, 1]),
        "slope_interval": [float(v) for v in np.quantile(coef[:, 1], QUANTILES)],
        "f50": f50,
        "f50_interval": interval,
        "status": status,
        "bound": float(np.exp(ln_range[int(ln_f50[0] > 0)])) if np.isinf(ln_f50[0]) else None,
        "c": None if f50 is None else f50 * n_alive,
        "c_interval": [None if end is None else end * n_alive for end in interval],
    }, ln_f50


def fit_joint(data: Observations, weights: np.ndarray) -> dict:
    """q with its interval; with q = 1, the c of f50 = c / n_alive and how much of the effect of n that one curve keeps.

    `weights` [draw, concept], the first row the data as they are.
    """
    n_sizes = len(np.unique(data.ln_n))
    each_way = int(min(data.present.sum(), len(data.present) - data.present.sum()))
    if n_sizes < 2 or each_way < MIN_EACH_WAY:
        reason = f"{n_sizes} distinct n_alive, {each_way} pairs in the rarer outcome: 2 and {MIN_EACH_WAY} are needed"
        return {"q": None, "q_interval": [None, None], "reason": reason}
    w = weights[:, data.concept]
    coef = fit_logistic(np.stack([data.ln_f, data.ln_n], axis=1), data.present, w)
    if coef[0, 1] <= 0:
        return {"q": None, "q_interval": [None, None], "reason": "presence does not rise with frequency"}
    q = coef[:, 2] / coef[:, 1]
    together = data.ln_f + data.ln_n
    one = fit_logistic(together[:, None], data.present, w[:1])[0]
    return {
        "q": float(q[0]),
        "q_interval": [float(v) for v in np.quantile(q[1:], QUANTILES)],
        "slope_f": float(coef[0, 1]),
        "slope_n": float(coef[0, 2]),
        "intercept": float(coef[0, 0]),
        "q1_intercept": float(one[0]),
        "q1_slope": float(one[1]),
        "c_at_q1": float(np.exp(-one[0] / one[1])) if one[1] > 0 else None,
        **collapse(data, coef[0], one, fit_logistic),
        "reason": None,
    }


def _q_only(joint: dict) -> dict:
    return {key: joint[key] for key in ("q", "q_interval", "reason")}


def _ratios(ln_f50: dict[tuple[bool, int], np.ndarray], ln_range: np.ndarray) -> list[dict]:
    sizes = [n for trained, n in ln_f50 if trained and (False, n) in ln_f50]
    return [_ratio(n, ln_f50[True, n], ln_f50[False, n], ln_range) for n in sizes]


def _ratio(n_latents: int, trained: np.ndarray, untrained: np.ndarray, ln_range: np.ndarray) -> dict:
    """f50 trained / f50 untrained of one size, from ln f50 per draw, draws paired; a bound where one of them is one.

    With an end of the range put in for what lies beyond it: untrained > f_max or trained < f_min gives an upper bound
    ("<="), trained > f_max or untrained < f_min a lower one (">="); both at once, or both on one side, say nothing.
    """
    unknown = {"ratio": None, "relation": None, "ratio_interval": [None, None], "at_most_half": None}
    row = {"n_latents": n_latents, **unknown}
    if np.isnan(trained[0]) or np.isnan(untrained[0]):
        return row
    lower = trained[0] == np.inf or untrained[0] == -np.inf
    upper = trained[0] == -np.inf or untrained[0] == np.inf
    if lower and upper:
        return row
    difference = np.clip(trained, *ln_range) - np.clip(untrained, *ln_range)
    row["relation"] = "<=" if upper else ">=" if lower else "="
    row["ratio"] = float(np.exp(difference[0]))
    row["ratio_interval"] = _interval(difference[1:])
    if row["relation"] == "=" or (row["relation"] == "<=") == (row["ratio"] <= 0.5):
        row["at_most_half"] = bool(row["ratio"] <= 0.5)
    return row


def _changes(concepts: dict, tau: float) -> dict:
    """Presence across the trained sizes; the score of a size is the mean over its seeds: a seed is no change."""
    scores = np.array(concepts["scores"], dtype=np.float64)
    sizes = sorted({d["n_latents"] for d in concepts["dictionaries"] if d["trained"]})
    members = [
        [i for i, d in enumerate(concepts["dictionaries"]) if d["trained"] and d["n_latents"] == n] for n in sizes
    ]  # fmt: skip
    if len(sizes) < 2:
        return {"share": None, "gained": None, "lost": None}
    mean = np.stack([scores[rows].mean(axis=0) for rows in members])
    present = mean[:, ~np.isnan(mean).any(axis=0)] >= tau
    if not present.shape[1]:
        return {"share": None, "gained": None, "lost": None}
    return {
        "share": float((present.any(axis=0) & ~present.all(axis=0)).mean()),
        "gained": float((~present[0] & present[-1]).mean()),
        "lost": float((present[0] & ~present[-1]).mean()),
    }
