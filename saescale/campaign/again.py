"""Second tries and ends: which runs a retry means, with which execution settings; which jobs a cancel ends."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

from saescale import config as conf
from saescale.campaign import submissions, triage
from saescale.campaign.choice import Choice
from saescale.campaign.launch import Outcome
from saescale.campaign.only import Only
from saescale.campaign.plan import Plan
from saescale.campaign.queue import queue
from saescale.campaign.status import states
from saescale.campaign.sweep import EXECUTION_GROUPS, cells, load
from saescale.records.store import Store

TRIED = ("new", "stopped", "failed")


def parse_classes(text: str | None) -> tuple[str, ...]:
    """The classes a retry takes. Raises ValueError for one there is not."""
    if text is None:
        return (*triage.INFRASTRUCTURE, "waiting")
    given = tuple(t.strip() for t in text.split(",") if t.strip())
    for kind in given:
        if kind not in triage.CLASSES:
            raise ValueError(f"--class {kind} is not known. Choose from: {', '.join(sorted(triage.CLASSES))}.")
    return given


def with_settings(sweep: str, overrides: Sequence[str], settings: Sequence[str]) -> list[str]:
    """The overrides of a retry: execution settings over those of the sweep, `*2` and `/2` worked out from what they are.

    Raises ValueError for a setting that belongs to the science: that would be another run.
    """
    out = list(overrides)
    for text in settings:
        key, is_given, value = text.partition("=")
        if not is_given or not re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", key):
            raise ValueError(f"--set {text!r} is not KEY=VALUE, such as cluster.job.memory=*2.")
        if key.split(".")[0] not in EXECUTION_GROUPS:
            raise ValueError(f"--set {key} would make other runs: it is no setting of {' or '.join(EXECUTION_GROUPS)}. "
                             f"Give it as an override to plan and launch instead: saescale plan {sweep} {text}.")
        scaled = re.fullmatch(r"([*/])(\d+(?:\.\d+)?)", value)
        if scaled:
            factor = float(scaled[2]) if scaled[1] == "*" else 1 / (float(scaled[2]) or math.nan)
            value = scale(key, setting(sweep, out, key), factor)
        out = [o for o in out if o.partition("=")[0] != key] + [f"{key}={value}"]
    return out


def setting(sweep: str, overrides: Sequence[str], key: str) -> Any:
    """What an execution setting of the sweep is now."""
    config = next(iter(cells(load(sweep, overrides)))).config
    try:
        return conf.lookup(config, key)
    except AttributeError:
        raise ValueError(f"--set {key}: cluster={config.cluster.kind} has no such setting to scale. "
                         "Give one that `saescale plan` knows there, such as cluster.workers=/2.") from None


def scale(key: str, now: Any, factor: float) -> str:
    """'16G' times 2 is '32G', '4h' '8h', 2 GPUs 4; whole numbers stay whole and at least 1."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", str(now))
    if not found or isinstance(now, bool):
        raise ValueError(f"--set {key}: {now!r} is nothing that can be scaled. Give the value itself.")
    value = float(found[1]) * factor
    if not 0 < value < 2**63:
        raise ValueError(f"--set {key}: {now!r} cannot be scaled by {factor:g}. Give a factor above 0, such as *2 or /2.")
    return f"{max(1, round(value))}{found[2]}"


def choose(plan: Plan, store: Store, classes: Sequence[str], only: str | None, max_attempts: int,
           max_gpu_hours: float | None) -> tuple[Choice, list[str]]:
    """The runs of these classes that were not tried too often, and a sentence for those that were.

    Raises ValueError for runs of a cluster that would be trained here without anybody having said so.
    """
    if max_attempts < 1:
        raise ValueError(f"--max-attempts {max_attempts} is out of range: it must be at least 1.")
    known = triage.causes(states(plan.runs, store), store, submissions.read(store))
    meant = {run for run, c in known.items() if c.kind in classes}
    handed_over = [run for run in meant if not known[run].is_here]
    if handed_over and plan.cluster.kind != "slurm" and not any(o.key == "cluster" for o in plan.sweep.overrides):
        raise ValueError(f"{len(handed_over)} of these runs were handed to Slurm, and cluster={plan.cluster.kind} would train "
                         "them on this machine. Add cluster=slurm (or your site's name), or "
                         f"cluster={plan.cluster.kind} to mean that. Nothing was started.")
    often = {run for run in meant if known[run].n_attempts >= max_attempts}
    notes = [f"{len(often)} runs were tried {max_attempts} times or more and are left alone, the first {min(often)}: "
             "see `saescale why`, or raise --max-attempts."] if often else []
    return Choice(Only(only) if only else None, None, TRIED, max_gpu_hours, frozenset(meant - often)), notes


def noted(outcome: Outcome, notes: Sequence[str]) -> Outcome:
    return dataclasses.replace(outcome, notes=(*notes, *outcome.notes))


@dataclasses.dataclass(frozen=True)
class ToCancel:
    element: str
    job: str
    state: str
    runs: list[str]


def to_cancel(plan: Plan, store: Store, only: str | None, orphans: bool) -> list[ToCancel]:
    """The live jobs of this sweep that hold a run that is meant; a job is ended as a whole."""
    now = queue()
    if now.unknown is not None:
        raise ValueError(f"the scheduler does not answer: {now.unknown}. Nothing was cancelled.")
    mine = [s for s in submissions.read(store) if s.sweep == plan.sweep.folder_name]
    holds = Only(only) if only else None
    planned = {r.run_id: r for r in plan.runs}
    alive = submissions.flight(mine, now).jobs
    held = {job: runs for s in mine for job, runs in s.jobs.items()}

    def is_meant(run: str) -> bool:
        if orphans:
            return run not in planned
        return holds is None or (run in planned and holds(planned[run]))

    return [ToCancel(element.id, job, element.state.lower(), held[job]) for job, element in alive.items()
            if any(map(is_meant, held[job])) or (not held[job] and holds is None and not orphans)]
