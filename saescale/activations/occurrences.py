"""Where the names of an inventory stand in a token stream, by token sequence, without searching text.

A name is one or more words with what stands between them ("New York", "Guinea-Bissau", "os.path"). It occurs where those
words follow each other with one token or less between them, and stands at its LAST token: there the model has read all of it.
The longest name wins: "York" is not counted inside "New York" when both are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from saescale.activations.words import Vocabulary, Words

PARTS = re.compile(r"\w+|[^\w]+")


@dataclass(frozen=True)
class Occurrences:
    """Every occurrence of a list of names in one token stream, in order."""

    names: list[str]
    last: np.ndarray  # int64 [occurrence], index of its last token
    name: np.ndarray  # int32 [occurrence], index into names
    spaced: np.ndarray  # bool [occurrence], whether it stands between two spaces
    n_tokens: np.ndarray  # int32 [name], tokens of the commonest spelling; 0: never occurs
    fewest_tokens: np.ndarray  # int32 [name], tokens of the shortest spelling; 0: never occurs
    last_token: np.ndarray  # int32 [name], final token id of the commonest ending; -1: never occurs

    @cached_property
    def count(self) -> np.ndarray:
        """int64 [name]."""
        return np.bincount(self.name, minlength=len(self.names))

    @cached_property
    def space_count(self) -> np.ndarray:
        """int64 [name]: occurrences of `<space>Name<space>`, the count of Templeton et al. 2024."""
        return np.bincount(self.name[self.spaced], minlength=len(self.names))


def find_names(names: Sequence[str], tokens: np.ndarray, segment: np.ndarray, vocabulary: Vocabulary,
               words: Words) -> Occurrences:
    """Every occurrence of `names` in `tokens` [token], whose words (of find_words on the same stream) are `words`.

    Raises ValueError for a name that appears twice or holds no word.
    """
    if len(set(names)) < len(names):
        twice = next(n for n in names if list(names).count(n) > 1)
        raise ValueError(f"the name {twice!r} is asked for twice. Give each name once.")
    index = _ByWord(words, tokens, segment, vocabulary)
    parts = [split_name(name) for name in names]
    first, last, found = [], [], []
    taken = np.zeros(len(words.last), dtype=bool)
    for i in sorted(range(len(names)), key=lambda i: -len(parts[i])):
        ends = index.ends(parts[i])
        n_words = (len(parts[i]) + 1) // 2
        ends = ends[~taken[ends[:, None] - np.arange(n_words)].any(axis=1)]
        if n_words > 1:
            taken[(ends[:, None] - np.arange(n_words)).ravel()] = True
        first.append(words.start[ends - n_words + 1])
        last.append(words.last[ends])
        found.append(np.full(len(ends), i, dtype=np.int32))
    start, last, name = (np.concatenate([np.zeros(0, np.int64), *part]) for part in (first, last, found))
    order = np.argsort(last, kind="stable")
    start, last, name = start[order], last[order], name[order].astype(np.int32)
    spaced = vocabulary.spaced[tokens[start]] & (last + 1 < len(tokens))
    after = np.minimum(last + 1, len(tokens) - 1)
    spaced &= vocabulary.spaced[tokens[after]] & (segment[after] == segment[last])
    commonest, fewest = _lengths(last - start + 1, name, len(names))
    return Occurrences(list(names), last, name, spaced, commonest, fewest, _commonest(tokens[last], name, len(names), -1))


def split_name(name: str) -> list[str]:
    """["New", " ", "York"]: words at even places, what joins them between. Raises ValueError when it is no such thing."""
    parts = PARTS.findall(name)
    if not parts or not re.match(r"\w", parts[0]) or len(parts) % 2 == 0 or any(p[0].isdigit() for p in parts[::2]):
        raise ValueError(f"the name {name!r} is not a name: give words of letters, digits and underscores, none beginning with "
                         "a digit, joined by spaces or signs.")
    return parts


class _ByWord:
    """The words of a stream by name, and what joins each to the word before it."""

    def __init__(self, words: Words, tokens: np.ndarray, segment: np.ndarray, vocabulary: Vocabulary) -> None:
        self.id = {name: i for i, name in enumerate(words.names)}
        self.order = np.argsort(words.name, kind="stable")
        self.bounds = np.searchsorted(words.name[self.order], np.arange(len(words.names) + 1))
        self.name, self.pieces = words.name, vocabulary.pieces
        self.joint = _joints(words, tokens, segment, vocabulary)
        self.joints: dict[str, np.ndarray] = {}

    def ends(self, parts: list[str]) -> np.ndarray:
        """int64 [occurrence]: indices of the words that end an occurrence of the name with these parts."""
        ids = [self.id.get(word, -1) for word in parts[::2]]
        if -1 in ids:
            return np.zeros(0, dtype=np.int64)
        ends = np.sort(self.order[self.bounds[ids[-1]]:self.bounds[ids[-1] + 1]])
        for back, (word, joint) in enumerate(zip(ids[-2::-1], parts[-2::-2], strict=True), start=1):
            ends = ends[ends >= back]
            ends = ends[(self.name[ends - back] == word) & np.isin(self.joint[ends - back + 1], self._codes(joint))]
        return ends

    def _codes(self, text: str) -> np.ndarray:
        """The joints that read `text`: nothing or one token, then the next word with or without its own leading space."""
        if text not in self.joints:
            spelled = [2 * (t + 1) for t, piece in enumerate(self.pieces) if piece == text]
            if text.endswith(" "):
                spelled += [1] if text == " " else [2 * (t + 1) + 1 for t, p in enumerate(self.pieces) if p == text[:-1]]
            self.joints[text] = np.array(spelled, dtype=np.int64)
        return self.joints[text]


def _joints(words: Words, tokens: np.ndarray, segment: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """int64 [word]: 2 * (token between it and the word before + 1, or 0) + whether it brings a space; -1: not joined."""
    gap = np.full(len(words.start), 2)
    gap[1:] = words.start[1:] - words.last[:-1] - 1
    between = np.where(gap == 1, tokens[np.maximum(words.start - 1, 0)].astype(np.int64) + 1, 0)
    same = np.zeros(len(gap), dtype=bool)
    same[1:] = segment[words.start[1:]] == segment[words.last[:-1]]
    return np.where((gap <= 1) & same, 2 * between + vocabulary.spaced[tokens[words.start]], -1)


def _lengths(length: np.ndarray, name: np.ndarray, n_names: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 [name] each: the commonest and the least number of tokens; 0 where there is none."""
    fewest = np.full(n_names, np.iinfo(np.int32).max, dtype=np.int32)
    np.minimum.at(fewest, name, length.astype(np.int32))
    fewest[np.bincount(name, minlength=n_names) == 0] = 0
    return _commonest(length, name, n_names, 0), fewest


def _commonest(value: np.ndarray, name: np.ndarray, n_names: int, absent: int) -> np.ndarray:
    """int32 [name]: the value most of its occurrences have (ties: the smaller)."""
    out = np.full(n_names, absent, dtype=np.int32)
    stride = int(value.max(initial=0)) + 1
    pairs, count = np.unique(name.astype(np.int64) * stride + value, return_counts=True)
    order = np.lexsort((-pairs, count))
    out[pairs[order] // stride] = pairs[order] % stride
    return out
