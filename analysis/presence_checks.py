"""What stands beside the law of presence: the controls, other definitions of presence, categories, saturation, closed lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.logistic import LARGEST_SLOPE, clustered_covariance, fit_lapsed, fit_logistic, score_test
from analysis.presence_data import QUANTILES, Observations, Scored, interval

Z = 1.96
FEWEST = 10  # pairs of the rarer outcome below which a slope is not reported
CATEGORY = 10  # concepts a category needs to be told apart
LAPSE = 200  # concepts that a saturation below 1 needs
TOP_FIVE = "among the top five on a short prompt"


def joint_by_sandwich(data: Observations) -> dict:
    """q and its interval by the delta method on the sandwich over concepts: no resampling, for rows that many are made of."""
    each_way = min(data.present.sum(), (1 - data.present).sum())
    if len(np.unique(data.ln_n)) < 2 or each_way < FEWEST:
        return {"q": None, "q_interval": [None, None], "reason": f"{int(each_way)} pairs in the rarer outcome, {FEWEST} needed"}
    columns = np.stack([data.ln_f, data.ln_n], axis=1)
    coef = fit_logistic(columns, data.present, np.ones((1, len(data.present))))[0]
    if coef[1] <= 0:
        return {"q": None, "q_interval": [None, None], "reason": "presence does not rise with frequency"}
    if coef[1] * data.ln_f.std() > LARGEST_SLOPE:
        return {"q": float(coef[2] / coef[1]), "q_interval": [None, None], "reason": None}  # a clean step has no curvature
    q, error = _ratio_error(coef[1:], clustered_covariance(columns, data.present, coef, data.concept)[1:, 1:])
    return {"q": q, "q_interval": [q - Z * error, q + Z * error], "reason": None}


def _ratio_error(slopes: np.ndarray, covariance: np.ndarray) -> tuple[float, float]:
    """s_n / s_f and its standard error."""
    q = slopes[1] / slopes[0]
    gradient = np.array([-q, 1.0]) / slopes[0]
    return float(q), float(np.sqrt(gradient @ covariance @ gradient))


def sensitivity(scored: Scored, tau: float) -> list[dict]:
    """q under other definitions and choices, beside the untrained control: {"what", "tau", "n_concepts", q of both, shares}."""
    rows = [_row(scored, f"score at least {t:g}", t) for t in sorted(scored.taus)]
    if "f1_natural" in scored.scores:
        rows.append(_row(scored, f"F1 at the text's prevalence at least {tau:g}", tau, "f1_natural"))
    if "prompt_hit" in scored.scores:
        rows.append(_row(scored, TOP_FIVE, 0.5, "prompt_hit"))
    ambiguous = scored.concepts["ambiguous"].to_numpy(bool)
    if 0 < ambiguous.sum() < len(ambiguous):
        rows.append(_row(scored.kept(~ambiguous), "without ambiguous names", tau))
    if "space_frequency" in scored.concepts:
        between = scored.concepts["space_frequency"].to_numpy(np.float64)
        spaced = scored.kept(between > 0)
        spaced = replace(spaced, concepts=spaced.concepts.assign(frequency=spaced.concepts["space_frequency"]))
        rows.append(_row(spaced, "frequency counted between two spaces", tau))
    sizes = scored.sizes("trained")
    for out, n in (("smallest", sizes[:1]), ("largest", sizes[-1:])) if len(sizes) > 3 else ():
        rows.append(_row(_without(scored, n[0]), f"without the {out} size", tau))
    return rows


def _without(scored: Scored, n_latents: int) -> Scored:
    keep = (scored.dictionaries["n_latents"] != n_latents).to_numpy()
    scores = {name: values[keep] for name, values in scored.scores.items()}
    return replace(scored, dictionaries=scored.dictionaries[keep].reset_index(drop=True), scores=scores)


def _row(scored: Scored, what: str, tau: float, by: str = "score") -> dict:
    row = {"what": what, "tau": tau, "n_concepts": len(scored.concepts)}
    for kind, prefix in (("trained", ""), ("untrained", "untrained_")):
        data = scored.observe(tau, kind, by=by) if len(scored.members(kind)) else None
        joint = {"q": None, "q_interval": [None, None], "reason": "not scored"}
        if data is not None and len(data.present):
            joint = joint_by_sandwich(data)
            row[f"{prefix}share"] = float(data.present.mean())
        row |= {f"{prefix}{name}": value for name, value in joint.items()}
    return row


def ratios(ln_f50: dict[tuple[str, int], np.ndarray], ln_range: np.ndarray) -> list[dict]:
    """Per size, f50 trained / f50 untrained."""
    sizes = [n for kind, n in ln_f50 if kind == "trained" and ("untrained", n) in ln_f50]
    return [_ratio(n, ln_f50["trained", n], ln_f50["untrained", n], ln_range) for n in sizes]


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
    row["ratio_interval"] = interval(difference[1:])
    if row["relation"] == "=" or (row["relation"] == "<=") == (row["ratio"] <= 0.5):
        row["at_most_half"] = bool(row["ratio"] <= 0.5)
    return row


def present_share(scored: Scored, tau: float, kind: str, n_latents: int) -> np.ndarray:
    """Share of the seeds of a size in which each concept is present, float64 [concept]; nan where one of them has no score."""
    values = scored.scores["score"][scored.members(kind, n_latents)]
    return np.where(np.isnan(values).any(axis=0), np.nan, (values >= tau).mean(axis=0))


def gaps(scored: Scored, tau: float, weights: np.ndarray) -> list[dict]:
    """Per size: share of concepts present, trained minus untrained, with a 95 % interval over concepts.

    What the training added: an untrained dictionary has a sigmoid that moves with its size too.
    """
    rows = []
    for n in scored.sizes("trained"):
        if not len(scored.members("untrained", n)):
            continue
        both = [present_share(scored, tau, kind, n) for kind in ("trained", "untrained")]
        seen = ~np.isnan(both[0] + both[1])
        w = weights[:, seen]
        drawn = (w @ (both[0] - both[1])[seen]) / w.sum(axis=1)
        rows.append({"n_latents": n, "trained": float(both[0][seen].mean()), "untrained": float(both[1][seen].mean()),
                     "gap": float(drawn[0]), "gap_interval": [float(v) for v in np.quantile(drawn[1:], QUANTILES)]})  # fmt: skip
    return rows


def changes(scored: Scored, tau: float) -> dict:
    """Presence across the trained sizes; the score of a size is the mean over its seeds: a seed is no change."""
    sizes = scored.sizes("trained")
    if len(sizes) < 2:
        return {"share": None, "gained": None, "lost": None}
    mean = np.stack([scored.scores["score"][scored.members("trained", n)].mean(axis=0) for n in sizes])
    present = mean[:, ~np.isnan(mean).any(axis=0)] >= tau
    if not present.shape[1]:
        return {"share": None, "gained": None, "lost": None}
    return {
        "share": float((present.any(axis=0) & ~present.all(axis=0)).mean()),
        "gained": float((~present[0] & present[-1]).mean()),
        "lost": float((present[0] & ~present[-1]).mean()),
    }


def categories(scored: Scored, tau: float, weights: np.ndarray) -> dict | None:
    """Own offsets of categories in the joint law: f50 of each relative to their (geometric) mean, and q of each alone.

    The test asks whether offsets are needed at all, its variance over concepts: every concept belongs to one category, so
    pairs taken as independent would find differences everywhere. Categories of fewer than CATEGORY concepts are left out;
    None where fewer than two remain.
    """
    names = scored.concepts["category"]
    large = sorted(name for name, n in names.value_counts().items() if n >= CATEGORY)
    if len(large) < 2:
        return None
    inside = names.isin(large).to_numpy()
    part, w = scored.kept(inside), weights[:, inside]
    data = part.observe(tau, "trained")
    code = pd.Categorical(part.concepts["category"], categories=large).codes[data.concept]
    own = (code[:, None] == np.arange(1, len(large))).astype(float)
    columns = np.concatenate([np.stack([data.ln_f, data.ln_n], axis=1), own], axis=1)
    coef = fit_logistic(columns, data.present, w[:, data.concept])
    shift = -np.concatenate([np.zeros((len(coef), 1)), coef[:, 3:]], axis=1) / coef[:, 1:2]
    shift -= shift.mean(axis=1, keepdims=True)
    rows = []
    for i, name in enumerate(large):
        alone = part.kept((part.concepts["category"] == name).to_numpy())
        row = {"category": name, "n_concepts": len(alone.concepts), "f50_ratio": float(np.exp(shift[0, i]))}
        row["f50_ratio_interval"] = interval(shift[1:, i])
        rows.append(row | joint_by_sandwich(alone.observe(tau, "trained")))
    return {"rows": rows, "test": score_test(columns[:, :2], own, data.present, data.concept)._asdict()}


def lapse(data: Observations, joint: dict) -> dict:
    """The law with a ceiling of 1 - lapse: large dictionaries split frequent concepts, so P may end below 1."""
    empty = {"lapse": None, "lapse_interval": [None, None], "q": None, "q_interval": [None, None]}
    n_concepts = len(np.unique(data.concept))
    if joint["q"] is None or joint["code"] is not None:
        return empty | {"reason": joint["reason"] or "presence is a clean step: no ceiling can be told from its slope"}
    if n_concepts < LAPSE:
        return empty | {"reason": f"{n_concepts} concepts, {LAPSE} are needed for a ceiling"}
    try:
        found = fit_lapsed(np.stack([data.ln_f, data.ln_n], axis=1), data.present, data.concept)
    except ArithmeticError as e:
        return empty | {"reason": str(e)}
    q, error = _ratio_error(found.coef[1:], found.covariance[1:3, 1:3])
    reach = Z * float(np.sqrt(found.covariance[3, 3]))
    ends = [max(0.0, found.lapse - reach), found.lapse + reach] if reach else [None, None]
    return {"lapse": found.lapse, "lapse_interval": ends, "q": q, "q_interval": [q - Z * error, q + Z * error], "reason": None}


def levels_off(found: dict) -> bool:
    """Whether the interval of a lapse leaves out 0: the plain law, which has none, is then wrong."""
    return bool(found["lapse_interval"][0])


def completeness(scored: Scored, tau: float, about: dict) -> list[dict]:
    """Per category and trained size: how much of the list is present, with a 95 % Wilson interval, and untrained.

    `closed` says that the category is a list with all its members (about["categories"][name]["closed"]); `n_names` how
    many the list has, of which only `n_concepts` are frequent enough to be scored.
    """
    out = []
    for name, members in scored.concepts.groupby("category", sort=True):
        known = about.get("categories", {}).get(name, {})
        rows = [_complete(scored, tau, members.index.to_numpy(), n) for n in scored.sizes("trained")]
        out.append({"category": name, "closed": bool(known.get("closed", False)), "n_concepts": len(members),
                    "n_names": known.get("n_names"), "rows": rows})  # fmt: skip
    return out


def _complete(scored: Scored, tau: float, which: np.ndarray, n_latents: int) -> dict:
    members = scored.members("trained", n_latents)
    row = {"n_latents": n_latents, "n_alive": float(scored.dictionaries["n_alive"].to_numpy()[members].mean())}
    trained = present_share(scored, tau, "trained", n_latents)[which]
    trained = trained[~np.isnan(trained)]
    row |= {"share": None, "interval": [None, None], "untrained": None}
    if len(trained):
        row |= {"share": float(trained.mean()), "interval": list(wilson(float(trained.mean()), len(trained)))}
    if len(scored.members("untrained", n_latents)):
        untrained = present_share(scored, tau, "untrained", n_latents)[which]
        row["untrained"] = float(np.nanmean(untrained)) if (~np.isnan(untrained)).any() else None
    return row


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of n (Wilson 1927)."""
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    reach = Z / (1 + Z**2 / n) * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return float(centre - reach), float(centre + reach)
