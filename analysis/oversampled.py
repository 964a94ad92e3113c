"""Does presence follow a word's frequency in the dictionary's mix, where its frequency in the model's text is the same?

Two mixes of one text repeat different documents, so the same word is frequent in one and rare in the other. With m the mean of
ln frequency over the two mixes and d a mix's own less that mean,

    P(present) = sigmoid(a_mix + s_between m + s_within d)        rho = s_within / s_between

s_between compares words, which differ in everything; s_within compares a word with itself. rho = 1: presence follows what the
dictionary was shown; rho = 0: it follows something else about words (how often the model met them, how they are spelled). Words
are drawn for the intervals, with their presence in every dictionary of both mixes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.logistic import fit_logistic
from analysis.presence import resamples
from analysis.presence_data import MIN_COUNT, QUANTILES

KINDS = ("trained", "untrained")
MIN_SHIFT = 0.5  # in ln frequency: words that moved by more are told apart in the table of shares


def compare(mixes: list[pd.DataFrame], named: list[list[str]], taus: tuple[float, ...] = (0.5, 0.3, 0.7), draws: int = 1000,
            seed: int = 0) -> dict[str, Any]:  # fmt: skip
    """`mixes`: the concept tables of two mixes; `named`: the names whose documents each repeats. Words scored in both are used.

    Per kind of dictionary and threshold: rho with interval, both slopes. `shares`: share present of the named words, in the mix
    that repeats them and in the other, and the difference with its interval; the same of words that no list names but that moved.
    """
    frames = [_words(frame) for frame in mixes]
    words = sorted(set(frames[0].index) & set(frames[1].index))
    ln_f = np.log(np.stack([frame.loc[words, "frequency"].to_numpy(float) for frame in frames]))
    weights = resamples(len(words), draws, seed)
    scores = {kind: [_scores(frame, words, kind) for frame in mixes] for kind in KINDS}
    own = np.array([[word in names for word in words] for names in named])
    return {
        "n_words": len(words),
        "shift": {"standard_deviation": float((ln_f[0] - ln_f[1]).std()), "largest": float(np.abs(ln_f[0] - ln_f[1]).max())},
        "seeds": [len(part) for part in scores["trained"]],
        "rho": [{"dictionary": kind, "tau": tau, **_rho(scores[kind], ln_f, tau, weights)} for kind in KINDS for tau in taus],
        "shares": [{"dictionary": kind, "words": name, "tau": tau, **_shares(scores[kind], up, tau, weights)}
                   for kind in KINDS for tau in taus for name, up in _groups(own, ln_f).items()],
    }  # fmt: skip


def _words(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per word: `concept` as index, its frequency in the mix. A word in two categories is one word."""
    once = frame[(frame["count"] >= MIN_COUNT) & frame["score"].notna()].drop_duplicates("concept")
    return once.set_index("concept")


def _scores(frame: pd.DataFrame, words: list[str], kind: str) -> np.ndarray:
    """float64 [dictionary, word]."""
    here = frame[frame["dictionary"] == kind].drop_duplicates(["run_id", "concept"])
    return here.pivot(index="run_id", columns="concept", values="score")[words].to_numpy(float)


def _rho(scores: list[np.ndarray], ln_f: np.ndarray, tau: float, weights: np.ndarray) -> dict[str, Any]:
    mean = ln_f.mean(axis=0)
    parts = [(part >= tau, mix) for mix, scored in enumerate(scores) for part in scored]
    present = np.concatenate([part for part, _ in parts]).astype(float)
    columns = np.concatenate([np.stack([np.full(len(mean), float(mix)), mean, ln_f[mix] - mean], axis=1) for _, mix in parts])
    if min(present.sum(), len(present) - present.sum()) < MIN_COUNT:
        return {"rho": None, "rho_interval": [None, None], "within": None, "between": None}
    coef = fit_logistic(columns, present, np.tile(weights, len(parts)))
    ratio = coef[:, 3] / coef[:, 2]
    return {"rho": float(ratio[0]), "rho_interval": _ends(ratio),
            "within": float(coef[0, 3]), "within_interval": _ends(coef[:, 3]),
            "between": float(coef[0, 2]), "between_interval": _ends(coef[:, 2])}  # fmt: skip


def _groups(own: np.ndarray, ln_f: np.ndarray) -> dict[str, np.ndarray]:
    """name -> int [word]: 0 or 1, the mix in which the word is more frequent, -1 for words that are not of the group."""
    more = (ln_f[1] > ln_f[0]).astype(int)
    listed = own.any(axis=0)
    moved = np.abs(ln_f[0] - ln_f[1]) > MIN_SHIFT
    return {"named": np.where(listed, more, -1), "moved": np.where(~listed & moved, more, -1)}


def _shares(scores: list[np.ndarray], up: np.ndarray, tau: float, weights: np.ndarray) -> dict[str, Any]:
    """Share present where the word is frequent and where it is rare; seeds are averaged."""
    mean = np.stack([(part >= tau).mean(axis=0) for part in scores])
    kept = up >= 0
    high = np.where(up == 1, mean[1], mean[0])[kept]
    low = np.where(up == 1, mean[0], mean[1])[kept]
    w = weights[:, kept]
    drawn = (w @ (high - low)) / np.maximum(w.sum(axis=1), 1)
    return {"n_words": int(kept.sum()), "frequent": float(high.mean()) if kept.any() else None,
            "rare": float(low.mean()) if kept.any() else None, "difference": float(drawn[0]),
            "difference_interval": _ends(drawn)}  # fmt: skip


def _ends(drawn: np.ndarray) -> list[float]:
    return [float(value) for value in np.quantile(drawn[1:], QUANTILES)]
