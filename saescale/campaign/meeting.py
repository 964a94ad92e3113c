"""How the tasks of one job find each other: a scheduler starts one per rank, on all nodes, and tells each only its own number.

The first opens the attempt and says in its start.json where to meet; the others find it there, in the store they share.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saescale.campaign import local
from saescale.campaign.attempts import attempts, exit_name

MEET_S = 300.0  # for the first task to have opened the attempt: a node may be slow to start


class NotMet(Exception):
    """The first task of the job did not open an attempt, or this one was told to stop before it did."""


@dataclass(frozen=True)
class Task:
    """One task of a step: its `rank` of `size`, its number on its node, and which start of which job it belongs to."""

    rank: int
    size: int
    local_rank: int
    n_nodes: int
    start: str

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Task:
        """As Slurm names it; outside of it, the only one."""
        def number(name: str, otherwise: int) -> int:
            return int(variables.get(f"SLURM_{name}", otherwise))

        return cls(number("PROCID", 0), number("STEP_NUM_TASKS", number("NTASKS", 1)), number("LOCALID", 0),
                   number("STEP_NUM_NODES", number("NNODES", 1)),
                   f"{variables.get('SLURM_JOB_ID', os.getpid())}.{variables.get('SLURM_RESTART_COUNT', '0')}")


class RankWorker(local.Worker):
    """The one process of a job that this task watches, where there is a task per rank."""

    def __init__(self, job: Path, content: dict[str, Any], task: Task, slurm: Mapping[str, Any],
                 asked: Callable[[], str | None]) -> None:
        attempt, where = open_for_all(job, content, task, slurm) if task.rank == 0 else find(job, task, asked)
        self.exit_file = exit_name(task.rank)
        self._start(job, attempt, content, {task.rank: {
            **where, "WORLD_SIZE": str(task.size), "RANK": str(task.rank), "LOCAL_RANK": str(task.local_rank)}})


def open_for_all(job: Path, content: Mapping[str, Any], task: Task, slurm: Mapping[str, Any]) -> tuple[Path, dict[str, str]]:
    """A new attempt, and where its ranks meet: on this node, where the first of them runs."""
    here = local.joint_environment(task.size)
    if task.n_nodes > 1:  # the node the step was started from is the first; its address needs no name service
        here = {"MASTER_PORT": here["MASTER_PORT"], "MASTER_ADDR": os.environ.get("SLURM_LAUNCH_NODE_IPADDR", platform.node())}
    here.pop("WORLD_SIZE", None)
    return local.open_attempt(job, content, slurm=slurm, n_tasks=task.size, start=task.start, meet=here), here


def find(job: Path, task: Task, asked: Callable[[], str | None]) -> tuple[Path, dict[str, str]]:
    """The attempt the first task opened for this start of the job. Raises NotMet."""
    deadline = time.monotonic() + MEET_S
    while time.monotonic() < deadline and not asked():
        for attempt, start in reversed(attempts(job)):
            if start.get("start") == task.start:
                return attempt, start["meet"]
        time.sleep(0.2)
    raise NotMet(f"rank {task.rank} of {task.size}: the first task opened no attempt of {job.name} (start {task.start}).")
