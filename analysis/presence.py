"""How rare a concept may be and still have a latent: logistic fits of presence against frequency.

A concept is present in a dictionary when its held-out score is at least tau. Per dictionary size
P(present) = sigmoid(a + b ln f); f50 = exp(-a / b) is the frequency at which half of the concepts have a latent.
Jointly P = sigmoid(a + s_f ln f + s_n ln n_alive), so f50 = c n_alive^-q with q = s_n / s_f; q = 1 is one curve in
f * n_alive.

Intervals are 95 % percentiles of a bootstrap over CONCEPTS: a drawn concept brings its presence in every dictionary, so
what sizes share is not counted twice. A 50 % frequency outside the sampled frequencies is a bound, never a number.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import norm

from analysis.collapse import collapse, scalers
from analysis.logistic import LARGEST_SLOPE, RIDGE, clustered_covariance, fit_logistic
from analysis.presence_checks import categories, changes, completeness, gaps, lapse, levels_off, ratios, sensitivity
from analysis.presence_data import KINDS, QUANTILES, Observations, Scored, interval, prepare

MIN_EACH_WAY = 10  # present and absent pairs below which a joint slope is not reported


def fit_presence(
    frame: pd.DataFrame, about: dict | None = None, tau: float | None = None, draws: int = 400, seed: int = 0
) -> dict:
    """Every number of the concept figures, JSON-serialisable.

    `frame` is a sweep's concepts.parquet, `about` its concepts.json; tau defaults to the headline threshold of `about`.
    sizes       per (dictionary, n_latents), seeds pooled: n_alive (mean over seeds), present_share, intercept, slope
                (per e-fold of frequency), f50, f50_interval, status, bound, c = f50 * n_alive and c_interval.
                status: "inside range"; "> f_max" or "< f_min" (then f50 is null and `bound` holds that end of the
                range); or "not rising". In an interval null means: beyond the sampled range on that side.
    joint       per kind of dictionary (see `fit_joint`); null with a `code` and a `reason` where refused
    f50_law     g and c of f50 = c n_alive^-g through the separate fits of the trained sizes inside the range
    scaler      alive against all latents as what f is multiplied with, by likelihood
    categories, sensitivity, lapse, ratios, gaps, changes, completeness: see analysis.presence_checks
    q_by_tau    q of the trained dictionaries with each threshold, so that nobody reads meaning into one
    warnings    codes of analysis.codes
    """
    scored = prepare(frame, about)
    tau = scored.taus[0] if tau is None else tau
    if not 0 < tau < 1:
        raise ValueError(f"tau={tau} is not a score to reach: choose a number above 0 and below 1, for example 0.5.")
    weights = resamples(len(scored.concepts), draws, seed)
    rows, ln_f50 = fit_sizes(scored, tau, weights, KINDS)
    kinds = [kind for kind in KINDS if kind in ("trained", "untrained") or len(scored.members(kind))]
    joint = {kind: fit_joint(scored.observe(tau, kind), weights) for kind in kinds}
    trained = scored.observe(tau, "trained")
    fits = {
        "schema": 2, "count": "n_alive", "tau": tau, "taus": sorted(scored.taus), "label": _label(about), "draws": draws,
        "ridge": RIDGE, "n_concepts": len(scored.concepts), "excluded": scored.excluded,
        "f_min": float(np.exp(scored.ln_range[0])), "f_max": float(np.exp(scored.ln_range[1])), "sizes": rows, "joint": joint,
        "f50_law": _f50_law(rows, ln_f50),
        "scaler": scalers(trained) if joint["trained"]["q"] is not None else None,
        "q_gap": _q_gap(scored, tau, weights, joint),
        "ratios": ratios(ln_f50, scored.ln_range),
        "gaps": gaps(scored, tau, weights),
        "changes": changes(scored, tau),
        "categories": categories(scored, tau, weights) if joint["trained"]["q"] is not None else None,
        "lapse": lapse(trained, joint["trained"]),
        "completeness": completeness(scored, tau, about or {}),
        "sensitivity": sensitivity(scored, tau),
        "q_by_tau": [{"tau": t, **_q_only(fit_joint(scored.observe(t, "trained"), weights))} for t in sorted(scored.taus)],
    }  # fmt: skip
    return fits | {"warnings": _warnings(fits, scored)}


def _label(about: dict | None) -> str:
    return str((about or {}).get("definition", {}).get("score", "held-out score"))


def resamples(n_concepts: int, draws: int, seed: int) -> np.ndarray:
    """How often each concept is drawn, float64 [1 + draws, concept]; the first row is the data as they are."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_concepts, np.full(n_concepts, 1 / n_concepts), size=draws)
    return np.concatenate([np.ones((1, n_concepts)), drawn])


