"""Jobs of a launch by what they ask for: a resource group is an array, or several where the controller has a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saescale.campaign import placement
from saescale.campaign.fleets import fleets
from saescale.campaign.harvest import Harvest, harvests
from saescale.campaign.plan import Plan, PlannedRun
from saescale.campaign.resources import requests
from saescale.records.store import Store
from saescale.slurm_site import Request


@dataclass
class Group:
    """The jobs of one stage that ask for the same, longest first, with the seconds each is estimated to take."""

    stage: str
    request: Request
    fleets: list[list[PlannedRun]] = field(default_factory=list)
    jobs: list[Path] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    harvests: list[Harvest] = field(default_factory=list)

    @property
    def gpu_hours(self) -> float:
        return sum(self.seconds) / 3600 * self.request.n_gpus

    @property
    def n_jobs(self) -> int:
        return len(self.fleets) or len(self.harvests) or len(self.jobs)


def harvest_group(todo: Sequence[PlannedRun], plan: Plan, store: Store) -> Group | None:
    """The harvests that training has to wait for, None where it reads what is there; nothing is written."""
    assert plan.cluster.job is not None
    wanted = sorted(harvests(todo, store, plan.cluster.workers), key=lambda h: -h.seconds)
    if not wanted:
        return None
    return Group("harvest", plan.cluster.job.of_one_process(), harvests=wanted, seconds=[h.seconds for h in wanted])


def groups(todo: Sequence[PlannedRun], plan: Plan) -> list[Group]:
    """Training jobs by what they ask for; nothing is written."""
    request = requests(plan.cluster)
    found: dict[Request, Group] = {}
    packed = fleets(todo, plan.cluster)
    placement.refuse_too_large(packed, plan.cluster)
    taking = [(placement.place(fleet, plan.cluster).seconds, fleet) for fleet in packed]
    for seconds, fleet in sorted(taking, key=lambda t: -t[0]):
        group = found.setdefault(request(fleet[0]), Group("train", request(fleet[0])))
        group.fleets.append(list(fleet))
        group.seconds.append(seconds)
    return list(found.values())


def chunks(jobs: Sequence[Any], at_most: int | None) -> list[Sequence[Any]]:
    """Arrays of a size the controller takes."""
    size = at_most or max(1, len(jobs))
    return [jobs[i:i + size] for i in range(0, len(jobs), size)]
