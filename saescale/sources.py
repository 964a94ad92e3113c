"""Where activations come from, as a person says it (`conf/activations/`) and as the science block keeps it.

`cache` and `live` give the same batches, so a run has one id under both. `synthetic` is another experiment: what it draws
stands in the science block, and the language model's part of the block is null.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

SOURCES = ("cache", "live", "synthetic")
EXECUTION_SOURCES = ("cache", "live")  # how the same activations reach the training loop
SYNTHETIC_BATCH_TOKENS = 4096  # tokens of one synthetic forward batch; in the science block, for it decides the draws


@dataclass(frozen=True)
class ActivationsConfig:
    """`source`, and what only source=synthetic reads (conf/activations/synthetic.yaml explains each)."""

    source: str
    seed: int | None = None
    n_tokens: int | None = None
    n_features: int | None = None
    d_in: int | None = None
    zipf_exponent: float | None = None
    mean_l0: float | None = None
    max_rate: float | None = None
    magnitude_low: float | None = None
    magnitude_high: float | None = None
    hierarchy_roots: int | None = None
    hierarchy_branching: int | None = None
    manifold_fraction: float | None = None
    manifold_dim: int | None = None
    one_at_a_time: bool | None = None
    noise: float | None = None

    def __post_init__(self) -> None:
        given = {k: v for k, v in dataclasses.asdict(self).items() if k != "source"}
        if self.source not in SOURCES:
            raise ValueError(f"activations.source={self.source!r} is not known. Choose one of: {', '.join(SOURCES)}.")
        for key, value in given.items():
            if self.is_synthetic and value is None:
                raise ValueError(f"activations.{key} is missing: activations=synthetic needs it. "
                                 "conf/activations/synthetic.yaml has a value for each.")
            if not self.is_synthetic and value is not None:
                raise ValueError(f"activations.{key}={value} is of no use to activations={self.source}: "
                                 "only activations=synthetic reads it.")
        if self.is_synthetic:
            _check_ranges(given)

    @property
    def is_synthetic(self) -> bool:
        return self.source == "synthetic"

    def block(self) -> dict[str, Any]:
        """The `activations` part of a synthetic run's science block."""
        return vars(self) | {"n_tokens": synthetic_tokens(self), "batch_tokens": SYNTHETIC_BATCH_TOKENS}


def synthetic_tokens(a: ActivationsConfig) -> int:
    """Tokens of one epoch: n_tokens rounded up to whole forward batches."""
    return -(-(a.n_tokens or 0) // SYNTHETIC_BATCH_TOKENS) * SYNTHETIC_BATCH_TOKENS


def is_synthetic(science: Any) -> bool:
    return "activations" in science


def _check_ranges(given: dict[str, Any]) -> None:
    rules = {"at least 1": (("n_tokens", "n_features", "d_in", "hierarchy_branching"), lambda v: v >= 1),
             "2 or more": (("manifold_dim",), lambda v: v >= 2),
             "above 0": (("mean_l0", "magnitude_high"), lambda v: v > 0),
             "0 or more": (("seed", "zipf_exponent", "hierarchy_roots", "noise", "magnitude_low"), lambda v: v >= 0),
             "above 0 and below 1": (("max_rate",), lambda v: 0 < v < 1),
             "between 0 and 1": (("manifold_fraction",), lambda v: 0 <= v <= 1)}
    for what, (keys, ok) in rules.items():
        for key in keys:
            if not ok(given[key]):
                raise ValueError(f"activations.{key}={given[key]} is out of range: it must be {what}.")
    if given["magnitude_low"] > given["magnitude_high"]:
        raise ValueError(f"activations.magnitude_low={given['magnitude_low']} exceeds activations.magnitude_high="
                         f"{given['magnitude_high']}. Exchange them.")
    if given["mean_l0"] > given["max_rate"] * given["n_features"]:
        raise ValueError(f"activations.mean_l0={given['mean_l0']} cannot be reached: {given['n_features']} features that fire "
                         f"at most at activations.max_rate={given['max_rate']} give "
                         f"{given['max_rate'] * given['n_features']:g} per token. Lower mean_l0 or raise the others.")
    if given["manifold_fraction"] > 0 and given["d_in"] < given["manifold_dim"]:
        raise ValueError(f"activations.d_in={given['d_in']} is below activations.manifold_dim={given['manifold_dim']}: a "
                         "manifold lies in a space of that many dimensions. Raise d_in.")
    if given["one_at_a_time"] and (given["mean_l0"] != 1 or given["hierarchy_roots"]):
        raise ValueError("activations.one_at_a_time has exactly one feature at every token: set activations.mean_l0=1 and "
                         "activations.hierarchy_roots=0.")
