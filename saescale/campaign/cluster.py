"""Launch on a cluster: what is left of a plan becomes arrays, one per resource group, and the launcher goes home.

    reconcile what earlier launches left open -> what is to do -> fleets -> the gate on GPU-hours -> claims, code snapshot
    -> harvest arrays -> training arrays that wait for them -> one job that collects and reports after all of them
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saescale.campaign import snapshot, submissions
from saescale.campaign.choice import Choice
from saescale.campaign.gather import make_ready
from saescale.campaign.groups import Group, chunks, groups, harvest_group
from saescale.campaign.harvest import harvest_jobs, lacking, refuse_full_disk, refuse_too_large
from saescale.campaign.jobs import make_job
from saescale.campaign.launch import Outcome, refuse_damaged, tracking, training_jobs
from saescale.campaign.plan import Plan, PlannedRun, save
from saescale.campaign.queue import Limits, Queue, limits, queue, refuse_unknown_partition, release
from saescale.campaign.spending import refuse_over_budget, spending
from saescale.campaign.status import RunState, states
from saescale.campaign.submissions import Submission
from saescale.records import record
from saescale.records.lock import Lock
from saescale.records.store import Store, read_json
from saescale.slurm_site import Request


@dataclass
class Launcher:
    """One launch: what it knows of the scheduler, and what it has handed over so far."""

    plan: Plan
    store: Store
    now: Queue
    limits: Limits
    code: dict[str, Any]
    lock: Lock
    handed: int = 0
    waiting: int = 0
    numbers: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def room(self, stage: str) -> int | None:
        """Jobs the queue still takes from this user; one place is kept for the report."""
        if self.limits.submit is None:
            return None
        return max(0, self.limits.submit - len(self.now.elements) - self.handed - (stage != "report"))

    def hand_over(self, group: Group, after: tuple[str, Sequence[str]] | None = None) -> list[str]:
        """Submit a group in chunks; returns the numbers of its arrays. Stops at the first refusal, with a message."""
        from saescale.campaign import slurm

        jobs = list(zip(group.jobs, group.seconds, strict=True))[:self.room(group.stage)]
        self.waiting += len(group.jobs) - len(jobs)
        numbers = []
        parts = chunks(jobs, self.limits.array)
        for part in parts:
            self.lock.beat()
            s = self._intent(group, part)
            folder = self.store.sweep_dir(s.sweep) / "slurm" / s.token
            array = slurm.Array(s.name, folder, group.request, self.code["folder"], after,
                                math.ceil(self.plan.cluster.workers / len(parts)))
            number = self._settle(s, lambda array=array, part=part: slurm.submit(array, self.plan.cluster, [j for j, _ in part]))
            if number is None:
                break
            numbers.append(number)
            self.handed += len(part)
        self.numbers += numbers
        return numbers

    def _intent(self, group: Group, part: Sequence[tuple[Path, float]]) -> Submission:
        sweep, token = self.plan.sweep.folder_name, uuid.uuid4().hex[:10]
        hours = {job.name: round(seconds / 3600 * group.request.n_gpus, 4) for job, seconds in part}
        s = Submission(sweep, token, f"saescale-{sweep}-{token}", group.stage, time.time(),
                       {job.name: runs_of(job) for job, _ in part}, dataclasses.asdict(group.request), hours)
        submissions.intend(self.store, s, plan_hash=self.plan.plan_hash, commit=self.code["commit"],
                           edited=self.code["edited"], code=self.code["folder"])
        return s

    def _settle(self, s: Submission, hand: Callable[[], str]) -> str | None:
        """Submit and write down what became of it. An sbatch that fails may have been accepted: the queue says."""
        from saescale.campaign import slurm

        try:
            number, how = hand(), "sbatch"
        except slurm.Refused as e:
            now = slurm.accepted_silently(s.name, str(e))
            if now.unknown is not None:
                self.messages.append(f"{e}. Whether {s.name} was accepted is not known ({now.unknown}): launch again when the "
                                     "scheduler answers.")
                return None
            number, how = submissions.look_up(s, now, self.store)
            if number is None:
                submissions.settle(self.store, s, None, str(e))
                self.messages.append(f"the scheduler refused {len(s.jobs)} {s.stage} jobs: {e}")
                return None
        submissions.settle(self.store, s, number, how=how)
        return number


def runs_of(job: Path) -> list[str]:
    return (read_json(job / "job.json") or {}).get("runs", [])


def launch(plan: Plan, store: Store, choice: Choice) -> Outcome:
    """Hand the missing runs over and return. Raises ValueError before anything was submitted."""
    from saescale.campaign import slurm

    slurm.check_folder(store.root)
    store.require_writable()
    tracking(plan)  # refuses before anything is submitted
    lock = Lock(store.root / "launch.lock")
    holder = lock.acquire()
    if holder is not None:
        raise ValueError(f"another launch is submitting from this store ({holder}): wait until it is done. "
                         "Nothing was submitted.")
    try:
        with lock.kept():  # fetching a model or tokenising a corpus takes its time
            return _launch(plan, store, choice, lock)
    finally:
        lock.release()


def _launch(plan: Plan, store: Store, choice: Choice, lock: Lock) -> Outcome:
    now = queue()
    if now.unknown is not None:
        raise ValueError(f"the scheduler does not answer: {now.unknown}. Nothing was submitted.")
    notes = [*submissions.reconcile(store, now), *release_held(store, now)]
    before = states(plan.runs, store, now)
    refuse_damaged(before)
    todo = choice.of(plan.runs, before)
    todo, waiting = without_busy_trunks(todo, plan, before)
    if waiting:
        notes.append(f"{waiting} runs wait for the end of their trunks, which are under way: launch again then.")
    notes += orphans(plan, store, now)
    if not todo:
        return Outcome(0, before, handed_over=True, notes=tuple(notes))
    refuse_too_large(lacking(todo, store), plan)
    notes += make_ready(todo, store)
    harvest, training = harvest_group(todo, plan, store), groups(todo, plan)
    refuse_full_disk(todo, store)
    everything = [*([harvest] if harvest else []), *training]
    refuse_unknown_partition(g.request.partition for g in everything)
    refuse_over_budget(plan, sum(g.gpu_hours for g in everything),
                       spending(plan.sweep.folder_name, store, submissions.read(store), now), choice.max_gpu_hours)
    save(plan, store)
    launcher = Launcher(plan, store, now, known_limits(plan), snapshot.take(store), lock)
    for r in todo:
        record.claim(store.run_dir(r.run_id), r.science, r.execution)
    hand_over(launcher, harvest, training)
    if launcher.waiting:
        notes.append(f"{launcher.waiting} jobs wait for room in the queue (limit {launcher.limits.submit}): launch again later.")
    if launcher.handed:
        notes.append(f"{launcher.handed} jobs submitted in {len(launcher.numbers)} arrays: {', '.join(launcher.numbers)}.")
    return Outcome(launcher.handed, states(plan.runs, store), tuple(launcher.messages), handed_over=True, notes=tuple(notes))


def known_limits(plan: Plan) -> Limits:
    """What the site's file says, else what the controller and the accounting say."""
    site = plan.cluster.slurm
    assert site is not None
    asked = limits(site.account)
    return Limits(site.max_array_size or asked.array, site.max_submit or asked.submit)