def half_frequency(coef: np.ndarray, ln_range: np.ndarray) -> np.ndarray:
    """ln f50 per draw; +inf where 50 % lies above the sampled frequencies, -inf below, nan where P does not rise."""
    p_logit = coef[:, :1] + coef[:, 1:2] * ln_range  # at f_min, f_max
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = -coef[:, 0] / coef[:, 1]
    inside = np.where(coef[:, 1] > 0, inside, np.nan)
    return np.where(p_logit.max(axis=1) < 0, np.inf, np.where(p_logit.min(axis=1) > 0, -np.inf, inside))


def fit_sizes(
    scored: Scored, tau: float, weights: np.ndarray, kinds: tuple[str, ...]
) -> tuple[list[dict], dict[tuple[str, int], np.ndarray]]:
    """Rows of `sizes` and, by (dictionary, n_latents), ln f50 per draw with the data as they are first."""
    rows, ln_f50 = [], {}
    for kind in kinds:
        for n_latents in scored.sizes(kind):
            row, ln_f50[kind, n_latents] = _fit_size(scored, (kind, n_latents), tau, weights)
            rows.append(row)
    return rows, ln_f50


def _fit_size(scored: Scored, key: tuple[str, int], tau: float, weights: np.ndarray) -> tuple[dict, np.ndarray]:
    kind, n_latents = key
    members, ln_range = scored.members(kind, n_latents), scored.ln_range
    n_alive = float(scored.dictionaries["n_alive"].to_numpy()[members].mean())
    data = scored.observe(tau, kind, n_latents)
    coef = fit_logistic(data.ln_f[:, None], data.present, weights[:, data.concept])
    ln_f50 = half_frequency(coef, ln_range)
    f50 = float(np.exp(ln_f50[0])) if np.isfinite(ln_f50[0]) else None
    status = {np.inf: "> f_max", -np.inf: "< f_min"}.get(ln_f50[0], "inside range" if f50 is not None else "not rising")
    ends = _around_step(interval(ln_f50[1:]), data)
    return {
        "dictionary": kind,
        "trained": kind == "trained",
        "n_latents": n_latents,
        "seeds": len(members),
        "n_alive": n_alive,
        "present_share": float(data.present.mean()) if len(data.present) else None,
        "intercept": float(coef[0, 0]),
        "slope": float(coef[0, 1]),
        "slope_interval": [float(v) for v in np.quantile(coef[:, 1], QUANTILES)],
        "f50": f50,
        "f50_interval": ends,
        "status": status,
        "separation": _separation(data),
        "bound": float(np.exp(ln_range[int(ln_f50[0] > 0)])) if np.isinf(ln_f50[0]) else None,
        "c": None if f50 is None else f50 * n_alive,
        "c_interval": [None if end is None else end * n_alive for end in ends],
    }, ln_f50


def _separation(data: Observations) -> str | None:
    """all_present, none_present, or step (every present concept is more frequent than every absent one); else None."""
    if data.present.all() or not data.present.any():
        return "all_present" if data.present.any() else "none_present"
    return "step" if _step(data)[0] < _step(data)[1] else None


def _step(data: Observations) -> tuple[float, float]:
    return float(data.ln_f[data.present == 0].max()), float(data.ln_f[data.present == 1].min())


def _around_step(ends: list[float | None], data: Observations) -> list[float | None]:
    """A clean step leaves f50 anywhere between the two concepts beside it, whatever the resamples say."""
    if _separation(data) != "step" or None in ends:
        return ends
    low, high = np.exp(_step(data))
    return [min(ends[0], float(low)), max(ends[1], float(high))]


def fit_joint(data: Observations, weights: np.ndarray) -> dict:
    """q with its interval and its test against 1; with q = 1, the c of f50 = c / n_alive; how much one curve keeps.

    `weights` [draw, concept], the first row the data as they are. q_test: q = 1 is s_n = s_f, a linear hypothesis, so
    z = (s_n - s_f) / its standard error, which is the sandwich over concepts, two-sided p. Refused with a code and a
    reason: presence_one_size, presence_none, presence_all, presence_few (fewer than MIN_EACH_WAY pairs of the rarer
    outcome), presence_not_rising, presence_separated (a clean step in f * n_alive^q: its place is known, its slope not;
    q is then given without a test).
    """
    refused = _refusal(data)
    if refused:
        return _no_joint(*refused)
    w, columns = weights[:, data.concept], np.stack([data.ln_f, data.ln_n], axis=1)
    coef = fit_logistic(columns, data.present, w)
    if coef[0, 1] <= 0:
        return _no_joint("presence_not_rising", "presence does not rise with frequency")
    q = coef[:, 2] / coef[:, 1]
    one = fit_logistic((data.ln_f + data.ln_n)[:, None], data.present, w)
    steep = coef[0, 1] * data.ln_f.std() > LARGEST_SLOPE
    ln_c = np.where(one[:, 1] > 0, -one[:, 0] / np.where(one[:, 1] > 0, one[:, 1], 1), np.nan)
    return {
        "q": float(q[0]),
        "q_interval": [float(v) for v in np.quantile(q[1:], QUANTILES)],
        "q_test": None if steep else _test_of_1(columns, data, coef[0]),
        "slope_f": float(coef[0, 1]),
        "slope_n": float(coef[0, 2]),
        "intercept": float(coef[0, 0]),
        "q1_intercept": float(one[0, 0]),
        "q1_slope": float(one[0, 1]),
        "c_at_q1": float(np.exp(ln_c[0])) if np.isfinite(ln_c[0]) else None,
        "c_at_q1_interval": interval(ln_c[1:]),
        **collapse(data, coef[0], one[0]),
        "code": "presence_separated" if steep else None,
        "reason": None,
    }


