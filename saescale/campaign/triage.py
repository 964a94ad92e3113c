"""Why a run is where it is: one class, the lines that show it, one command. Read from disk; the accounting only adds to it.

The rules go from what says most to what says least; the first that finds a line decides. A class that nothing shows is
`unexplained`, with the last words of the attempt, never a guess.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saescale.campaign import queue
from saescale.campaign.attempts import attempts, ending, exit_name, read_or_empty
from saescale.campaign.status import RunState
from saescale.campaign.submissions import Submission
from saescale.campaign.task import BEGUN, STALLED
from saescale.records.store import Store

SILENT_S = 600.0  # a running job that says nothing for so long is stalled; a block of training takes seconds
SHOWN = 6  # lines of evidence
# Class -> (patterns in what the attempt wrote, states of the accounting, what to do; {sweep} is the sweep as typed)
WRITTEN: dict[str, str] = {
    "oom_gpu": r"CUDA out of memory|torch\.(cuda\.)?OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
    "oom_host": r"oom[-_ ]kill|Out Of Memory|MemoryError|can't allocate memory|Cannot allocate memory|exceeded memory limit",
    "disk_full": r"No space left on device|Disk quota exceeded",
    "data_exhausted": r"one epoch has|ran out of (tokens|data|documents)|data exhausted",
    "timeout": r"DUE TO TIME LIMIT|CANCELLED AT .* DUE TO TIME",
    "preempted": r"DUE TO PREEMPTION",
    "node_failure": r"DUE TO NODE FAILURE|NODE_FAIL|Node failure",
    "config_error": r"ModuleNotFoundError|ImportError|No such file or directory: .*python|command not found|PermissionError|"
                    r"Read-only file system|the nodes must be able to write|"
                    r"^(KeyError|TypeError|AttributeError|ValueError)\b|has no tokenised corpus|are not installed here",
    "lock_lost": r"was taken over while this process was silent|is being trained by .*: left to it"}
RANK_LOST = r"rank \d+ of \d+ (lost another rank|could not meet the others)|the first task opened no attempt"
ACCOUNTED = {"OUT_OF_MEMORY": "oom_host", "TIMEOUT": "timeout", "PREEMPTED": "preempted", "NODE_FAIL": "node_failure",
             "BOOT_FAIL": "node_failure", "CANCELLED": "cancelled", "DEADLINE": "timeout"}
LAUNCH, RETRY = "saescale launch {sweep}", "saescale retry {sweep}"
SUGGESTED = {
    "oom_gpu": RETRY + " --class oom_gpu --set cluster.job.gpus=*2",
    "oom_host": RETRY + " --class oom_host --set cluster.job.memory=*2",
    "disk_full": "saescale gc", "data_exhausted": "saescale plan {sweep}", "timeout": LAUNCH, "preempted": LAUNCH,
    "node_failure": LAUNCH, "config_error": "saescale doctor", "lock_lost": LAUNCH, "rank_lost": LAUNCH, "cancelled": LAUNCH,
    "killed": RETRY,
    "diverged": "saescale plan {sweep} train.lr=LOWER", "rejected": "saescale launch {sweep} --test-only",
    "vanished": LAUNCH, "stalled": "saescale logs {run}", "damaged": LAUNCH, "unexplained": "saescale logs {run}",
    "new": LAUNCH, "queued": "saescale status {sweep}", "running": "saescale status {sweep}", "done": "saescale collect {sweep}",
    "held": LAUNCH, "unknown": "saescale doctor", "stopped": LAUNCH, "waiting": LAUNCH}
# On this machine there is no job that could ask for more: fewer workers leave each more of the memory.
HERE = {kind: RETRY + f" --class {kind} --set cluster.workers=/2" for kind in ("oom_gpu", "oom_host")}
# What is no fault of the run: `retry` takes these when no class is named.
INFRASTRUCTURE = ("timeout", "preempted", "node_failure", "killed", "vanished", "cancelled", "rejected", "lock_lost", "rank_lost",
                  "stopped", "disk_full")
CLASSES = tuple(SUGGESTED)


@dataclass(frozen=True)
class Cause:
    """Why a run is not done: `kind` is one of CLASSES, `evidence` the lines that show it, `attempt` where they stand."""

    kind: str
    evidence: tuple[str, ...] = ()
    attempt: Path | None = None
    n_attempts: int = 0
    is_here: bool = False  # tried on this machine, not on a cluster

    def command(self, sweep: str, run: str) -> str:
        known = SUGGESTED | HERE if self.is_here else SUGGESTED
        return known[self.kind].format(sweep=sweep, run=run)


@dataclass
class Case:
    """What there is to judge one run by."""

    state: RunState
    job: Path | None = None
    submission: Submission | None = None
    accounted: Mapping[str, str] = field(default_factory=dict)

    @property
    def attempt(self) -> Path | None:
        tried = attempts(self.job) if self.job else []
        return tried[-1][0] if tried else None


def cause(case: Case) -> Cause:
    """The class of one run, by the first rule that finds evidence."""
    n, here = len(attempts(case.job)) if case.job else 0, case.submission is None
    for rule in (by_state, by_submission, by_accounting, by_words, by_exit):
        found = rule(case)
        if found is not None:
            return Cause(found[0], tuple(found[1][-SHOWN:]), case.attempt, n, here)
    return Cause("unexplained", tuple(words(case)[-SHOWN:]), case.attempt, n, here)


Found = tuple[str, Sequence[str]] | None


def by_state(case: Case) -> Found:
    s = case.state
    if s.state == "failed" and s.reason.startswith("diverged"):
        return "diverged", [s.reason]
    if s.state == "running":
        beat = read_or_empty(case.job / "status.json").get("heartbeat") if case.job else None
        silent = time.time() - beat if beat else 0.0
        if silent > SILENT_S:
            return "stalled", [s.reason, f"its job last said something {silent / 60:.0f} minutes ago"]
    if s.state == "queued" and "held" in s.reason.lower():
        return "held", [s.reason]
    if s.state in ("done", "queued", "running", "damaged", "unknown"):
        return s.state, [s.reason] if s.reason else []
    if s.state == "new" and case.submission is None and case.attempt is None:
        return "new", ["it was not launched yet"]
    return None


def by_submission(case: Case) -> Found:
    """Refused by sbatch, or accepted and gone without having begun."""
    s = case.submission
    if s is None:
        return None
    begun = [start for _, start in attempts(case.job) if start.get("started", 0) >= s.time] if case.job else []
    if s.over and not begun:
        return "rejected", [f"{s.name}: {s.over}"]
    if s.number and not begun and not case.accounted and not words(case):
        return "vanished", [f"accepted as {s.number}, not in the queue, and its job left nothing on disk: if that repeats, "
                            "see with `saescale doctor --cluster slurm` whether the nodes can write the store"]
    return None


def by_accounting(case: Case) -> Found:
    said = case.accounted.get("State", "").split(" ")[0].rstrip("+")
    kind = ACCOUNTED.get(said)
    row = ", ".join(f"{k}={v}" for k, v in case.accounted.items() if v and k in ("JobID", "State", "ExitCode", "Elapsed",
                                                                               "Timelimit", "NodeList"))
    if said == "FAILED" and case.accounted.get("ExitCode") == "0:53":
        return "config_error", [f"sacct: {row}", "Slurm could not write the job's log: the node does not see the store, or may "
                                                 "not write there"]
    return (kind, [f"sacct: {row}"]) if kind else None


def by_words(case: Case) -> Found:
    """What the attempt wrote itself decides before what Slurm wrote, whose log every try of the job goes on with."""
    for said in (own_words(case), slurm_words(case)):
        for kind, pattern in WRITTEN.items():
            lines = [line for line in said if re.search(pattern, line)]
            if lines:
                return kind, lines
    return None


def by_exit(case: Case) -> Found:
    if case.attempt is None:
        return ("vanished", ["it was handed over and left nothing on disk"]) if case.submission else None
    end = ending(case.attempt)
    who = f"rank {end.rank} of {end.n_tasks} " if end.n_tasks > 1 else ""
    code = end.code
    if code is None:
        silent = f" (ranks without one: {', '.join(map(str, end.silent))} of {end.n_tasks})" if end.n_tasks > 1 else ""
        return "killed", [f"{case.attempt} has no {exit_name(end.rank)}{silent}: the process and who watched it ended at once",
                          *(line for line in words(case) if re.search(r"^srun: error: .*task.*: Killed", line))]
    if code == 0:
        return ("waiting", [f"its last job ended well without it; {case.state.reason}"]) if case.state.state != "failed" else None
    if code < 0 or code > 128:
        return "killed", [f"{who}ended by signal {-code if code < 0 else code - 128}", *words(case)[-2:]]
    lost = [line for line in words(case) if re.search(RANK_LOST, line)]
    if lost and not end.asked:
        return "rank_lost", lost
    if end.asked:
        kind = "stalled" if any("made no progress" in line for line in words(case)) or code == STALLED else "stopped"
        return kind, [f"asked to {end.asked} and ended with exit code {code}", *words(case)[-2:]]
    return None


def words(case: Case) -> list[str]:
    """The last lines its last attempt wrote, of all its ranks, then what Slurm wrote beside it."""
    return [*own_words(case), *slurm_words(case)]


def own_words(case: Case) -> list[str]:
    return [line for path in (written(case.attempt) if case.attempt else ()) for line in tail(path)]


def slurm_words(case: Case) -> list[str]:
    """What Slurm wrote of the last try: of each task's log what follows its last mark, which a task writes when it begins."""
    s = case.submission
    if s is None or case.job is None or not s.number:
        return []
    element, lines = s.ids().get(case.job.name, s.number), list[str]()
    for path in sorted(case.job.parents[1].glob(f"{s.sweep}/slurm/{s.token}/{element}_*log.err")):
        said = tail(path)
        lines += said[max((i for i, line in enumerate(said, 1) if line.startswith(BEGUN)), default=0):]
    return lines


