"""Against the known truth of synthetic features: the law of presence by two labellings, the generator, and the loss.

The generator says what an ideal dictionary does: n alive latents hold the n most frequent features, so its 50 % frequency is the
rate of the n-th, and with rates ~ rank^-s the exponent q of f50 ~ n_alive^-q is s. The exponent of presence is the corpus's:
nothing in a dictionary makes it 1.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.allocation_model import Allocation, allocate, discrete, exponents, limited
from analysis.logistic import fit_logistic
from analysis.presence import fit_joint, fit_sizes, resamples
from analysis.presence_data import QUANTILES, Scored, prepare

OCCURRENCES = 400  # of a feature in training below which a dictionary is short of data rather than of latents
MAGNITUDES = (0.5, 1.5)  # of the firings of corpora that were described without them
SLACK = 3  # ... times this, since a size is to be limited by its latents


def compare(activity: tuple[pd.DataFrame, dict], cosine: tuple[pd.DataFrame, dict], losses: pd.DataFrame | None = None,
            draws: int = 400, seed: int = 0) -> dict:  # fmt: skip
    """Both labellings of one synthetic sweep, each (table, concepts.json), on the concepts that both could score.

    q           by labelling: estimate and 95 % interval over features, and `by_seed` of the dictionaries of each seed alone;
                `difference` activity minus cosine, draws paired;
                `generator` the exponent of the rates over these sizes; `held` that of the rate at the rank of what is held
    agreement   share of pairs (feature, dictionary) on which the labellings agree, and expected of two independent ones
    sizes       per trained size: n_present of all features, f50 of the generator, of what is held, and by each labelling with
                its interval; `covers` whether the interval holds the generator's and the held one; `data_limited`
    coverage    share of sizes whose interval holds each
    loss        see `loss_exponents`; null without `losses` (a sweep's table)
    """
    known, labelled = _common(prepare(*cosine), prepare(*activity))
    weights = resamples(len(known.concepts), draws, seed)
    about, rates = cosine[1], np.array(cosine[1]["generator"]["rates"])
    tau = {"cosine": known.taus[0], "activity": labelled.taus[0]}
    q, sizes = {}, {}
    for name, scored in (("cosine", known), ("activity", labelled)):
        data = scored.observe(tau[name], "trained")
        q[name] = {key: value for key, value in fit_joint(data, weights).items() if key in ("q", "q_interval", "reason")}
        q[name]["by_seed"] = _by_seed(scored, tau[name])
        sizes[name] = fit_sizes(scored, tau[name], weights, ("trained",))[0]
    rows = _sizes(sizes, about, rates)
    return {
        "tau": tau,
        "n_features": len(known.concepts),
        "q": q | {"difference": _difference(known, labelled, tau, weights), "generator": _slope(rows, "ideal"),
                  "held": _slope(rows, "held")},
        "agreement": _agreement(known, labelled, tau),
        "sizes": rows,
        "coverage": {f"{name}_{truth}": float(np.mean([row["covers"][f"{name}_{truth}"] for row in rows]))
                     for name in sizes for truth in ("ideal", "held")},
        "loss": None if losses is None else loss_exponents(about, losses),
    }  # fmt: skip


def _common(known: Scored, labelled: Scored) -> tuple[Scored, Scored]:
    """The features both could score; dictionaries are the same ones, permuted labels apart."""
    names = sorted(set(known.concepts["concept"]) & set(labelled.concepts["concept"]))
    return tuple(scored.kept(scored.concepts["concept"].isin(names).to_numpy()) for scored in (known, labelled))


def _by_seed(scored: Scored, tau: float) -> dict[str, float | None]:
    """q of the dictionaries of one seed, by seed; what seeds make of it, beside an interval that holds features."""
    trained = scored.dictionaries[scored.dictionaries["dictionary"] == "trained"]
    found = {}
    for seed in sorted(trained["seed"].unique()):
        others = (scored.dictionaries["dictionary"] == "trained") & (scored.dictionaries["seed"] != seed)
        kept = np.flatnonzero(~others)
        alone = replace(scored, dictionaries=scored.dictionaries.iloc[kept].reset_index(drop=True),
                        scores={name: values[kept] for name, values in scored.scores.items()})  # fmt: skip
        found[str(seed)] = fit_joint(alone.observe(tau, "trained"), np.ones((2, len(scored.concepts))))["q"]
    return found


def _difference(known: Scored, labelled: Scored, tau: dict, weights: np.ndarray) -> dict:
    q = []
    for name, scored in (("cosine", known), ("activity", labelled)):
        data = scored.observe(tau[name], "trained")
        coef = fit_logistic(np.stack([data.ln_f, data.ln_n], axis=1), data.present, weights[:, data.concept])
        q.append(coef[:, 2] / coef[:, 1])
    drawn = q[1] - q[0]
    return {"estimate": float(drawn[0]), "interval": [float(v) for v in np.quantile(drawn[1:], QUANTILES)]}


def _sizes(sizes: dict[str, list[dict]], about: dict, rates: np.ndarray) -> list[dict]:
    n_tokens = about["corpus"]["n_tokens"]
    rows = []
    for cosine, activity in zip(sizes["cosine"], sizes["activity"], strict=True):
        here = [d for d in about["dictionaries"] if d["dictionary"] == "trained" and d["n_latents"] == cosine["n_latents"]]
        n_present = float(np.mean([d["n_present"] for d in here]))
        row = {"n_latents": cosine["n_latents"], "n_alive": cosine["n_alive"], "n_present": n_present,
               "ideal": _rate(rates, cosine["n_alive"]), "held": _rate(rates, n_present)}  # fmt: skip
        for name, fitted in (("cosine", cosine), ("activity", activity)):
            row |= {name: fitted["f50"], f"{name}_interval": fitted["f50_interval"]}
        row["covers"] = {f"{name}_{truth}": _inside(row[f"{name}_interval"], row[truth])
                         for name in sizes for truth in ("ideal", "held")}  # fmt: skip
        rows.append(row | {"data_limited": row["ideal"] * n_tokens < SLACK * OCCURRENCES})
    return rows


def _rate(rates: np.ndarray, rank: float) -> float:
    """Between whole ranks by a power law."""
    return float(np.exp(np.interp(np.log(max(rank, 1.0)), np.log(np.arange(1, len(rates) + 1)), np.log(rates))))


def _inside(ends: list, value: float) -> bool:
    return None not in ends and ends[0] <= value <= ends[1]


def _slope(rows: list[dict], name: str) -> float | None:
    """Exponent of f50 ~ n_alive^-q over the sizes, as the generator has it."""
    if len(rows) < 2:
        return None
    return float(-np.polyfit(np.log([row["n_alive"] for row in rows]), np.log([row[name] for row in rows]), 1)[0])


def _agreement(known: Scored, labelled: Scored, tau: dict) -> dict:
    a, b = (scored.scores["score"][scored.members("trained")] for scored in (known, labelled))
    seen = ~np.isnan(a + b)
    x, y = a[seen] >= tau["cosine"], b[seen] >= tau["activity"]
    chance = x.mean() * y.mean() + (1 - x.mean()) * (1 - y.mean())
    return {"share": float((x == y).mean()), "by_chance": float(chance)}


def loss_exponents(about: dict, losses: pd.DataFrame) -> dict:
    """Exponents of the held-out fvu and of the features present, measured over sizes, beside the allocation model's.

    `losses` are a sweep's rows; seeds are averaged, the longest horizon taken. The model is that of whole features for rays, and
    has beta = 2 where every feature is a circle (of which one latent fires at a time). The Zipf tail alpha = s - 1 gives the
    limits of theory. The model knows nothing of k, of interference or of training: compare slopes, not levels. `with_k` is what
    whole features leave when a token may use k of them (analysis.allocation_model.limited), null for features on manifolds.
    """
    generator = about["generator"]
    here = losses[(losses["state"] == "done") & (losses["fvu"] > 0)]
    here = here[here["n_tokens"] == here["n_tokens"].max()]
    fvu = here.groupby("n_latents")["fvu"].mean()
    held = pd.DataFrame([d for d in about["dictionaries"] if d["dictionary"] == "trained"])
    present = held.groupby("n_latents")["n_present"].mean()
    sizes = np.array(sorted(set(fvu.index) & set(present.index)))
    alpha, beta = generator["zipf_exponent"] - 1, generator.get("beta")
    out = {"sizes": sizes.tolist(), "fvu": fvu[sizes].tolist(), "n_present": present[sizes].tolist()}
    out |= {"alpha": alpha, "beta": beta}
    if len(sizes) < 3 or present[sizes].min() < 1:
        return out | {"reason": "three sizes that hold a feature are needed", "measured": None, "model": None, "limit": None}
    rates = np.array(generator["rates"])
    found = discrete(rates, sizes) if beta is None else allocate(rates, beta, sizes)
    measured = exponents(sizes, Allocation(present[sizes].to_numpy(), fvu[sizes].to_numpy()))
    whole = beta is None and not generator.get("manifold_fraction") and "k" in here and here["k"].nunique() == 1
    with_k = limited(rates, int(here["k"].iloc[0]), sizes, generator.get("magnitudes", MAGNITUDES)) if whole else None
    tiles = beta is not None and beta < alpha
    limit = ((1 + beta) / (1 + alpha), -beta) if tiles else (1.0, -alpha)
    names = ("discovered", "loss")
    return out | {"reason": None, **{key: dict(zip(names, value, strict=True)) for key, value in (
        ("measured", measured), ("model", exponents(sizes, found)), ("limit", limit))},
        "model_loss": found.loss.tolist(), "model_discovered": found.discovered.tolist(),
        "with_k": None if with_k is None else {
            "k": int(here["k"].iloc[0]), "fvu": with_k.tolist(),
            "loss": exponents(sizes, Allocation(found.discovered, with_k))[1]}}  # fmt: skip