def _refusal(data: Observations) -> tuple[str, str] | None:
    n_sizes = len(np.unique(data.ln_n))
    each_way = int(min(data.present.sum(), len(data.present) - data.present.sum()))
    reason = f"{n_sizes} distinct n_alive, {each_way} pairs in the rarer outcome: 2 and {MIN_EACH_WAY} are needed"
    if n_sizes < 2:
        return "presence_one_size", reason
    if each_way == 0:
        return ("presence_all" if data.present.all() else "presence_none"), reason
    return ("presence_few", reason) if each_way < MIN_EACH_WAY else None


def _no_joint(code: str, reason: str) -> dict:
    return {"q": None, "q_interval": [None, None], "code": code, "reason": reason}


def _test_of_1(columns: np.ndarray, data: Observations, coef: np.ndarray) -> dict:
    covariance = clustered_covariance(columns, data.present, coef, data.concept)
    variance = covariance[1, 1] + covariance[2, 2] - 2 * covariance[1, 2]
    z = float((coef[2] - coef[1]) / np.sqrt(variance))
    return {"z": z, "p": float(2 * norm.sf(abs(z)))}


def _q_only(joint: dict) -> dict:
    return {key: joint[key] for key in ("q", "q_interval", "reason")}


def _q_gap(scored: Scored, tau: float, weights: np.ndarray, joint: dict) -> dict | None:
    """q trained minus q untrained, the same concepts drawn for both."""
    if "untrained" not in joint or None in (joint["trained"]["q"], joint["untrained"]["q"]):
        return None
    q = []
    for kind in ("trained", "untrained"):
        data = scored.observe(tau, kind)
        coef = fit_logistic(np.stack([data.ln_f, data.ln_n], axis=1), data.present, weights[:, data.concept])
        q.append(np.where(coef[:, 1] > 0, coef[:, 2] / np.where(coef[:, 1] > 0, coef[:, 1], 1), np.nan))
    drawn = (q[0] - q[1])[1:]
    ends = np.nanquantile(drawn, QUANTILES) if np.isfinite(drawn).mean() >= 0.95 else (None, None)
    return {"estimate": float(q[0][0] - q[1][0]), "interval": [None if end is None else float(end) for end in ends]}


def _f50_law(rows: list[dict], ln_f50: dict) -> dict:
    """Least squares of ln f50 on ln n_alive over the trained sizes whose f50 is inside the range, per draw.

    Beside the joint fit because it assumes no common slope; it leaves out every size whose f50 is only a bound.
    """
    used = [row for row in rows if row["trained"] and row["status"] == "inside range"]
    law = {"sizes": len(used), "g": None, "g_interval": [None, None], "c": None, "c_interval": [None, None]}
    if len(used) < 3:
        return law | {"reason": f"{len(used)} sizes have their 50 % frequency inside the sampled range: 3 are needed"}
    x = np.log([row["n_alive"] for row in used])
    y = np.stack([ln_f50["trained", row["n_latents"]] for row in used], axis=1)
    y = np.where(np.isfinite(y), y, np.nan)
    slope = (y @ (x - x.mean())) / ((x - x.mean()) ** 2).sum()
    ln_c = y.mean(axis=1) - slope * x.mean()
    kept = np.isfinite(slope[1:])
    if kept.mean() < 0.95:
        return law | {"reason": "in more than 5 % of the draws a 50 % frequency leaves the sampled range"}
    law |= {"g": float(-slope[0]), "g_interval": sorted(float(-v) for v in np.quantile(slope[1:][kept], QUANTILES))}
    return law | {"c": float(np.exp(ln_c[0])), "c_interval": interval(ln_c[1:]), "reason": None}


def _warnings(fits: dict, scored: Scored) -> list[str]:
    trained = fits["joint"]["trained"]
    out = [] if trained.get("code") is None else [trained["code"]]
    rows = [row for row in fits["sizes"] if row["trained"]]
    if "untrained" not in {row["dictionary"] for row in fits["sizes"]}:
        out.append("presence_no_control")
    if any(row["status"] != "inside range" for row in rows):
        out.append("presence_f50_outside")
    if scored.excluded["few_counts"]:
        out.append("presence_few_counts")
    if fits["n_concepts"] < 100:
        out.append("presence_few_concepts")
    return [*out, "presence_levels_off"] if levels_off(fits["lapse"]) else out
