"""Formulas as text: evaluated on numbers, arrays or jets, never by Python's own eval.

A jet is a value with its exact first and second derivatives by the parameters, so a law written as a formula is solved
with exact derivatives like the built-in ones (Griewank and Walther 2008, forward mode of second order).
"""

import ast
import operator
from dataclasses import dataclass
from functools import cache

import numpy as np

_BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow}
_FUNCTIONS = ("ln", "exp", "sqrt")
ALLOWED = "numbers, names, + - * / **, parentheses, ln(), exp(), sqrt()"


@dataclass(frozen=True)
class Jet:
    """value [...]; slope {i: [...]}; bend {(i, j), i <= j: [...]}: derivatives by parameters i, j; absent means zero."""

    value: np.ndarray
    slope: dict
    bend: dict

    def chain(self, value: np.ndarray, first: np.ndarray, second: np.ndarray) -> "Jet":
        """f(self), from f, f' and f'' at self.value."""
        slope = {i: first * d for i, d in self.slope.items()}
        bend = {ij: first * d for ij, d in self.bend.items()}
        names = sorted(self.slope)
        for at, i in enumerate(names):
            for j in names[at:]:
                bend[i, j] = bend.get((i, j), 0.0) + second * self.slope[i] * self.slope[j]
        return Jet(value, slope, bend)

    def __add__(self, other) -> "Jet":
        other = jet(other)
        return Jet(self.value + other.value, _sum(self.slope, other.slope), _sum(self.bend, other.bend))

    def __neg__(self) -> "Jet":
        return self.chain(-self.value, -1.0, 0.0) if self.slope else Jet(-self.value, {}, {})

    def __mul__(self, other) -> "Jet":
        other = jet(other)
        slope = _sum(_scaled(self.slope, other.value), _scaled(other.slope, self.value))
        bend = _sum(_scaled(self.bend, other.value), _scaled(other.bend, self.value))
        for i, d in self.slope.items():
            for j, e in other.slope.items():
                key = (i, j) if i <= j else (j, i)
                bend[key] = bend.get(key, 0.0) + d * e * (2.0 if i == j else 1.0)
        return Jet(self.value * other.value, slope, bend)

    def __pow__(self, other) -> "Jet":
        other = jet(other)
        if not other.slope:
            p, x = other.value, self.value
            return self.chain(x**p, p * x ** (p - 1), p * (p - 1) * x ** (p - 2))
        return exp(ln(self) * other)

    def __sub__(self, other) -> "Jet":
        return self + (-jet(other))

    def __truediv__(self, other) -> "Jet":
        return self * (jet(other) ** -1.0)


def jet(value) -> Jet:
    return value if isinstance(value, Jet) else Jet(np.asarray(value, float), {}, {})


def variable(value: np.ndarray, index: int) -> Jet:
    return Jet(value, {index: np.ones_like(value)}, {})


def ln(x):
    return x.chain(np.log(x.value), 1 / x.value, -1 / x.value**2) if isinstance(x, Jet) else np.log(x)


def exp(x):
    if not isinstance(x, Jet):
        return np.exp(x)
    value = np.exp(x.value)
    return x.chain(value, value, value)


def sqrt(x):
    return x**0.5


def _scaled(terms: dict, factor) -> dict:
    return {key: d * factor for key, d in terms.items()}


def _sum(one: dict, other: dict) -> dict:
    both = {key: d + other[key] for key, d in one.items() if key in other}
    return {**one, **other, **both}


@cache
def parse(text: str) -> ast.expr:
    """The checked syntax tree. Errors: `ValueError` naming what is not allowed."""
    try:
        tree = ast.parse(text.replace("^", "**").strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"The formula {text!r} cannot be read ({error.msg}): write it with {ALLOWED}.") from None
    for node in ast.walk(tree):
        call = isinstance(node, ast.Call) and getattr(node.func, "id", "") in _FUNCTIONS
        call = call and len(node.args) == 1 and not node.keywords
        number = isinstance(node, ast.Constant) and isinstance(node.value, int | float)
        plain = isinstance(node, ast.BinOp | ast.UnaryOp | ast.Name | ast.operator | ast.unaryop | ast.expr_context)
        if not (call or number or plain) or isinstance(node, ast.Not | ast.Invert):
            raise ValueError(f"The formula {text!r} uses {ast.unparse(node)!r}, which is not allowed: write it with {ALLOWED}.")
    return tree


def names(text: str) -> tuple[str, ...]:
    """Names in the order of appearance, functions left out."""
    found = [node for node in ast.walk(parse(text)) if isinstance(node, ast.Name) and node.id not in _FUNCTIONS]
    return tuple(dict.fromkeys(node.id for node in sorted(found, key=lambda node: node.col_offset)))


def evaluate(text: str, values: dict):
    """The formula at `values` (name -> number, array or jet)."""
    return _walk(parse(text), values)


def _walk(node: ast.expr, values: dict):
    if isinstance(node, ast.Constant):
        return float(node.value)
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.UnaryOp):
        inner = _walk(node.operand, values)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.Call):
        return {"ln": ln, "exp": exp, "sqrt": sqrt}[node.func.id](_walk(node.args[0], values))
    left, right = _walk(node.left, values), _walk(node.right, values)
    if isinstance(right, Jet) and not isinstance(left, Jet):
        left = jet(left)
    return _BINARY[type(node.op)](left, right)
