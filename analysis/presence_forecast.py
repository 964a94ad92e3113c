"""What presence will be in dictionaries that are not trained yet, written down before; and how that came out.

The joint law of the trained sizes, P(present) = sigmoid(a + s_f ln f + s_n ln n_alive), is read at a larger size. How many of its
latents will be alive no law of presence knows: the share of the largest dictionaries that were fitted is assumed, and a check
reads the law at the measured number as well, which tells a failure of the law from dead latents.

An interval is that of what a fit to the new dictionaries alone would find: concepts are redrawn, the law fitted to them, presence
of every concept drawn from it, and those fitted. It holds no change of the law: short training, saturation, another slope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.logistic import fit_logistic
from analysis.presence import fit_joint, fit_sizes, half_frequency, resamples
from analysis.presence_data import QUANTILES, Scored, interval, prepare

SCHEMA = 1


def parse_sizes(text: str) -> list[int]:
    """'4096,8192' -> [4096, 8192]."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--latents {text!r} cannot be read: give whole numbers, as in 4096,8192.") from None


def foretell(frame: pd.DataFrame, about: dict, sizes: Sequence[int], draws: int = 400, seed: int = 0) -> dict[str, Any]:
    """The law of a sweep's concepts at dictionaries of these sizes, JSON-serialisable.

    law     q with interval, tau, score, n_concepts, and what was fitted: sizes with n_alive, f50 and present_share
    draws   float [1 + draws][a, s_f, s_n], the data as they are first: the law may be read at any n_alive later
    sizes   per size asked: n_alive as assumed, f50 and present_share with intervals, decades_beyond the largest fitted n_alive

    Raises ValueError for sizes that were fitted or are smaller, and with the reason where there is no law.
    """
    scored = prepare(frame, about)
    tau, weights = scored.taus[0], resamples(len(scored.concepts), draws, seed)
    fitted = fit_sizes(scored, tau, weights, ("trained",))[0]
    largest = max(row["n_latents"] for row in fitted)
    if not sizes or min(sizes) <= largest:
        raise ValueError(f"--latents {','.join(map(str, sizes))} is no forecast: the sweep has dictionaries of up to {largest} "
                         "latents. Ask for larger ones.")
    data = scored.observe(tau, "trained")
    joint = fit_joint(data, weights)
    if joint["q"] is None:
        raise ValueError(f"these concepts give no law to predict by: {joint['reason']}.")
    coef = fit_logistic(np.stack([data.ln_f, data.ln_n], axis=1), data.present, weights[:, data.concept])
    alive = next(row["n_alive"] for row in fitted if row["n_latents"] == largest)
    shown = ("n_latents", "seeds", "n_alive", "f50", "f50_interval", "status", "present_share")
    return {
        "schema": SCHEMA,
        "law": {"tau": tau, "score": str(about.get("definition", {}).get("score", "held-out score")), "q": joint["q"],
                "q_interval": joint["q_interval"], "c_at_q1": joint["c_at_q1"], "n_concepts": len(scored.concepts),
                "f_min": float(np.exp(scored.ln_range[0])), "f_max": float(np.exp(scored.ln_range[1])),
                "fitted": [{key: row[key] for key in shown} for row in fitted]},
        "draws": [[float(f"{value:.8g}") for value in row] for row in coef],
        "sizes": [{"n_latents": int(n), "n_alive": n * alive / largest, **at_alive(coef, scored, n * alive / largest, seed),
                   "decades_beyond": float(np.log10(n / largest))} for n in sorted(sizes)],
    }  # fmt: skip


def at_alive(coef: np.ndarray, scored: Scored, n_alive: float, seed: int = 0) -> dict[str, Any]:
    """f50 and present_share of the scored concepts at n_alive, by the law's draws coef [draw, (a, s_f, s_n)]."""
    ln_f, rng = scored.ln_f, np.random.default_rng(seed)
    intercept = coef[:, 0] + coef[:, 2] * np.log(n_alive)
    p = 1 / (1 + np.exp(-(intercept[:, None] + coef[:, 1:2] * ln_f)))
    drawn = (rng.random(p.shape) < p).astype(np.float64)
    both = np.concatenate([drawn, 1 - drawn], axis=1)  # every concept as present and as absent, one of them with weight 0
    outcome = np.repeat([1.0, 0.0], len(ln_f))
    found = half_frequency(fit_logistic(np.tile(ln_f, 2)[:, None], outcome, both), scored.ln_range)
    point = float(np.exp(-intercept[0] / coef[0, 1]))
    share = np.quantile(drawn[1:].mean(axis=1), QUANTILES)
    return {"f50": point, "f50_interval": interval(found[1:]), "present_share": float(p[0].mean()),
            "present_share_interval": [float(v) for v in share]}  # fmt: skip