def hand_over(launcher: Launcher, harvest: Group | None, training: Sequence[Group]) -> None:
    """Harvests, then training that waits for them, then the report after everything."""
    plan, store, first, asked = launcher.plan, launcher.store, list[str](), tracking(launcher.plan)
    if harvest is not None:
        harvest.jobs = harvest_jobs(harvest.harvests, store, request=dataclasses.asdict(harvest.request))
        first = launcher.hand_over(harvest)
        if launcher.messages or launcher.waiting:
            return  # no training on half a harvest
    for group in training:
        aside = {"request": dataclasses.asdict(group.request)} | ({"track": dataclasses.asdict(asked)} if asked else {})
        group.jobs = training_jobs(group.fleets, store, plan.cluster, **aside)
        launcher.hand_over(group, ("afterok", first))
        if launcher.messages:
            return
    if launcher.numbers:
        report(launcher)


def report(launcher: Launcher) -> None:
    """One job after all arrays, however they end: table, fits, figures and report of what is there then."""
    plan, store = launcher.plan, launcher.store
    request = Request(0, None, 1, "4G", "1h", plan.cluster.job.partition if plan.cluster.job else None)
    arguments = ["conclude", plan.sweep.name, *plan.sweep.said, "--store", str(store.root)]
    job = make_job(store, {"stage": "report", "arguments": arguments, "execution": {"threads": 1}},
                   cwd=launcher.code["folder"], request=dataclasses.asdict(request))
    launcher.hand_over(Group("report", request, jobs=[job], seconds=[60.0]), ("afterany", list(launcher.numbers)))


