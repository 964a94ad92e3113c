"""Learning rate and sparsity ramps by absolute step, and where a branch leaves its trunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saescale import science


@dataclass(frozen=True)
class Schedule:
    """One run's schedule. Warm-ups are absolute tokens, so runs that differ only in horizon agree until the fork."""

    steps: int
    batch_tokens: int
    lr: float
    lr_warmup_tokens: int
    lr_decay_fraction: float
    sparsity_warmup_tokens: int

    @classmethod
    def of(cls, train: Mapping[str, Any]) -> Schedule:
        return cls(train["n_tokens"] // train["batch_tokens"], train["batch_tokens"], train["lr"],
                   train["lr_warmup_tokens"], train["lr_decay_fraction"], train["sparsity_warmup_tokens"])

    @property
    def fork_step(self) -> int:
        """First step of the decay: before it, the run is its trunk."""
        return science.fork_step(self.steps, self.lr_decay_fraction)

    def trunk_lr(self, step: int) -> float:
        """Constant after a linear warm-up."""
        if self.lr_warmup_tokens == 0:
            return self.lr
        return self.lr * min(1.0, (step + 1) * self.batch_tokens / self.lr_warmup_tokens)

    def branch_lr(self, step: int) -> float:
        """The trunk's, times a linear decay from 1 at the fork towards 0 after the last step."""
        if step < self.fork_step:
            return self.trunk_lr(step)
        return self.trunk_lr(step) * (self.steps - step) / (self.steps - self.fork_step)

    def sparsity_scale(self, step: int) -> float:
        """Share of the sparsity coefficient in force: linear from 0 over sparsity_warmup_tokens."""
        if self.sparsity_warmup_tokens == 0:
            return 1.0
        return min(1.0, (step + 1) * self.batch_tokens / self.sparsity_warmup_tokens)
