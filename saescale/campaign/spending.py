"""GPU-hours: what a sweep has spent, what it has in the queue, and the gate no launch passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from saescale.campaign.attempts import attempt_seconds, attempts
from saescale.campaign.plan import Plan
from saescale.campaign.queue import Queue
from saescale.campaign.submissions import Submission, flight
from saescale.records.store import Store


@dataclass(frozen=True)
class Spending:
    """GPU-hours by what became of them. `queued` is estimated, `spent` is measured, failed attempts included."""

    spent: float
    queued: float

    @property
    def total(self) -> float:
        return self.spent + self.queued


def spending(sweep: str, store: Store, all_submissions: Sequence[Submission], now: Queue) -> Spending:
    """What this sweep's jobs cost so far. A job that several launches handed over is counted once."""
    mine = [s for s in all_submissions if s.sweep == sweep]
    alive = flight(mine, now).jobs
    estimates: dict[str, float] = {}
    for s in mine:
        if s.over is None:
            estimates |= s.gpu_hours
    spent = sum(job_hours(store.job_dir(job)) for job in estimates)
    queued = sum(hours for job, hours in estimates.items() if job in alive or now.unknown)
    return Spending(spent, queued)


def job_hours(job: Path) -> float:
    """GPU-hours of all attempts of a job; an attempt whose end nobody saw lasted until its last sign of life."""
    return sum(attempt_seconds(attempt) * start.get("gpus", 0) / 3600 for attempt, start in attempts(job))


def refuse_over_budget(plan: Plan, cost: float, spent: Spending, max_gpu_hours: float | None) -> None:
    """Raises ValueError when spent + queued + this launch would pass the flag or the sweep's own cap, whichever is lower."""
    caps: Mapping[str, float | None] = {"--max-gpu-hours": max_gpu_hours,
                                        "caps.gpu_hours of the sweep": plan.sweep.caps.get("gpu_hours")}
    given = {k: v for k, v in caps.items() if v is not None}
    if not given:
        return
    name, cap = min(given.items(), key=lambda item: item[1])
    if spent.total + cost > cap:
        raise ValueError(f"this launch is estimated at {cost:.3g} GPU-hours; {spent.spent:.3g} are spent and {spent.queued:.3g} "
                         f"are in the queue, and {name} allows {cap:g} in all. Raise it, or launch less with --only or --limit. "
                         "Nothing was submitted.")
