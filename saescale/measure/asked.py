"""What a sweep asks about, in the text its dictionaries were trained on: names, their frequencies, what is left out and why."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from saescale.activations.occurrences import Occurrences, find_names
from saescale.activations.words import Vocabulary, Words, find_words
from saescale.measure.concepts import MIN_PER_HALF
from saescale.measure.firings import Concepts

BIN_DECADES = 0.25


@dataclass(frozen=True)
class Text:
    """One token stream and its words: arrays are [token]; `segment` changes where a word cannot go on. `repeats` says how often
    each token comes in the training mix, None: once."""

    tokens: np.ndarray
    segment: np.ndarray
    vocabulary: Vocabulary
    words: Words
    repeats: np.ndarray | None = None

    @classmethod
    def of(cls, tokens: np.ndarray, segment: np.ndarray, vocabulary: Vocabulary, repeats: np.ndarray | None = None) -> Text:
        return cls(tokens, segment, vocabulary, find_words(tokens, segment, vocabulary), repeats)

    @property
    def n_tokens(self) -> int:
        return len(self.tokens) if self.repeats is None else int(self.repeats.sum())

    def count(self, last: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
        """int64 [group]: occurrences in the mix, of those that end at the tokens `last`."""
        return np.bincount(group, None if self.repeats is None else self.repeats[last], n_groups).astype(np.int64)

    def find(self, names: Sequence[str]) -> Occurrences:
        return find_names(names, self.tokens, self.segment, self.vocabulary, self.words)


@dataclass(frozen=True)
class Asked:
    """`table`, one row per concept: category, concept, prompt, n_name_tokens, count, frequency, space_frequency, ambiguous, name
    (index into `found.names`), group (index of the category). `found` are the names in the scored text."""

    table: pd.DataFrame
    found: Occurrences
    left_out: list[dict[str, str]]
    categories: dict[str, dict[str, Any]]

    @property
    def concepts(self) -> Concepts:
        return Concepts(self.table["name"].to_numpy(np.int32), self.table["group"].to_numpy(np.int32))


def frequencies(content: Mapping[str, Any]) -> tuple[float, float]:
    """The range of words and synthetic features that a job asks about: as the sweep says, which stays the same when a size is
    added, or by its dictionary sizes."""
    low, high = content.get("frequencies") or frequency_range(content["sizes"])
    return float(low), float(high)


def frequency_range(sizes: Iterable[int]) -> tuple[float, float]:
    """(0.3 / n_max, 3 / n_min): where the presence of a concept can change across these dictionary sizes."""
    sizes = sorted(sizes)
    if not sizes or sizes[0] < 1:
        raise ValueError(f"sizes={sizes} are not dictionary sizes: give at least one n_latents of 1 or more.")
    return 0.3 / sizes[-1], 3.0 / sizes[0]


def ask(inventories: Sequence[Mapping[str, Any]], train: Text, scored: Text, choosing: np.ndarray, limits: tuple[float, float],
        min_tokens: int, encode: Any) -> Asked:
    """The concepts of `inventories` that occur in `train` and have `min_tokens` tokens in every spelling.

    Counts are those of `train`, the text of the dictionaries; occurrences those of `scored`, whose halves are `choosing`.
    `limits` are the frequencies of an `every_word` inventory. `encode(text)` gives token ids or None, to tell a name that
    the tokenizer cannot spell from one that does not occur. Raises ValueError when nothing can be scored.
    """
    wanted = [(inventory, category, names) for inventory in inventories for category, names in
              (_every_word(inventory, train, scored, choosing, limits, min_tokens) or inventory["categories"]).items()]
    names = sorted({name for _, _, listed in wanted for name in listed})
    counted = train.find(names)
    found = counted if scored is train else scored.find(names)
    number = {name: i for i, name in enumerate(names)}
    count = train.count(counted.last, counted.name, len(names))
    between_spaces = train.count(counted.last[counted.spaced], counted.name[counted.spaced], len(names)) / train.n_tokens
    rows, left_out, categories = [], [], {}
    flags = _Ambiguous(wanted, train.words)
    for group, (inventory, category, listed) in enumerate(wanted):
        reasons = {n: _why_left_out(n, counted, found, number[n], min_tokens, encode) for n in listed}
        left_out += [{"category": category, "concept": n, "reason": why} for n, why in reasons.items() if why]
        for name in (n for n in listed if not reasons[n]):
            i = number[name]
            rows.append({"category": category, "concept": name, "prompt": inventory["prompt"].format(name=name),
                         "n_name_tokens": int(counted.n_tokens[i]), "count": int(count[i]),
                         "frequency": count[i] / train.n_tokens,
                         "space_frequency": between_spaces[i] if inventory["spaced"] else np.nan,
                         "ambiguous": flags.of(inventory, name), "name": i, "group": group})
        categories[category] = {"inventory": inventory["name"], "closed": category in inventory["closed"], "n_names": len(listed),
                                "n_counted": int(sum(counted.count[number[n]] > 0 for n in listed))}
    if not rows:
        raise ValueError(f"none of the {len(names)} names of {', '.join(categories)} can be scored, the first because it "
                         f"{left_out[0]['reason'] if left_out else 'is not there'}. Choose other inventories, or another corpus.")
    table = pd.DataFrame(rows).sort_values(["frequency", "category", "concept"], ignore_index=True)
    halves = np.stack([np.bincount(found.name[side[found.last]], minlength=len(names)) for side in (choosing, ~choosing)])
    enough = (halves.min(axis=0) >= MIN_PER_HALF)[table["name"]]
    for category, about in categories.items():
        about["n_asked"] = int((table["category"] == category).sum())
        about["n_scored"] = int(enough[table["category"] == category].sum())
    return Asked(table, found, left_out, categories)


def _why_left_out(name: str, counted: Occurrences, found: Occurrences, i: int, min_tokens: int, encode: Any) -> str | None:
    if counted.count[i] == 0:
        spelled = encode(name)
        if spelled is None:
            return "cannot be spelled by the tokenizer"
        return "never occurs in the training text"
    shortest = min(int(t.fewest_tokens[i]) for t in (counted, found) if t.fewest_tokens[i] > 0)
    if shortest < min_tokens:
        return f"has a spelling of {shortest} token{'s' * (shortest > 1)}, fewer than concepts.min_tokens={min_tokens}"
    return None


class _Ambiguous:
    """Whether a name means something else as well: its inventory says so, two categories have it, or, of a capitalised name, the
    word in small letters is as frequent."""

    def __init__(self, wanted: Sequence[tuple[Mapping[str, Any], str, Sequence[str]]], words: Words) -> None:
        self.times = Counter(name for _, _, names in wanted for name in names)
        count = np.bincount(words.name, minlength=len(words.names))
        self.count = dict(zip(words.names, count.tolist(), strict=True))

    def of(self, inventory: Mapping[str, Any], name: str) -> bool:
        small = name.lower()
        is_word = small != name and self.count.get(small, 0) >= self.count.get(name, 0) > 0
        return name in inventory["ambiguous"] or self.times[name] > 1 or is_word


def _every_word(inventory: Mapping[str, Any], train: Text, scored: Text, choosing: np.ndarray, limits: tuple[float, float],
                min_tokens: int) -> dict[str, list[str]] | None:
    """All words in the range of frequencies as one category; None for an inventory that lists its names."""
    every = inventory["every_word"]
    if every is None:
        return None
    names = frequent_words(train, scored.words, choosing, limits, every["per_bin"], min_tokens)
    if not names:
        raise ValueError(f"no word of {min_tokens} or more tokens occurs {limits[0]:.1e} to {limits[1]:.1e} times a token and "
                         f"{MIN_PER_HALF} times in each half of {scored.words.n_stream} tokens. Score on more tokens, or add a "
                         "larger dictionary: rarer words then count.")
    return {every["category"]: names}


def frequent_words(text: Text, scored: Words, choosing: np.ndarray, limits: tuple[float, float], per_bin: int = 100,
                   min_tokens: int = 2) -> list[str]:
    """Words whose occurrences per token of `text` lie within `limits`, rarest first.

    They have two letters, `min_tokens` tokens in every spelling, and MIN_PER_HALF occurrences in each half of `scored`. At most
    `per_bin` are kept per quarter decade of frequency, by a hash of the name, so another corpus of the kind keeps most of them.
    """
    train = text.words
    count = text.count(train.last, train.name, len(train.names))
    in_train = {name: i for i, name in enumerate(train.names)}
    to_train = np.array([in_train.get(name, -1) for name in scored.names], dtype=np.int64)
    frequency = np.append(count, 0)[to_train] / max(text.n_tokens, 1)  # -1, not in the training tokens, reads the 0
    fit = (frequency >= max(limits[0], 1e-300)) & (frequency <= limits[1]) & _scorable(scored, choosing, min_tokens)
    fit[fit] &= train.fewest_tokens[to_train[fit]] >= min_tokens
    return [scored.names[i] for i in _spread(np.flatnonzero(fit), frequency, scored.names, per_bin)]


def _scorable(scored: Words, choosing: np.ndarray, min_tokens: int) -> np.ndarray:
    """bool [name]: two letters, min_tokens in every spelling, MIN_PER_HALF occurrences in each half."""
    in_a = np.bincount(scored.name[choosing[scored.last]], minlength=len(scored.names))
    in_b = np.bincount(scored.name, minlength=len(scored.names)) - in_a
    letters = np.array([sum(map(str.isalpha, name)) for name in scored.names], dtype=np.int64)
    return (np.minimum(in_a, in_b) >= MIN_PER_HALF) & (scored.fewest_tokens >= min_tokens) & (letters >= 2)


def _spread(candidates: np.ndarray, frequency: np.ndarray, names: list[str], per_bin: int) -> np.ndarray:
    """At most `per_bin` candidates per bin of log frequency, first by the hash of their names; rarest first."""
    order = sorted(candidates.tolist(), key=lambda i: hashlib.sha256(names[i].encode()).digest())
    bins: dict[int, list[int]] = {}
    for i in order:
        bins.setdefault(int(np.floor(np.log10(frequency[i]) / BIN_DECADES)), []).append(i)
    kept = [i for members in bins.values() for i in members[:per_bin]]
    return np.array(sorted(kept, key=lambda i: (frequency[i], names[i])), dtype=np.int64)
