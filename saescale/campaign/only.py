"""Which runs are meant: `n_latents <= 8192 and C == 1e15`. Names, numbers, comparisons, and / or / not; nothing is evaluated
by Python itself."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from saescale.campaign.plan import PlannedRun
from saescale.config import KINDS

LONGEST = 500  # characters; far below where a parser runs out of stack
COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne}
FIELDS: dict[str, Callable[[PlannedRun], Any]] = {
    "n_latents": lambda r: r.science["sae"]["n_latents"], "k": lambda r: r.science["sae"]["k"],
    "sparsity_coeff": lambda r: r.science["sae"]["sparsity_coeff"], "kind": lambda r: r.science["sae"]["kind"],
    "n_tokens": lambda r: r.science["train"]["n_tokens"], "steps": lambda r: r.steps,
    "lr": lambda r: r.science["train"]["lr"], "seed": lambda r: r.science["train"]["seed"],
    "batch_tokens": lambda r: r.science["train"]["batch_tokens"], "d_in": lambda r: r.science["lm"]["d_in"],
    "C": lambda r: r.flops_dense if r.target_flops is None else r.target_flops, "flops": lambda r: r.flops_dense}
GRAMMAR = "Use names, numbers, < <= == != >= >, and, or, not, such as: n_latents <= 8192 and C == 1e15"


class Only:
    """A parsed expression. `extra` gives names beyond FIELDS (such as state) with the words they may be compared with.

    Raises ValueError for anything that is not in the grammar.
    """

    def __init__(self, text: str, extra: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.text = text
        self.words = {*KINDS, *(w for words in (extra or {}).values() for w in words)}
        self.names = {*FIELDS, *(extra or {})}
        if len(text) > LONGEST:
            raise ValueError(f"the expression of {len(text)} characters is too long: {LONGEST} are allowed.")
        try:
            self.tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise ValueError(f"the expression {text!r} cannot be read. {GRAMMAR}.") from None
        self._check(self.tree)

    def _check(self, node: ast.AST) -> None:
        """Every node is one of the grammar's, every name a known one: checked before any run is asked."""
        if isinstance(node, ast.BoolOp):
            parts: list[ast.AST] = list(node.values)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            parts = [node.operand]
        elif isinstance(node, ast.Compare) and all(type(op) in COMPARISONS for op in node.ops):
            for value in (node.left, *node.comparators):
                self._check_value(value)
            return
        else:
            raise ValueError(f"the expression {self.text!r} has {ast.unparse(node)!r}, which is no comparison. {GRAMMAR}.")
        for part in parts:
            self._check(part)

    def _check_value(self, node: ast.AST) -> None:
        if isinstance(node, ast.Name):
            if node.id not in self.names | self.words:
                raise ValueError(f"the expression {self.text!r} names {node.id!r}, which runs do not have. "
                                 f"Known: {', '.join(sorted(self.names))}.")
        elif not is_number(node):
            raise ValueError(f"the expression {self.text!r} compares with {ast.unparse(node)!r}, which is neither a name nor a "
                             f"number. {GRAMMAR}.")

    def __call__(self, run: PlannedRun, **extra: Any) -> bool:
        return self._holds(self.tree, run, extra)

    def _holds(self, node: Any, run: PlannedRun, extra: Mapping[str, Any]) -> bool:
        if isinstance(node, ast.BoolOp):
            each = (self._holds(v, run, extra) for v in node.values)
            return all(each) if isinstance(node.op, ast.And) else any(each)
        if isinstance(node, ast.UnaryOp):
            return not self._holds(node.operand, run, extra)
        values = [self._value(v, run, extra) for v in (node.left, *node.comparators)]
        return all(self._compare(op, a, b) for op, a, b in zip(node.ops, values, values[1:], strict=False))

    def _compare(self, op: ast.cmpop, a: Any, b: Any) -> bool:
        """A value a run lacks (k of a relu_l1 run, say) equals nothing and is neither less nor more."""
        if a is None or b is None:
            return isinstance(op, ast.NotEq) and a is not b
        if isinstance(a, str) != isinstance(b, str):
            raise ValueError(f"the expression {self.text!r} compares a word with a number.")
        return COMPARISONS[type(op)](a, b)

    def _value(self, node: Any, run: PlannedRun, extra: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.Name):
            if node.id in extra:
                return extra[node.id]
            return FIELDS[node.id](run) if node.id in FIELDS else node.id
        return -node.operand.value if isinstance(node, ast.UnaryOp) else node.value


def is_number(node: ast.AST) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)
