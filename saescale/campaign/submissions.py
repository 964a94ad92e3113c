"""What was handed to the scheduler: an intent before every submission, its outcome after it, both in submissions.jsonl.

An intent without outcome is a launcher that died, or an sbatch that was accepted and did not say so. It is looked up by the
job's name, which carries the intent's token: in the queue, in the accounting, and in what its jobs left on disk.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from saescale.campaign.queue import Element, Queue, named_in_accounting
from saescale.records.store import Store, append_line, read_json, read_lines

LOG = "submissions.jsonl"


@dataclass
class Submission:
    """One array (or single job). `jobs`: job_id -> its run_ids, in the order of the array; `number`: the scheduler's."""

    sweep: str
    token: str
    name: str
    stage: str
    time: float
    jobs: dict[str, list[str]]
    request: dict[str, Any]
    gpu_hours: dict[str, float]
    number: str | None = None
    over: str | None = None  # why there is no number: refused, or never accepted
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return self.number is None and self.over is None

    def ids(self) -> dict[str, str]:
        """job_id -> id of its element in the queue."""
        if self.number is None:
            return {}
        if len(self.jobs) == 1:
            return {next(iter(self.jobs)): self.number}
        return {job: f"{self.number}_{i}" for i, job in enumerate(self.jobs)}


def log_path(store: Store, sweep: str) -> Path:
    return store.sweep_dir(sweep) / LOG


def intend(store: Store, submission: Submission, **said: Any) -> None:
    s = submission
    append_line(log_path(store, s.sweep), {
        "event": "intent", "time": s.time, "token": s.token, "name": s.name, "stage": s.stage, "jobs": s.jobs,
        "request": s.request, "gpu_hours": s.gpu_hours, "cluster": "slurm", **said})


def settle(store: Store, submission: Submission, number: str | None, over: str | None = None, how: str = "sbatch") -> None:
    """Write down what became of an intent."""
    submission.number, submission.over = number, over
    append_line(log_path(store, submission.sweep), {
        "event": "submitted" if number else "over", "time": time.time(), "token": submission.token, "number": number,
        "why": over, "known_by": how})


def read(store: Store) -> list[Submission]:
    """Every submission of every sweep of the store, oldest first: runs are stored once, whichever sweep asked for them."""
    found: list[Submission] = []
    for path in sorted(store.root.glob(f"*/{LOG}")):
        tokens: dict[str, Submission] = {}
        for line in read_lines(path):
            if line.get("event") == "intent":
                tokens[line["token"]] = Submission(path.parent.name, line["token"], line["name"], line["stage"], line["time"],
                                                   line["jobs"], line["request"], line["gpu_hours"], said=line)
            elif line.get("event") in ("submitted", "over") and line["token"] in tokens:
                tokens[line["token"]].number, tokens[line["token"]].over = line["number"], line["why"]
        found += tokens.values()
    return sorted(found, key=lambda s: s.time)


def look_up(submission: Submission, queue: Queue, store: Store) -> tuple[str | None, str]:
    """(the number an open intent was accepted under, who knows it), or (None, why not)."""
    for element in queue.named(submission.name):
        return element.id.partition("_")[0], "squeue"
    number = named_in_accounting(submission.name)
    if number:
        return number, "sacct"
    for job in submission.jobs:
        for attempt in sorted((store.job_dir(job) / "attempts").glob("*/start.json")):
            slurm = (read_json(attempt) or {}).get("slurm") or {}
            if slurm.get("name") == submission.name:
                return slurm["id"].partition("_")[0], "its jobs"
    return None, "the scheduler does not know it"


def reconcile(store: Store, queue: Queue) -> list[str]:
    """Settle the intents that a dead launcher or a silent sbatch left open; one sentence for each."""
    said = []
    for s in read(store):
        if s.is_open and queue.unknown is None:
            number, how = look_up(s, queue, store)
            settle(store, s, number, None if number else "never accepted", how)
            said.append(f"{s.name} was submitted before its launcher ended: it is {number}." if number else
                        f"{s.name} was meant to be submitted and never was: its {len(s.jobs)} jobs are submitted again.")
    return said


@dataclass(frozen=True)
class Flight:
    """What of the store is with the scheduler. `elements`: run_id -> its live job; `submitted`: when a run was last handed over;
    `unknown`: why nobody can say."""

    elements: Mapping[str, Element] = field(default_factory=dict)
    submitted: Mapping[str, float] = field(default_factory=dict)
    jobs: Mapping[str, Element] = field(default_factory=dict)
    unknown: str | None = None


def flight(submissions: Sequence[Submission], queue: Queue) -> Flight:
    elements, submitted, jobs = {}, {}, {}
    for s in submissions:
        number = next((e.id.partition("_")[0] for e in queue.named(s.name)), None) if s.is_open else s.number
        ids = replace(s, number=number).ids()
        for job, runs in s.jobs.items():
            if s.over is None:
                submitted |= dict.fromkeys(runs, s.time)
            element = queue.elements.get(ids.get(job, ""))
            if element is not None:
                jobs[job] = element
                elements |= dict.fromkeys(runs, element)
    return Flight(elements, submitted, jobs, queue.unknown)
