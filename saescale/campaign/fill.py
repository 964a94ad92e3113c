"""`saescale harvest`: fill the activation caches of a sweep and train nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from saescale.campaign import local
from saescale.campaign.gather import make_ready
from saescale.campaign.harvest import Caches, describe, harvest_jobs, harvests, lacking, refuse_full_disk, refuse_too_large
from saescale.campaign.launch import run_stage
from saescale.campaign.plan import Plan
from saescale.campaign.price import is_cached
from saescale.records.store import Store


@dataclass(frozen=True)
class Filled:
    """What a harvest was for, what is missing after it, and what went wrong."""

    before: Sequence[Caches]
    after: Sequence[Caches]
    messages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    handed_over: bool = False

    @property
    def exit_code(self) -> int:
        if self.messages:
            return 3
        return 4 if self.handed_over else 0

    @property
    def is_full(self) -> bool:
        return not any(h.shards for h in self.after)


def fill(plan: Plan, store: Store, progress: local.Progress, max_disk_gb: float | None) -> Filled:
    """Harvest what is missing, here or on the cluster. Raises ValueError before anything is started when it cannot be done."""
    runs = [r for r in plan.runs if is_cached(r)]
    if not runs:
        raise ValueError(f"there is nothing to harvest: the activations of {plan.sweep.folder_name} are not kept on disk. Use "
                         "activations=cache.")
    store.require_writable()
    refuse_too_large(lacking(runs, store), plan)
    notes = make_ready(runs, store, progress)
    before = lacking(runs, store)
    refuse_too_large(before, plan)  # of a family nobody knows, only the weights' files tell the size
    if max_disk_gb is None:
        refuse_full_disk(runs, store)
    processes = plan.cluster.workers * plan.cluster.ranks
    notes = [*notes, *(describe(h, processes) for h in before if h.shards)]
    if plan.cluster.kind == "slurm":
        return _hand_over(plan, store, before, notes, max_disk_gb)
    jobs = harvest_jobs(harvests(runs, store, processes), store, max_disk_gb)
    messages = run_stage(plan, store, jobs, "harvest", progress)
    return Filled(before, lacking(runs, store), tuple(messages), tuple(notes))


def _hand_over(plan: Plan, store: Store, before: Sequence[Caches], notes: Sequence[str], max_disk_gb: float | None) -> Filled:
    """One array of harvest jobs; they divide the shards, and claim each before they make it."""
    from saescale.campaign import cluster
    from saescale.campaign.groups import harvest_group

    group = harvest_group([r for r in plan.runs if is_cached(r)], plan, store)
    if group is None:
        return Filled(before, before, (), tuple(notes))
    with cluster.launching(plan, store) as launcher:
        group.jobs = harvest_jobs(group.harvests, store, max_disk_gb, request=dataclasses.asdict(group.request))
        launcher.hand_over(group)
    if launcher.handed:
        notes = [*notes, f"{launcher.handed} harvest jobs submitted in {len(launcher.numbers)} arrays: "
                         f"{', '.join(launcher.numbers)}."]
    return Filled(before, before, tuple(launcher.messages), tuple(notes), bool(launcher.handed))