def written(attempt: Path) -> list[Path]:
    """What its processes wrote, that of the rank that tells how it ended last."""
    rank = ending(attempt).rank
    own = [attempt / f"{name}.{rank}" if rank else attempt / name for name in ("stdout", "stderr")]
    return [*sorted(p for name in ("stdout*", "stderr*") for p in attempt.glob(name) if p not in own), *own]


def tail(path: Path, n_bytes: int = 20_000) -> list[str]:
    """The last lines of a file that may be long."""
    try:
        with path.open("rb") as f:
            f.seek(max(0, path.stat().st_size - n_bytes))
            return [line.rstrip() for line in f.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []


def cases(found: Mapping[str, RunState], store: Store, submissions: Sequence[Submission]) -> dict[str, Case]:
    """What there is to judge each run by. The accounting is asked once, for the jobs of runs that are not done."""
    last: dict[str, tuple[Submission, str]] = {}
    for s in submissions:
        for job, runs in s.jobs.items():
            last |= dict.fromkeys((r for r in runs if r in found), (s, job))
    built = {}
    for run_id, state in found.items():
        s, job = last.get(run_id, (None, None))
        status = state.progress or (read_or_empty(store.run_dir(run_id) / "status.json") if job is None else {})
        built[run_id] = judged_by(store, state, s, job, status.get("job"))
    ids = {run_id: case.submission.ids().get(case.job.name) for run_id, case in built.items()
           if case.submission and case.job and case.state.state not in ("done", "queued", "running")}
    rows = queue.accounting(sorted({i for i in ids.values() if i}))
    for run_id, element in ids.items():
        built[run_id].accounted = rows.get(element or "", {})
    return built


def judged_by(store: Store, state: RunState, s: Submission | None, submitted: str | None, seen: str | None) -> Case:
    """The case of a run that was handed over in the job `submitted` and whose files name the job `seen`. What was tried after the
    submission and outside it, on this machine say, is what there is to judge, and nothing that Slurm knows belongs to it."""
    for job in dict.fromkeys(j for j in (seen, submitted) if s is not None and j):
        _, start = (attempts(store.job_dir(job)) or [(None, {})])[-1]
        is_its_own = (start.get("slurm") or {}).get("id") == s.ids().get(job, s)
        if start.get("started", 0) >= s.time and not is_its_own:
            return Case(state, store.job_dir(job))
    job = submitted or seen
    return Case(state, store.job_dir(job) if job else None, s)


def causes(found: Mapping[str, RunState], store: Store, submissions: Sequence[Submission]) -> dict[str, Cause]:
    return {run_id: cause(case) for run_id, case in cases(found, store, submissions).items()}


def summary(found: Mapping[str, Cause]) -> list[dict[str, Any]]:
    """Runs by class, the largest first, each with the evidence of its first run."""
    groups: dict[str, list[str]] = {}
    for run_id, c in found.items():
        groups.setdefault(c.kind, []).append(run_id)
    return [{"class": kind, "n": len(runs), "runs": runs, "evidence": list(found[runs[0]].evidence)}
            for kind, runs in sorted(groups.items(), key=lambda item: -len(item[1]))]
