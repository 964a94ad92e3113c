"""A fleet: trunks and their branches stepping side by side over one activation stream.

Each member is stepped on its own, over a block of batches at a time (its weights stay in the processor's cache), so run i
in a fleet is run i alone, bit for bit, and one member's failure touches no other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from saescale.sae.device import Stopwatch
from saescale.sae.graph import Recorded
from saescale.sae.ranks import ALONE, Ranks
from saescale.sae.shards import Part
from saescale.sae.step import Trainable
from saescale.training.checkpoint import TRUNK, Checkpoint
from saescale.training.schedule import Schedule

BLOCK_TOKENS = 16384


@dataclass
class Member:
    """A trunk or a branch at `step`: it trains until `end`."""

    trainable: Trainable
    schedule: Schedule
    step: int
    end: int
    is_trunk: bool
    seconds: float = 0.0  # spent in training steps, the trunk's share included; for the record, never for a decision
    watch: Stopwatch = field(init=False)
    recorded: Recorded | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.watch = Stopwatch(self.trainable.device)
        if is_recorded(self.trainable):
            self.recorded = Recorded([self.trainable], self.schedule.batch_tokens)

    def advance(self, block: Tensor, first_step: int, until: int) -> None:
        """Train on the steps from self.step up to min(until, end); `block` holds the batches from step first_step on."""
        lr = self.schedule.trunk_lr if self.is_trunk else self.schedule.branch_lr
        size = self.schedule.batch_tokens
        self.watch.start()
        while self.step < min(until, self.end):
            row = (self.step - first_step) * size
            x, rates = block[row:row + size], (lr(self.step), self.schedule.sparsity_scale(self.step))
            if self.recorded is None:
                self.trainable.step(x, *rates)
            else:
                self.recorded.step(x, [rates])
            self.step += 1
        self.watch.stop()

    def state(self) -> Mapping[str, Tensor | Part]:
        """What this process writes of its training state: all of it, or of a sharded one its part."""
        return self.trainable.state_dict() if self.trainable.ranks.size == 1 else self.trainable.to_write()

    @property
    def made_by(self) -> tuple[str, str]:
        """The kernels and the kind of device that this member's bits depend on."""
        return self.trainable.backend, self.trainable.device.type

    def block_stats(self) -> dict[str, float]:
        """Averages over the block that ends here. A trunk that stops inside a block keeps them, for who goes on from there."""
        kept = self.trainable.statistics.clone()
        stats = self.trainable.read_stats()
        self.seconds += self.watch.taken()
        if self.is_trunk and self.step % block_steps(self.schedule.batch_tokens):
            self.trainable.statistics.copy_(kept)
        return stats


def is_recorded(trainable: Trainable) -> bool:
    """Whether its steps are replayed as a CUDA graph. Not with the torch kernels: a recording keeps what a step needs for a
    while, which with them is several times its pre-activations, for every live member."""
    return trainable.device.type == "cuda" and trainable.backend == "triton" and trainable.ranks.size == 1


@dataclass
class Trunk:
    """One trunk and the runs that still need it. `live` holds the trunk itself (while it is needed) and open branches.

    `ranks` train it together: this process alone, or all of the job. What it leaves on disk is written by the first of them.
    """

    trunk_id: str
    science: Mapping[str, Any]
    runs: dict[str, Schedule]
    ranks: Ranks = ALONE
    live: dict[str, Member] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)

    def start(self, trainable: Trainable) -> None:
        self.live = {TRUNK: self._member(TRUNK, trainable, 0)}
        self._fork(self.live[TRUNK])

    def resume(self, checkpoint: Checkpoint, fresh: Any) -> None:
        """`fresh()` makes a Trainable whose state is then replaced. Branches no longer wanted are left behind."""
        self.live = {}
        for name, step in checkpoint.steps.items():
            if name == TRUNK or name in self.runs:
                trainable = fresh()
                trainable.load_whole(checkpoint.states[name])
                self.live[name] = self._member(name, trainable, step, checkpoint.seconds.get(name, 0.0))
        if TRUNK in self.live:
            self._fork(self.live[TRUNK])
        self._retire()

    def _member(self, name: str, trainable: Trainable, step: int, seconds: float = 0.0) -> Member:
        if name == TRUNK:
            longest = max(self.runs.values(), key=lambda s: s.fork_step)
            return Member(trainable, longest, step, max(longest.fork_step, step), is_trunk=True, seconds=seconds)
        return Member(trainable, self.runs[name], step, self.runs[name].steps, is_trunk=False, seconds=seconds)

    @property
    def position(self) -> int:
        """First step any live member still has to make."""
        return min(m.step for m in self.live.values())

    def checkpoint(self) -> Checkpoint:
        step = max(m.step for m in self.live.values())
        return Checkpoint(step, {k: m.step for k, m in self.live.items()},
                          {k: m.state() for k, m in self.live.items()},
                          {k: m.seconds for k, m in self.live.items()},
                          *next(iter(self.live.values())).made_by)

    def advance(self, block: Tensor, first_step: int, until: int) -> None:
        """Train every live member up to step `until`; branches fork from the trunk on the way."""
        trunk = self.live.get(TRUNK)
        if trunk is not None:
            for fork in sorted({s.fork_step for s in self.runs.values() if trunk.step < s.fork_step <= until} | {until}):
                trunk.advance(block, first_step, fork)
                self._fork(trunk)
        for member in self.live.values():
            if not member.is_trunk:
                member.advance(block, first_step, until)
        self._retire()

    def _fork(self, trunk: Member) -> None:
        """Branches that leave at the trunk's present step."""
        for run_id, schedule in self.runs.items():
            if schedule.fork_step == trunk.step and run_id not in self.live:
                self.live[run_id] = self._member(run_id, trunk.trainable.clone(), trunk.step, trunk.seconds)
                self.live[run_id].watch = trunk.watch.copy()  # the trunk's share of this block

    def _retire(self) -> None:
        """Move branches at their end to `finished`. The trunk stays until its end has been checkpointed."""
        self.finished += [k for k, m in self.live.items() if not m.is_trunk and m.step >= m.end and k not in self.finished]

    @property
    def trunk_ended(self) -> bool:
        return TRUNK in self.live and self.live[TRUNK].step >= self.live[TRUNK].end

    def drop(self, name: str) -> None:
        self.live.pop(name, None)
        self.runs.pop(name, None)
        if name in self.finished:
            self.finished.remove(name)


def block_steps(batch_tokens: int) -> int:
    """Steps per block: a fixed number of tokens, so that log points and checkpoints fall on the same steps for all runs."""
    return max(1, BLOCK_TOKENS // batch_tokens)


def block_start(step: int, batch_tokens: int) -> int:
    """First step of the block that ends at or after `step` (itself 1 or more)."""
    return (step - 1) // block_steps(batch_tokens) * block_steps(batch_tokens)


def not_finite(stats: Mapping[str, float]) -> str | None:
    """Which statistic is not a finite number, or None."""
    return next((k for k, v in stats.items() if v is not None and not math.isfinite(v)), None)
