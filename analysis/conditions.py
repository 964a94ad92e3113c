"""Which rows to keep, in a small language of its own: `C < 3e20 and not (N <= 1e8 or kind == 'relu_l1')`.

names, `names with spaces` in backticks, numbers, 'texts', the comparisons < <= > >= == !=, also chained (1e18 < C < 1e20),
and, or, not, parentheses. Nothing else: no calls, no arithmetic, nothing evaluated by Python.
"""

import operator
import re

import numpy as np
import pandas as pd

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<text>'[^']*'|\"[^\"]*\")|(?P<quoted>`[^`]+`)"
    r"|(?P<compare><=|>=|==|!=|<|>)|(?P<bracket>[()])|(?P<name>[^\W\d]\w*(?:\.\w+)*))"
)
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}
GRAMMAR = "names, numbers, 'texts', < <= > >= == !=, and, or, not and parentheses; put a name with spaces in backticks"


def keep(table: pd.DataFrame, condition: str) -> np.ndarray:
    """bool [row]: where `condition` holds. A comparison with a missing value holds nowhere, except != .

    Errors: `ValueError` naming what cannot be read, or the columns there are when a name is none of them.
    """
    parser = _Parser(_tokens(condition), table, condition)
    found = parser.either()
    if parser.peek() is not None:
        raise parser.unreadable()
    return found


def _tokens(condition: str) -> list[tuple[str, str]]:
    out, at = [], 0
    while condition[at:].strip():
        match = _TOKEN.match(condition, at)
        if match is None:
            raise ValueError(f"The condition {condition!r} cannot be read at {condition[at:].strip()!r}: use {GRAMMAR}.")
        out.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
    return out


class _Parser:
    """Recursive descent: either = both ('or' both)*, both = single ('and' single)*, single = 'not' single | ( ) | comparison."""

    def __init__(self, tokens: list[tuple[str, str]], table: pd.DataFrame, condition: str) -> None:
        self.tokens, self.table, self.condition, self.at = tokens, table, condition, 0

    def peek(self) -> str | None:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else None

    def unreadable(self) -> ValueError:
        where = f"at {self.peek()!r}" if self.peek() is not None else "at its end"
        return ValueError(f"The condition {self.condition!r} cannot be read {where}: use {GRAMMAR}.")

    def take(self, word: str) -> bool:
        if self.peek() == word and self.tokens[self.at][0] in ("name", "bracket"):
            self.at += 1
            return True
        return False

    def either(self) -> np.ndarray:
        found = self.both()
        while self.take("or"):
            found = found | self.both()
        return found

    def both(self) -> np.ndarray:
        found = self.single()
        while self.take("and"):
            found = found & self.single()
        return found

    def single(self) -> np.ndarray:
        if self.take("not"):
            return ~self.single()
        if self.take("("):
            found = self.either()
            if not self.take(")"):
                raise self.unreadable()
            return found
        return self.comparison()

    def comparison(self) -> np.ndarray:
        left, found = self.operand(), None
        while self.at < len(self.tokens) and self.tokens[self.at][0] == "compare":
            sign = self.tokens[self.at][1]
            self.at += 1
            right = self.operand()
            held = self.compare(sign, left, right)
            found, left = held if found is None else found & held, right
        if found is None:
            raise self.unreadable()
        return found

    def operand(self) -> float | str | pd.Series:
        if self.at >= len(self.tokens):
            raise self.unreadable()
        kind, word = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            return float(word)
        if kind == "text":
            return word[1:-1]
        name = word[1:-1] if kind == "quoted" else word
        if kind not in ("name", "quoted") or (kind == "name" and name in ("and", "or", "not")):
            self.at -= 1
            raise self.unreadable()
        if name not in self.table.columns:
            there = ", ".join(str(column) for column in self.table.columns)
            raise ValueError(f"The condition {self.condition!r} names {name!r}, which is no column: the table has {there}.")
        return self.table[name]

    def compare(self, sign: str, left, right) -> np.ndarray:
        sides = [side for side in (left, right) if isinstance(side, pd.Series)]
        text = any(isinstance(side, str) for side in (left, right))
        if text and any(pd.api.types.is_numeric_dtype(side) for side in sides):
            raise ValueError(f"The condition {self.condition!r} compares numbers with a text: leave the quotes out.")
        number = any(isinstance(side, float) for side in (left, right))
        if number and not all(pd.api.types.is_numeric_dtype(side) for side in sides):
            raise ValueError(f"The condition {self.condition!r} compares a column of texts with a number: quote the value.")
        found = _COMPARE[sign](left, right)
        return np.full(len(self.table), bool(found)) if not isinstance(found, pd.Series) else found.to_numpy(bool)