def without_busy_trunks(todo: Sequence[PlannedRun], plan: Plan, found: Mapping[str, RunState]) -> tuple[list[PlannedRun], int]:
    """A trunk has one owner: runs whose trunk is queued or running with other runs wait for it."""
    busy = {r.trunk_id for r in plan.runs if found[r.run_id].state in ("queued", "running", "unknown")}
    free = [r for r in todo if r.trunk_id not in busy]
    return free, len(todo) - len(free)


def release_held(store: Store, now: Queue) -> list[str]:
    """Let go what Slurm holds because a node failed to start it; what a person holds stays held."""
    held = [e.id for e in submissions.flight(submissions.read(store), now).jobs.values() if e.failed_to_start]
    problem = release(held)
    said = f"; {problem}" if problem else ""
    return [f"{len(held)} jobs that a node had failed to start were released: {', '.join(held[:5])}{said}."] if held else []


def submit_probes(plan: Plan, store: Store, jobs: Sequence[tuple[Request, Path]]) -> Outcome:
    """Hand over calibration jobs, an array per request."""
    with launching(plan, store) as launcher:
        for request, job in jobs:
            launcher.hand_over(Group("probe", request, jobs=[job], seconds=[60.0]))
    return Outcome(launcher.handed, {}, tuple(launcher.messages), handed_over=True)


@contextmanager
def launching(plan: Plan, store: Store) -> Iterator[Launcher]:
    """A launcher for jobs beside the training ones, while no other launch submits from this store."""
    from saescale.campaign import slurm

    slurm.check_folder(store.root)
    lock = Lock(store.root / "launch.lock")
    holder = lock.acquire()
    if holder is not None:
        raise ValueError(f"another launch is submitting from this store ({holder}): wait until it is done.")
    try:
        yield Launcher(plan, store, queue(), known_limits(plan), snapshot.take(store), lock)
    finally:
        lock.release()


def orphans(plan: Plan, store: Store, now: Queue) -> list[str]:
    """Runs of this sweep that are with the scheduler and no longer in the plan: listed, never cancelled by themselves."""
    mine = [s for s in submissions.read(store) if s.sweep == plan.sweep.folder_name]
    planned = {r.run_id for r in plan.runs}
    lost = sorted(set(submissions.flight(mine, now).elements) - planned)
    if not lost:
        return []
    return [f"{len(lost)} runs are queued or running and no longer in the sweep, the first {lost[0]}: they go on; "
            f"`saescale cancel {shlex.join([plan.sweep.name, *plan.sweep.said])} --orphans` ends them."]


def preview(plan: Plan, store: Store, choice: Choice, ask: bool = False) -> dict[str, Any]:
    """The jobs a launch would submit now; with `ask`, what sbatch --test-only says of each group. Nothing is submitted."""
    found = states(plan.runs, store)
    refuse_damaged(found)
    todo = choice.of(plan.runs, found)
    at_most = known_limits(plan) if plan.cluster.kind == "slurm" else Limits(None, None)
    shown = []
    refuse_too_large(lacking(todo, store), plan)
    harvest = harvest_group(todo, plan, store) if plan.cluster.kind == "slurm" else None
    for group in [*([harvest] if harvest else []), *(groups(todo, plan) if todo else [])]:
        sizes = [len(part) for part in chunks(range(group.n_jobs), at_most.array)]
        said: tuple[bool | None, str] = test(plan, store, group, sizes[0]) if ask else (None, "")
        shown.append({"stage": group.stage, "request": group.request.label, "jobs": group.n_jobs, "arrays": sizes,
                      "runs": sum(map(len, group.fleets)), "longest_s": group.seconds[0], "gpu_hours": group.gpu_hours,
                      "accepted": said[0], "said": said[1]})
    return {"runs": len(todo), "jobs": sum(g["jobs"] for g in shown), "gpu_hours": sum(g["gpu_hours"] for g in shown),
            "limits": vars(at_most), "groups": shown}


def test(plan: Plan, store: Store, group: Group, size: int) -> tuple[bool, str]:
    if plan.cluster.kind != "slurm":
        raise ValueError(f"--test-only asks Slurm, and cluster.kind is {plan.cluster.kind!r}. Use cluster=slurm, or --dry-run.")
    from saescale.campaign import slurm

    sweep = plan.sweep.folder_name
    array = slurm.Array(f"saescale-{sweep}-test", store.sweep_dir(sweep) / "slurm" / "test", group.request, str(store.root))
    return slurm.test_only(array, plan.cluster, size)
