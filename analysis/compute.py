"""What a run of N and D costs: C = factor * N * D (+ overhead * D), by a rule that every result names.

Chinchilla's rule is 6*N*D; a sparse autoencoder's 12*d_in*N*D, N latents and D tokens (saescale.flops.flops_dense).
"""

import math
import re
from dataclasses import dataclass

import numpy as np

_ALLOWED = "numbers and names of columns multiplied with *, N and D once each, as in 6*N*D or 12*d_in*N*D"


@dataclass(frozen=True)
class Cost:
    """C = factor N D + overhead D, in FLOPs; `overhead` is what a token costs whatever N is (a language model's forward)."""

    factor: float = 6.0
    rule: str = "6*N*D"
    overhead: float = 0.0

    def flops(self, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return (self.factor * np.asarray(n, float) + self.overhead) * np.asarray(d, float)

    def tokens(self, flops: np.ndarray, n: np.ndarray) -> np.ndarray:
        """D on the iso-cost curve of `flops`."""
        return np.asarray(flops, float) / (self.factor * np.asarray(n, float) + self.overhead)

    @property
    def words(self) -> str:
        return f"C = {self.rule}" + (f" + {self.overhead:g}*D" if self.overhead else "")


def cost(rule: str, columns: dict[str, float] | None = None) -> Cost:
    """The rule as typed: `6ND`, `6*N*D`, `12*128*N*D`, or with the name of a column that is the same in every row.

    Errors: `ValueError` for anything but a product with N and D once each, or a name without a value.
    """
    parts = re.sub(r"^([\d.eE+]+)ND$", r"\1*N*D", rule.strip()).replace(" ", "").split("*")
    factor, values = 1.0, columns or {}
    if sorted(part for part in parts if part in ("N", "D")) != ["D", "N"]:
        raise ValueError(f"The counting rule {rule!r} cannot be read: give {_ALLOWED}.")
    for part in parts:
        if part in ("N", "D"):
            continue
        try:
            factor *= float(part)
        except ValueError:
            if part not in values:
                known = ", ".join(values) or "none"
                raise ValueError(
                    f"The counting rule {rule!r} names {part!r}, which is neither a number nor a column with one value in"
                    f" all rows (those are: {known}): give {_ALLOWED}."
                ) from None
            factor *= values[part]
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"The counting rule {rule!r} gives a factor of {factor}: it must be above 0.")
    return Cost(factor, "*".join(parts))
