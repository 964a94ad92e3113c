"""Launch: what is left of a plan becomes jobs, and jobs become records. Idempotent: done work is never done again."""

from __future__ import annotations

import getpass
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saescale.campaign import local, placement
from saescale.campaign.choice import Choice
from saescale.campaign.fleets import fleets
from saescale.campaign.gather import make_ready
from saescale.campaign.harvest import (
    harvest_jobs,
    harvests,
    lacking,
    missing,
    refuse_full_disk,
    refuse_what_does_not_fit,
    shares_forwards,
)
from saescale.campaign.jobs import make_job
from saescale.campaign.plan import Plan, PlannedRun, save
from saescale.campaign.status import RunState, states
from saescale.config import ClusterConfig
from saescale.records import record
from saescale.records.lock import owner
from saescale.records.store import Store, append_line
from saescale.track.follow import Asked, following, require_wandb

ORPHAN_WAIT_S = 60.0
EVERYTHING = Choice()
NOTHING: Mapping[str, list[list]] = {}


@dataclass(frozen=True)
class Outcome:
    """What a launch started and how every run of the plan stands after it."""

    started: int
    states: Mapping[str, RunState]
    messages: tuple[str, ...] = ()
    handed_over: bool = False
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 all done, 3 some runs stopped or failed, 4 some still running elsewhere, or not begun since nobody asked for them."""
        found = {s.state for s in self.states.values()}
        if self.handed_over and not self.messages and found & {"running", "queued", "unknown"}:
            return 4  # a cluster works on; what is new waits for room in the queue
        if found & {"failed", "stopped", "damaged"} or self.messages and "new" in found:
            return 3
        return 4 if found & {"running", "queued", "unknown", "new"} else 0


def launch(plan: Plan, store: Store, progress: local.Progress, choice: Choice = EVERYTHING) -> Outcome:
    store.require_writable()
    asked = tracking(plan)
    await_orphans(plan.runs, store)
    before = states(plan.runs, store)
    refuse_damaged(before)
    todo = choice.of(plan.runs, before)
    if not todo:
        return Outcome(0, before)
    packed = fleets(todo, plan.cluster)
    refuse_what_does_not_fit(lacking(todo, store), packed, plan)
    notes = make_ready(todo, store, progress)
    refuse_full_disk(todo, store)
    save(plan, store)
    for r in todo:
        record.claim(store.run_dir(r.run_id), r.science, r.execution)
    own: dict[str, list[list]] = {}
    messages: list[str] = []
    if harvests_while_training(packed, plan.cluster) and not shares_forwards(todo, store):
        own = {run.execution["cache_key"]: shards for run, shards, _ in missing(todo, store)}
    else:
        wanted = harvests(todo, store, plan.cluster.workers * plan.cluster.ranks)
        messages = run_stage(plan, store, harvest_jobs(wanted, store), "harvest", progress)
    if not messages:
        with following(store, asked, notes):
            messages = run_stage(plan, store, training_jobs(packed, store, plan.cluster, own), "train", progress)
    return Outcome(len(todo), states(plan.runs, store), tuple(messages), notes=tuple(notes))


def tracking(plan: Plan, **more: Any) -> Asked | None:
    """What a mirror of this plan is asked, None when nothing is tracked. Raises ValueError when wandb is not installed."""
    track = plan.track
    if track.kind == "off":
        return None
    require_wandb()
    return Asked(plan.sweep.folder_name, track.kind, track.project, track.entity, **more)


def await_orphans(runs: Sequence[PlannedRun], store: Store) -> None:
    """Let the workers of a killed launcher reach the end of their block: what they train is not running, it is stopping."""
    deadline = time.monotonic() + ORPHAN_WAIT_S
    for path in {store.trunk_dir(r.trunk_id) / "lock" for r in runs}:
        while (holder := owner(path)) and holder.host == platform.node() and local.is_orphan(holder.pid):
            if time.monotonic() > deadline:
                return
            time.sleep(local.POLL_S)


def refuse_damaged(found: Mapping[str, RunState]) -> None:
    for s in found.values():
        if s.state == "damaged":
            raise ValueError(f"{s.reason} Nothing was started.")


def run_stage(plan: Plan, store: Store, jobs: Sequence[Path], stage: str, progress: local.Progress) -> list[str]:
    """Run the jobs of one stage; returns one sentence per job that did not end well."""
    if not jobs:
        return []
    log = store.sweep_dir(plan.sweep.folder_name) / "submissions.jsonl"
    append_line(log, {"time": time.time(), "user": getpass.getuser(), "stage": stage, "plan_hash": plan.plan_hash,
                      "cluster": plan.cluster.kind, "jobs": [j.name for j in jobs]})
    run = local.run_in_process if plan.cluster.kind == "inprocess" else local.run_pool
    try:
        at_once = plan.cluster.workers * (plan.cluster.ranks if stage == "harvest" else 1)
        return run(jobs, at_once, stage, progress)
    except KeyboardInterrupt:
        raise local.Stopped("interrupted. Nothing is lost: launch again to go on.") from None


def harvests_while_training(packed: Sequence[Sequence[PlannedRun]], cluster: ClusterConfig) -> bool:
    """Whether training workers fill the cache themselves before their first step, each the shards that no other has claimed.

    Their start, imports and language model included, is then paid once. It takes as many of them as would harvest.
    """
    return cluster.kind == "local" and cluster.ranks == 1 and len(packed) >= cluster.workers


def training_jobs(packed: Sequence[Sequence[PlannedRun]], store: Store, cluster: ClusterConfig,
                  lacking: Mapping[str, list[list]] = NOTHING, **aside: Any) -> list[Path]:
    """One job per fleet. `lacking`: the shards, by cache, that training jobs are to harvest first."""
    jobs = []
    for fleet in packed:
        ranks, shards = placed(fleet, cluster), lacking.get(fleet[0].execution.get("cache_key"))
        own = {"rank_timeout_s": cluster.rank_timeout_s} if ranks else {}
        own |= {"shards": shards} if shards else {}
        jobs.append(make_job(store, {"stage": "train", "runs": [r.run_id for r in fleet], "execution": dict(fleet[0].execution),
                                     **ranks}, **aside, **own))
    return jobs


def placed(fleet: Sequence[PlannedRun], cluster: ClusterConfig) -> dict[str, Any]:
    """Which rank of its job trains which trunk, where the job has several."""
    found = placement.place(fleet, cluster)
    return {"n_ranks": len(found.rank_bytes), "homes": dict(found.homes)} if len(found.rank_bytes) > 1 else {}
