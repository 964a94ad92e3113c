"""Conditions, in a small language of their own: `C < 3e20 and not (N <= 1e8 or kind == 'relu_l1')`.

names, `names with spaces` in backticks, numbers, 'texts', the comparisons < <= > >= == !=, also chained (1e18 < C < 1e20),
and, or, not, parentheses. Nothing else: no calls, no arithmetic, nothing evaluated by Python. Who asks says what a name stands
for: a column of a table (analysis/conditions.py) or a fact of a run (campaign/only.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<text>'[^']*'|\"[^\"]*\")|(?P<quoted>`[^`]+`)"
    r"|(?P<compare><=|>=|==|!=|<|>)|(?P<bracket>[()])|(?P<name>[^\W\d]\w*(?:\.\w+)*))"
)
GRAMMAR = "names, numbers, 'texts', < <= > >= == !=, and, or, not and parentheses; put a name with spaces in backticks"


@dataclass(frozen=True)
class Name:
    text: str


Operand = float | str | Name


@dataclass(frozen=True)
class Condition:
    """What was parsed. tree: ("or", a, b), ("and", a, b), ("not", a), or a comparison (sign, left operand, right operand)."""

    text: str
    tree: tuple

    def operands(self) -> Iterator[Operand]:
        """Every name, number and text, left to right."""
        def below(tree: tuple) -> Iterator[Operand]:
            for part in tree[1:]:
                yield from below(part) if isinstance(part, tuple) else (part,)
        return below(self.tree)

    def holds(self, compare: Callable[[str, Operand, Operand], Any]) -> Any:
        """Where it holds: bool or bool [row], as `compare(sign, left, right)` gives for each comparison."""
        def value(tree: tuple) -> Any:
            if tree[0] == "not":
                return np.logical_not(value(tree[1]))
            if tree[0] in ("and", "or"):
                return {"and": np.logical_and, "or": np.logical_or}[tree[0]](value(tree[1]), value(tree[2]))
            return compare(*tree)
        return value(self.tree)


def parse(text: str) -> Condition:
    """Errors: `ValueError`, one sentence that says where the text stops being a condition."""
    parser = _Parser(text)
    tree = parser.either()
    if parser.peek() is not None:
        raise parser.unreadable()
    return Condition(text, tree)


class _Parser:
    """Recursive descent: either = both ('or' both)*, both = single ('and' single)*, single = 'not' single | ( ) | comparison."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.tokens: list[tuple[str, str]] = []
        end = 0
        while text[end:].strip():
            match = _TOKEN.match(text, end)
            if match is None:
                raise ValueError(f"the condition {text!r} cannot be read at {text[end:].strip()!r}: use {GRAMMAR}.")
            self.tokens.append((match.lastgroup, match.group(match.lastgroup)))
            end = match.end()

    def peek(self) -> str | None:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else None

    def unreadable(self) -> ValueError:
        where = f"at {self.peek()!r}" if self.peek() is not None else "at its end"
        return ValueError(f"the condition {self.text!r} cannot be read {where}: use {GRAMMAR}.")

    def take(self, word: str) -> bool:
        if self.peek() == word and self.tokens[self.at][0] in ("name", "bracket"):
            self.at += 1
            return True
        return False

    def either(self) -> tuple:
        tree = self.both()
        while self.take("or"):
            tree = ("or", tree, self.both())
        return tree

    def both(self) -> tuple:
        tree = self.single()
        while self.take("and"):
            tree = ("and", tree, self.single())
        return tree

    def single(self) -> tuple:
        if self.take("not"):
            return ("not", self.single())
        if self.take("("):
            tree = self.either()
            if not self.take(")"):
                raise self.unreadable()
            return tree
        return self.comparison()

    def comparison(self) -> tuple:
        left, tree = self.operand(), None
        while self.at < len(self.tokens) and self.tokens[self.at][0] == "compare":
            sign = self.tokens[self.at][1]
            self.at += 1
            right = self.operand()
            tree = (sign, left, right) if tree is None else ("and", tree, (sign, left, right))
            left = right
        if tree is None:
            raise self.unreadable()
        return tree

    def operand(self) -> Operand:
        kind, word = self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")
        if kind not in ("number", "text", "quoted", "name") or (kind == "name" and word in ("and", "or", "not")):
            raise self.unreadable()
        self.at += 1
        if kind == "number":
            return float(word)
        return word[1:-1] if kind == "text" else Name(word.strip("`"))
