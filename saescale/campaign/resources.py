"""What each job asks of the scheduler: the request of its runs by the rules of the cluster, and its GPU-hours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from saescale.campaign.only import Only
from saescale.campaign.plan import PlannedRun
from saescale.config import ClusterConfig
from saescale.slurm_site import Request, SlurmConfig

NO_REQUEST = Request(0, None, 1, "1G", "1h", None)


def requests(cluster: ClusterConfig) -> Callable[[PlannedRun], Request]:
    """The request of a run: the first rule whose `when` holds over `cluster.job`.

    Raises ValueError for a rule that cannot be read.
    """
    if cluster.job is None:
        return lambda _: NO_REQUEST
    rules = [(Only(rule.when), _over(cluster.job, dataclasses.asdict(rule))) for rule in cluster.rules]
    default = cluster.job
    for request in (default, *(r for _, r in rules)):
        _leave_time(request, cluster.slurm)
    return lambda run: next((request for holds, request in rules if holds(run)), default)


def _leave_time(request: Request, site: SlurmConfig | None) -> None:
    """Slurm sends its warning up to a minute early: a limit that leaves less than that would stop jobs as they start."""
    if site is not None and request.minutes * 60 < site.signal_delay_s + 120:
        raise ValueError(f"cluster.job.time={request.time} leaves no time to train: a job is told to save "
                         f"{site.signal_delay_s} s before its limit. Raise it, or lower cluster.slurm.signal_delay_s.")


def _over(job: Request, rule: dict) -> Request:
    return dataclasses.replace(job, **{k: v for k, v in rule.items() if k != "when" and v is not None})


def request_of(fleet: Sequence[PlannedRun], cluster: ClusterConfig) -> Request:
    """A fleet's runs all have one request: fleets are packed so."""
    return requests(cluster)(fleet[0])
