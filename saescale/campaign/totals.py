"""What is left of a plan in sums: harvests, jobs by what they ask for, and on a cluster GPU-hours by budget against the cap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saescale.campaign import price, submissions
from saescale.campaign.groups import Group, groups
from saescale.campaign.harvest import harvests
from saescale.campaign.plan import Plan, PlannedRun
from saescale.campaign.queue import Queue
from saescale.campaign.spending import spending
from saescale.records.store import Store


@dataclass(frozen=True)
class Totals:
    """`harvest_s`: seconds of each harvest job. On a cluster: `groups` of jobs; `budgets`: target FLOPs (None: horizons given in
    tokens) -> (runs, GPU-hours); the GPU-hours of harvests, of all, spent so far, and the sweep's cap."""

    harvest_s: tuple[float, ...]
    groups: tuple[Group, ...]
    budgets: dict[float | None, tuple[int, float]]
    harvest_gpu_hours: float
    gpu_hours: float
    spent_gpu_hours: float
    cap_gpu_hours: float | None

    @property
    def passes_cap(self) -> bool:
        return self.cap_gpu_hours is not None and self.gpu_hours + self.spent_gpu_hours > self.cap_gpu_hours


def totals(plan: Plan, todo: Sequence[PlannedRun], store: Store) -> Totals:
    """Of the runs of `todo`. The scheduler is not asked: what is in its queue counts as to do."""
    cap, on_slurm = plan.sweep.caps.get("gpu_hours"), plan.cluster.kind == "slurm"
    wanted = harvests(todo, store, plan.cluster.workers * (1 if on_slurm else plan.cluster.ranks))
    seconds = tuple(h.seconds for h in wanted)
    if not on_slurm:
        return Totals(seconds, (), {}, 0.0, 0.0, 0.0, cap)
    assert plan.cluster.job is not None
    found = tuple(groups(todo, plan))
    budgets = by_budget(found)
    harvest = sum(seconds) / 3600 * plan.cluster.job.of_one_process().n_gpus
    spent = spending(plan.sweep.folder_name, store, submissions.read(store), Queue({})).spent
    return Totals(seconds, found, budgets, harvest, harvest + sum(g.gpu_hours for g in found), spent, cap)


def by_budget(found: Sequence[Group]) -> dict[float | None, tuple[int, float]]:
    """The GPU-hours of each job, dealt over its runs by what each would take alone."""
    sums: dict[float | None, tuple[int, float]] = {}
    for group in found:
        for fleet, seconds in zip(group.fleets, group.seconds, strict=True):
            alone = [price.seconds_alone(r) for r in fleet]
            for run, own in zip(fleet, alone, strict=True):
                n, hours = sums.get(run.target_flops, (0, 0.0))
                sums[run.target_flops] = n + 1, hours + seconds / 3600 * group.request.n_gpus * own / sum(alone)
    return dict(sorted(sums.items(), key=lambda item: item[0] or 0.0))
