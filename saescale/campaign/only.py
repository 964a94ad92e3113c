"""Which runs are meant: `n_latents <= 8192 and kind == topk`, a condition (saescale/conditions.py is its language) on facts of a
run; words need no quotes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from saescale.campaign.plan import PlannedRun
from saescale.conditions import Name, Operand, parse
from saescale.config import KINDS

LONGEST = 500  # characters; far below where a parser runs out of stack
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}
FIELDS: dict[str, Callable[[PlannedRun], Any]] = {
    "n_latents": lambda r: r.science["sae"]["n_latents"], "k": lambda r: r.science["sae"]["k"],
    "sparsity_coeff": lambda r: r.science["sae"]["sparsity_coeff"], "kind": lambda r: r.science["sae"]["kind"],
    "n_tokens": lambda r: r.science["train"]["n_tokens"], "steps": lambda r: r.steps,
    "lr": lambda r: r.science["train"]["lr"], "seed": lambda r: r.science["train"]["seed"],
    "batch_tokens": lambda r: r.science["train"]["batch_tokens"], "d_in": lambda r: r.science["lm"]["d_in"],
    "C": lambda r: r.flops_dense if r.target_flops is None else r.target_flops, "flops": lambda r: r.flops_dense}


class Only:
    """A parsed condition on runs. Raises ValueError for what the language has not, and for names that runs do not have."""

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise ValueError(f"the condition of {len(text)} characters is too long: {LONGEST} are allowed.")
        self.condition = parse(text)
        for operand in self.condition.operands():
            word = operand.text if isinstance(operand, Name) else operand
            if isinstance(word, str) and word not in KINDS and not (isinstance(operand, Name) and word in FIELDS):
                raise ValueError(f"the condition {text!r} names {word!r}, which runs do not have. "
                                 f"Known: {', '.join(sorted(FIELDS))}.")

    def __call__(self, run: PlannedRun) -> bool:
        def value(operand: Operand) -> Any:
            if isinstance(operand, Name):
                return FIELDS[operand.text](run) if operand.text in FIELDS else operand.text
            return operand

        return bool(self.condition.holds(lambda sign, left, right: self._compare(sign, value(left), value(right))))

    def _compare(self, sign: str, a: Any, b: Any) -> bool:
        """A value a run lacks (k of a relu_l1 run, say) equals nothing and is neither less nor more."""
        if a is None or b is None:
            return sign == "!=" and a is not b
        if isinstance(a, str) != isinstance(b, str):
            raise ValueError(f"the condition {self.condition.text!r} compares a word with a number.")
        return COMPARISONS[sign](a, b)
