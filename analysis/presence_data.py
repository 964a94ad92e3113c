"""Concept scores as arrays: what may enter a presence fit, what is left out for every dictionary alike, what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

KINDS = ("trained", "untrained", "neurons", "permuted")  # of dictionaries; all but the first are controls
MIN_COUNT = 10  # occurrences in the training text below which a frequency is mostly noise
QUANTILES = (0.025, 0.975)
TAUS = (0.5, 0.3, 0.7)  # score thresholds, the headline first
DICTIONARY = ["run_id", "dictionary", "n_latents", "n_alive", "seed"]
CONCEPT = ["category", "concept", "count", "frequency", "ambiguous"]
NEEDED = (*DICTIONARY, *CONCEPT, "score")


class Observations(NamedTuple):
    """One group of dictionaries: (concept, dictionary) pairs flattened."""

    present: np.ndarray  # float64 [pair], 0 or 1
    ln_f: np.ndarray  # float64 [pair]
    ln_n: np.ndarray  # float64 [pair], ln n_alive of the dictionary
    concept: np.ndarray  # int64 [pair]
    ln_total: np.ndarray | None = None  # float64 [pair], ln n_latents; None: as ln_n

    @property
    def size(self) -> np.ndarray:
        """int64 [pair], which size; seeds of one size share it."""
        return np.unique(self.ln_n if self.ln_total is None else self.ln_total, return_inverse=True)[1]


@dataclass(frozen=True)
class Scored:
    """`dictionaries` and `concepts` as tables, and of every pair [dictionary, concept] the score, nan where there is none."""

    dictionaries: pd.DataFrame  # DICTIONARY
    concepts: pd.DataFrame  # CONCEPT and space_frequency where it was counted
    scores: dict[str, np.ndarray]  # "score", and "f1_natural", "prompt_hit" where they were measured
    excluded: dict[str, int]  # reason -> concepts left out, for every dictionary alike
    taus: tuple[float, ...] = TAUS  # the headline first

    @property
    def ln_f(self) -> np.ndarray:
        return np.log(self.concepts["frequency"].to_numpy(np.float64))

    @property
    def ln_range(self) -> np.ndarray:
        """ln of the lowest and the highest sampled frequency."""
        return np.array([self.ln_f.min(), self.ln_f.max()])

    def members(self, kind: str, n_latents: int | None = None) -> np.ndarray:
        """Indices of the dictionaries of a kind, of one size or of all."""
        d = self.dictionaries
        here = d["dictionary"] == kind
        return np.flatnonzero(here if n_latents is None else here & (d["n_latents"] == n_latents))

    def sizes(self, kind: str) -> list[int]:
        return sorted({int(n) for n in self.dictionaries["n_latents"][self.members(kind)]})

    def kept(self, which: np.ndarray) -> Scored:
        """Only these concepts (bool or index [concept])."""
        scores = {name: values[:, which] for name, values in self.scores.items()}
        return replace(self, concepts=self.concepts[which].reset_index(drop=True), scores=scores)

    def observe(self, tau: float, kind: str, n_latents: int | None = None, by: str = "score") -> Observations:
        """The scored pairs of the dictionaries of a kind; present is a score of at least tau."""
        chosen = self.members(kind, n_latents)
        if n_latents is None:
            chosen = chosen[self.dictionaries["n_alive"].to_numpy()[chosen] > 0]
        d, values = self.dictionaries.iloc[chosen], self.scores[by][chosen]
        ln_n = np.log(np.maximum(d["n_alive"].to_numpy(np.float64), 1.0))  # a size alone does not use it
        ln_total = np.log(d["n_latents"].to_numpy(np.float64))
        which, concept = np.nonzero(~np.isnan(values))
        present = (values[which, concept] >= tau).astype(np.float64)
        return Observations(present, self.ln_f[concept], ln_n[which], concept, ln_total[which])


def prepare(frame: pd.DataFrame, about: dict | None = None) -> Scored:
    """The arrays of a concepts.parquet (`frame`) and its concepts.json (`about`), which may name other thresholds.

    Left out, for every dictionary alike and so never by presence: concepts counted fewer than MIN_COUNT times in the
    training text, and concepts that no dictionary could be scored on. Raises ValueError for a frame that lacks a column,
    mixes corpora, repeats a pair, or has nothing left.
    """
    _refuse(frame)
    key = ["category", "concept"]
    of = frame[(frame["count"] >= MIN_COUNT) & (frame["frequency"] > 0)]
    concepts = of.drop_duplicates(key).sort_values(["frequency", *key], kind="stable")
    few = len(frame.drop_duplicates(key)) - len(concepts)
    dictionaries = frame.drop_duplicates(DICTIONARY[:2])
    dictionaries = dictionaries.assign(order=dictionaries["dictionary"].map(KINDS.index))
    dictionaries = dictionaries.sort_values(["order", "n_latents", "seed", "run_id"], kind="stable")[DICTIONARY]
    row, column = (pd.MultiIndex.from_frame(table) for table in (dictionaries[DICTIONARY[:2]], concepts[key]))
    at = (row.get_indexer(pd.MultiIndex.from_frame(of[DICTIONARY[:2]])), column.get_indexer(pd.MultiIndex.from_frame(of[key])))
    scores = {"score": np.full((len(row), len(column)), np.nan)}
    for name in ("score", "f1_natural", "prompt_hit"):
        if name in of and of[name].notna().any():
            scores[name] = np.full((len(row), len(column)), np.nan)
            scores[name][at] = of[name].astype("Float64").to_numpy(np.float64, na_value=np.nan)
    extra = ["space_frequency"] if "space_frequency" in of and of["space_frequency"].notna().any() else []
    taus = tuple((about or {}).get("definition", {}).get("taus") or TAUS)
    found = Scored(dictionaries.reset_index(drop=True), concepts[CONCEPT + extra].reset_index(drop=True), scores,
                   {"few_counts": few}, taus)  # fmt: skip
    return _scored_only(found)


def _refuse(frame: pd.DataFrame) -> None:
    missing = [name for name in NEEDED if name not in frame]
    if missing:
        raise ValueError(f"The concept scores have no column {', '.join(missing)}: they need {', '.join(NEEDED)}. Score again.")
    if not len(frame):
        raise ValueError("The concept scores are empty: no dictionary was scored on any concept. Score again.")
    strange = sorted(set(frame["dictionary"]) - set(KINDS))
    if strange:
        raise ValueError(f"dictionary={strange[0]!r} is no kind of dictionary: choose among {', '.join(KINDS)}.")
    pair = ["run_id", "dictionary", "category", "concept"]
    if frame.duplicated(pair).any():
        row = frame[frame.duplicated(pair)].iloc[0]
        raise ValueError(f"{row['run_id']} ({row['dictionary']}) has two scores for {row['concept']!r} of category "
                         f"{row['category']!r}: one is needed. Score again.")  # fmt: skip
    counted = frame.groupby(["category", "concept"])[["count", "frequency"]].nunique()
    mixed = counted[(counted > 1).any(axis=1)]
    if len(mixed):
        category, concept = mixed.index[0]
        raise ValueError(
            f"{concept!r} of category {category!r} has several frequencies: these dictionaries were trained on different "
            "corpora, and one law of frequency cannot hold for both. Fit the runs of one corpus at a time."
        )


def _scored_only(found: Scored) -> Scored:
    score = found.scores["score"]
    if not score.shape[1]:
        raise ValueError(f"All {found.excluded['few_counts']} concepts were counted fewer than {MIN_COUNT} times in the training "
                         "text, too few for a frequency: score on a longer text, or name more frequent concepts.")  # fmt: skip
    for d, values in zip(found.dictionaries.itertuples(), score, strict=True):
        if np.isnan(values).all():
            raise ValueError(f"{d.run_id} ({d.dictionary}) has no score for any concept: leave it out or score on more tokens.")
    scored = ~np.isnan(score).all(axis=0)
    return replace(found.kept(scored), excluded=found.excluded | {"unscored": int((~scored).sum())})


def interval(ln_values: np.ndarray) -> list[float | None]:
    """95 % of exp(draws) as order statistics, so +-inf (beyond the range) may be an end: it is given as null."""
    drawn = ln_values[~np.isnan(ln_values)]
    if len(drawn) < 0.95 * len(ln_values) or not len(drawn):
        return [None, None]
    ends = np.quantile(drawn, QUANTILES, method="inverted_cdf")
    return [float(np.exp(e)) if np.isfinite(e) else None for e in ends]