def verify(
    foretold: Mapping[str, Any], frame: pd.DataFrame, about: dict, draws: int = 400, seed: int = 0
) -> list[dict[str, Any]]:
    """How a forecast came out: one row per size that was foretold and is now scored.

    foretold, measured        n_alive, f50, f50_interval, present_share (of the forecast also its interval)
    at_measured_alive         the same law at the measured n_alive: f50, present_share and their intervals
    f50_error                 ln(measured / foretold), null where the measured f50 is a bound; held, at_alive_held: whether the
                              interval holds the measured f50 (a bound is held where the interval reaches it)
    share_held, share_at_alive_held    the same of present_share

    Raises ValueError for a forecast of another threshold, score or number of concepts, and where no size is scored yet.
    """
    if foretold.get("schema") != SCHEMA:
        raise ValueError(f"the forecast is of another version of saescale (schema {foretold.get('schema')}, here {SCHEMA}).")
    scored, law = prepare(frame, about), foretold["law"]
    here = {"tau": scored.taus[0], "score": str(about.get("definition", {}).get("score", "held-out score")),
            "n_concepts": len(scored.concepts)}
    different = [f"{key} {law[key]} and {value}" for key, value in here.items() if law[key] != value]
    if different:
        raise ValueError(f"the forecast and these scores are not of the same: {'; '.join(different)}. Score the same concepts.")
    weights = resamples(len(scored.concepts), draws, seed)
    rows = {row["n_latents"]: row for row in fit_sizes(scored, scored.taus[0], weights, ("trained",))[0]}
    due = [size for size in foretold["sizes"] if size["n_latents"] in rows]
    if not due:
        asked = ", ".join(str(size["n_latents"]) for size in foretold["sizes"])
        raise ValueError(f"none of the sizes that were foretold ({asked}) is scored yet. Train and score them first.")
    return [_came_out(size, rows[size["n_latents"]], np.array(foretold["draws"]), scored, seed) for size in due]


def _came_out(size: Mapping[str, Any], row: Mapping[str, Any], coef: np.ndarray, scored: Scored, seed: int) -> dict[str, Any]:
    at = at_alive(coef, scored, row["n_alive"], seed)
    keys = ("n_alive", "f50", "f50_interval", "present_share")
    measured = row["f50"] if row["f50"] is not None else row["bound"]
    return {
        "n_latents": size["n_latents"],
        "seeds": row["seeds"],
        "foretold": {key: size[key] for key in (*keys, "present_share_interval")},
        "measured": {key: row[key] for key in (*keys, "status", "bound")},
        "at_measured_alive": at,
        "f50_error": None if row["f50"] is None else float(np.log(row["f50"] / size["f50"])),
        "f50_error_at_alive": None if row["f50"] is None else float(np.log(row["f50"] / at["f50"])),
        "held": _holds(size["f50_interval"], measured),
        "at_alive_held": _holds(at["f50_interval"], measured),
        "share_held": _holds(size["present_share_interval"], row["present_share"]),
        "share_at_alive_held": _holds(at["present_share_interval"], row["present_share"]),
    }  # fmt: skip


def _holds(ends: Sequence[float | None], value: float | None) -> bool | None:
    """An end that is null lies beyond the sampled frequencies; null where there is no value, or no interval at all."""
    if value is None or list(ends) == [None, None]:
        return None
    return (ends[0] is None or ends[0] <= value) and (ends[1] is None or value <= ends[1])


def page(foretold: Mapping[str, Any]) -> str:
    """The forecast in lines for a person."""
    law = foretold["law"]
    lines = ["f50 ~ n_alive^-{:.2f} [{:.2f}, {:.2f}], {} concepts, sizes {} ({} >= {:g})".format(
        law["q"], *law["q_interval"], law["n_concepts"], ", ".join(str(row["n_latents"]) for row in law["fitted"]), law["score"],
        law["tau"])]  # fmt: skip
    for size in foretold["sizes"]:
        lines.append(f"{size['n_latents']} latents, {size['n_alive']:,.0f} alive: half of the concepts present at "
                     f"{_number(size['f50'], size['f50_interval'])} per token, "
                     f"{_share(size['present_share'], size['present_share_interval'])} of these concepts present")
    return "\n".join(lines)


def outcome_page(rows: Sequence[Mapping[str, Any]]) -> str:
    """What came of a forecast in lines for a person."""
    lines = []
    for row in rows:
        measured, at = row["measured"], row["at_measured_alive"]
        lines.append(f"{row['n_latents']} latents ({row['seeds']} seeds): f50 {_measured(measured)} measured, "
                     f"{_number(row['foretold']['f50'], row['foretold']['f50_interval'])} foretold, {_word(row['held'])}; "
                     f"with the {measured['n_alive']:,.0f} that are alive {_number(at['f50'], at['f50_interval'])}, "
                     f"{_word(row['at_alive_held'])}")
        lines.append(f"  present {measured['present_share']:.1%} measured, "
                     f"{_share(row['foretold']['present_share'], row['foretold']['present_share_interval'])} foretold, "
                     f"{_word(row['share_held'])}; with those alive {_share(at['present_share'], at['present_share_interval'])}, "
                     f"{_word(row['share_at_alive_held'])}")
    return "\n".join(lines)


def _measured(of: Mapping[str, Any]) -> str:
    if of["f50"] is not None:
        return f"{of['f50']:.3g}"
    return f"beyond {of['bound']:.3g}" if of["bound"] is not None else f"none ({of['status']})"


def _number(value: float, ends: Sequence[float | None]) -> str:
    return f"{value:.3g} [{', '.join('-' if end is None else f'{end:.3g}' for end in ends)}]"


def _share(value: float, ends: Sequence[float]) -> str:
    return f"{value:.1%} [{ends[0]:.1%}, {ends[1]:.1%}]"


def _word(held: bool | None) -> str:
    return {True: "held", False: "MISSED", None: "undecided"}[held]
