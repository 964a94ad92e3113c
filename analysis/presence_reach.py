"""How many alive latents, and how many training tokens, a concept of a given frequency asks for."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from analysis.codes import WARNINGS
from analysis.logistic import fit_logistic
from analysis.presence import fit_joint, resamples
from analysis.presence_checks import lapse, levels_off
from analysis.presence_data import interval, prepare

FAR_DECADES = 1.0


@dataclass(frozen=True)
class Reach:
    """`n_alive` and `tokens` as {"estimate", "lo", "hi"}; at_q1: n_alive by the one curve f50 = c / n_alive."""

    frequency: float
    tau: float
    n_alive: dict
    at_q1: dict
    q: float
    decades_beyond: float  # of the largest dictionary's alive latents; negative: inside what was trained
    tokens: dict | None
    seen: float | None  # occurrences, in training, of a concept at the 50 % frequency of the largest dictionary
    warnings: list[str]

    def to_dict(self) -> dict:
        return asdict(self)

    def summary(self) -> str:
        lines = [f"a concept that occurs {self.frequency:.3g} times a token (present: score of {self.tau:g} or more)",
                 f"  half of such concepts have a latent at n_alive = {_range(self.n_alive)} by f50 ~ n_alive^-{self.q:.2f}",
                 f"  and at n_alive = {_range(self.at_q1)} by one curve in f * n_alive (q = 1)"]  # fmt: skip
        where = "beyond" if self.decades_beyond > 0 else "inside"
        lines.append(f"  {abs(self.decades_beyond):.1f} decades {where} the largest dictionary that was trained")
        if self.tokens is not None:
            lines.append(f"  {_range(self.tokens)} training tokens show it {self.seen:,.0f} times, as often as the largest")
            lines[-1] += " dictionary saw concepts at its 50 % frequency: enough if that one was not short of data"
        return "\n".join([*lines, *(f"warning: {WARNINGS[code]}" for code in self.warnings)])


def reach(
    frame: pd.DataFrame, about: dict, frequency: float, n_tokens: int | None = None, draws: int = 400, seed: int = 0
) -> Reach:
    """Where the joint law of presence reaches one half at `frequency`; intervals are 95 % over concepts.

    `frame` and `about` are a sweep's concepts; `n_tokens` what its largest dictionaries were trained on. Raises ValueError for a
    frequency outside (0, 1), and with the reason where there is no law or presence does not rise with alive latents.
    """
    if not 0 < frequency < 1:
        raise ValueError(f"--frequency {frequency:g} is not a share of tokens: give a number between 0 and 1, as in 1e-6.")
    scored = prepare(frame, about)
    tau, weights = scored.taus[0], resamples(len(scored.concepts), draws, seed)
    data = scored.observe(tau, "trained")
    joint = fit_joint(data, weights)
    if joint["q"] is None or joint["slope_n"] <= 0:
        why = joint["reason"] or "presence does not rise with alive latents"
        raise ValueError(f"these concepts give no law to predict by: {why}.")
    w, ln_f = weights[:, data.concept], np.log(frequency)
    coef = fit_logistic(np.stack([data.ln_f, data.ln_n], axis=1), data.present, w)
    one = fit_logistic((data.ln_f + data.ln_n)[:, None], data.present, w)
    with np.errstate(divide="ignore", invalid="ignore"):
        ln_n = np.where(coef[:, 2] > 0, -(coef[:, 0] + coef[:, 1] * ln_f) / coef[:, 2], np.nan)
        ln_one = np.where(one[:, 1] > 0, -one[:, 0] / one[:, 1] - ln_f, np.nan)
        ln_f50 = np.where(coef[:, 1] > 0, -(coef[:, 0] + coef[:, 2] * data.ln_n.max()) / coef[:, 1], np.nan)
    beyond = float((ln_n[0] - data.ln_n.max()) / np.log(10))
    below = float((scored.ln_range[0] - ln_f) / np.log(10))
    warnings = ["far_extrapolation"] if max(beyond, below) > FAR_DECADES else []
    warnings += ["presence_levels_off"] if levels_off(lapse(data, joint)) else []
    tokens = None if n_tokens is None else _estimate(np.log(n_tokens) + ln_f50 - ln_f)
    return Reach(frequency, tau, _estimate(ln_n), _estimate(ln_one), joint["q"], beyond, tokens,
                 None if n_tokens is None else float(n_tokens * np.exp(ln_f50[0])), warnings)  # fmt: skip


def _estimate(ln_values: np.ndarray) -> dict:
    low, high = interval(ln_values[1:])
    return {"estimate": float(np.exp(ln_values[0])), "lo": low, "hi": high}


def _range(value: dict) -> str:
    ends = "" if value["lo"] is None else f" [{value['lo']:.3g}, {value['hi']:.3g}]"
    return f"{value['estimate']:.3g}{ends}"
