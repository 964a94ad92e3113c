"""What the scheduler starts: a task of one job, or one for each of its ranks. It watches a worker, which trains in a process of
its own, so that a worker killed for its memory still leaves its exit on record.

SIGUSR2 (the time limit is near, or a preemption with warning): save, then queue this very element again.
SIGTERM (preemption without warning, cancellation, a node going down): save, then wait for the scheduler, which alone knows
whether the job goes back to the queue.
"""

from __future__ import annotations

import math
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from saescale.campaign import local
from saescale.campaign.attempts import ending
from saescale.campaign.meeting import NotMet, RankWorker, Task
from saescale.records.store import Damaged, Store, read_json
from saescale.track import follow
from saescale.track.follow import following

REQUEUED, STALLED = 75, 76
KILL_WAIT_S = 300.0
BEGUN = "saescale: a try begins"  # in the log of a task, which Slurm goes on with when the job comes back
TRACK_WAIT_S = 10.0  # for the mirror to wandb, when time is short


class Asked:
    """The signal handler: it sets flags and does nothing else."""

    def __init__(self) -> None:
        self.requeue = self.stop = False

    def __call__(self, number: int, _frame: Any) -> None:
        if number == signal.SIGUSR2:
            self.requeue = True
        else:
            self.stop = True

    @property
    def what(self) -> str | None:
        return "requeue" if self.requeue else "stop" if self.stop else None


def run_task(job_dir: str) -> None:
    """The importable callable that is submitted; everything else is in the directory. Ends the process unless the job is done."""
    asked, me = Asked(), Task.of(os.environ)
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, asked)
    job = Path(job_dir)
    print(BEGUN, file=sys.stderr, flush=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})  # the worker is born with it blocked and unblocks when it can save
    worker = begin(job, me, asked)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
    notes: list[str] = []
    with following(Store(job.parents[1]), mirrored(job, me), notes, lambda: TRACK_WAIT_S if asked.what else math.inf):
        problem = watch(worker, asked)
    for note in notes:
        print(note, file=sys.stderr, flush=True)
    if problem is None:
        return
    sys.exit(after(asked, worker, problem, me))


def watch(worker: local.Worker, asked: Asked) -> str | None:
    """Pass on what this task is asked until the worker has ended; one sentence unless it ended well."""
    told = None
    while not worker.poll():
        if asked.what != told:
            told = asked.what
            worker.send_signal(signal.SIGUSR2 if asked.requeue else signal.SIGTERM)
        time.sleep(0.1)
    return worker.finish(asked=asked.what)


def mirrored(job: Path, me: Task) -> follow.Asked | None:
    """What the mirror of this job's runs is asked: the first task of a job mirrors it, with the key of its environment."""
    content = read_json(job / "job.json")
    track = content.get("track") if me.rank == 0 else None
    return follow.Asked(**{**track, "runs": content["runs"], "token": job.name}) if track else None


def begin(job: Path, me: Task, asked: Asked) -> local.Worker:
    """Start what this task watches: the whole job, or its one rank of it."""
    try:
        content = read_json(job / "job.json")
        if me.size == 1:
            return local.Worker(job, content, about_slurm())
        return RankWorker(job, content, me, about_slurm(), lambda: asked.what)
    except OSError as e:
        sys.exit(f"{e.filename or job}: {e.strerror or e}, on {platform.node()}: the nodes must be able to write the store. Try "
                 "`saescale doctor --cluster slurm`.")
    except NotMet as e:
        print(e, file=sys.stderr, flush=True)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        if asked.what:
            time.sleep(KILL_WAIT_S)
        sys.exit(local.ASKED_TO_STOP)


def after(asked: Asked, worker: local.Worker, problem: str, me: Task) -> int:
    """What a task does once its worker ended early; returns the exit code of the task.

    Of several tasks the first alone queues the job again, once all ranks have ended, whichever was asked; the others wait.
    """
    code = worker.end()[1]
    wish = asked.what
    if me.size > 1 and me.rank > 0 and (wish or code == local.ASKED_TO_STOP):
        print(problem, file=sys.stderr, flush=True)
        time.sleep(KILL_WAIT_S)
    elif me.size > 1 and (wish or code == local.ASKED_TO_STOP):
        wish = wish_of_all(worker.attempt, asked)
    if wish == "requeue" and me.rank == 0:
        return requeue(worker.job, problem)
    if me.rank == 0:
        print(problem, file=sys.stderr, flush=True)
        if wish == "stop":
            time.sleep(KILL_WAIT_S)  # an end of our own would say FAILED where the scheduler means to queue the job again
    return code if code > 0 else 128 - code


def wish_of_all(attempt: Path, asked: Asked) -> str | None:
    """What any task of the job was asked for, once every one has said how its rank ended or is past hope."""
    deadline = time.monotonic() + KILL_WAIT_S
    while ending(attempt).ended is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return "requeue" if "requeue" in (asked.what, ending(attempt).asked) else asked.what or ending(attempt).asked


def requeue(job: Path, problem: str) -> int:
    """Queue exactly this element again, unless that has led nowhere twice."""
    if is_stalled(job):
        print(f"{problem}\ntwo attempts in a row made no progress: not queued again.", file=sys.stderr)
        return STALLED
    done = subprocess.run(["scontrol", "requeue", element_id()], capture_output=True, text=True)
    print(f"scontrol requeue {element_id()}: {done.stderr.strip() or 'accepted'}", file=sys.stderr, flush=True)
    return REQUEUED if done.returncode == 0 else local.ASKED_TO_STOP


def is_stalled(job: Path) -> bool:
    """The last two attempts ended without any work done."""
    last = sorted((p for p in (job / "attempts").glob("*/exit.json")), key=lambda p: int(p.parent.name))[-2:]
    try:
        return len(last) == 2 and all(not (read_json(p) or {}).get("done") for p in last)
    except Damaged:
        return False


def element_id() -> str:
    """`<array>_<task>`: the one element to queue again, never the whole array."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "unknown")


def about_slurm() -> dict[str, Any]:
    return {"id": element_id(), "name": os.environ.get("SLURM_JOB_NAME"), "restarts": os.environ.get("SLURM_RESTART_COUNT", "0"),
            "node": os.environ.get("SLURMD_NODENAME", platform.node()), "partition": os.environ.get("SLURM_JOB_PARTITION")}
