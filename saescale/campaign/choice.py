"""Which runs of a plan a launch, a cancel or a retry means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saescale.campaign.only import Only
from saescale.campaign.plan import PlannedRun
from saescale.campaign.status import RunState

LAUNCHED = ("new", "stopped")


@dataclass(frozen=True)
class Choice:
    """`only`: an expression; `limit`: at most so many; `states`: those that are meant; `max_gpu_hours`: the gate of a launch."""

    only: Only | None = None
    limit: int | None = None
    states: tuple[str, ...] = LAUNCHED
    max_gpu_hours: float | None = None
    runs: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit {self.limit} is out of range: it must be at least 1.")
        if self.max_gpu_hours is not None and not self.max_gpu_hours >= 0:
            raise ValueError(f"--max-gpu-hours {self.max_gpu_hours} is out of range: it must be 0 or more.")

    def of(self, runs: Sequence[PlannedRun], found: Mapping[str, RunState]) -> list[PlannedRun]:
        """The runs meant, in the plan's order."""
        return [r for r in runs if found[r.run_id].state in self.states and (self.only is None or self.only(r))
                and (self.runs is None or r.run_id in self.runs)][:self.limit]
