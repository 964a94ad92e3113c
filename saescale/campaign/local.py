"""Jobs on this machine: a pool of worker processes, or this very process. Progress is read from the jobs' files."""

from __future__ import annotations

import importlib
import itertools
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from saescale.campaign.attempts import read_or_empty
from saescale.records.store import Damaged, read_json, write_json

JOB_MODULE, JOB_CALLABLE = "saescale.training.train", "run_job"
CLI_MODULE = "saescale.cli"
POLL_S = 0.25
GRACE_S = 10.0  # for the other ranks of a job to end after one has failed
ASKED_TO_STOP = 4


class Stopped(Exception):
    """Work that was begun and did not end: nothing is lost, and the same command goes on from there."""


class Progress(Protocol):
    """What the terminal shows while jobs run: the share done of a stage, and a note."""

    def stage(self, name: str, done: float, total: float, note: str) -> None: ...


class Rank:
    """One process of a job. What it says goes to stdout and stderr of the attempt (`.1`, `.2` ... for those after the first)."""

    def __init__(self, command: Sequence[str], attempt: Path, rank: int, env: dict[str, str], cwd: str | None) -> None:
        self.attempt, self.rank = attempt, rank
        self.process = subprocess.Popen([sys.executable, "-m", *command], env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
        self.tail: deque[str] = deque(maxlen=40)
        suffix = f".{rank}" if rank else ""
        self.readers = [threading.Thread(target=self._drain, args=(stream, f"{name}{suffix}", name == "stderr"), daemon=True)
                        for stream, name in ((self.process.stdout, "stdout"), (self.process.stderr, "stderr"))]
        for reader in self.readers:
            reader.start()

    def _drain(self, stream: IO[str], name: str, is_error: bool) -> None:
        for line in stream:
            if is_error:
                self.tail.append(line.rstrip())
            try:
                with (self.attempt / name).open("a") as f:
                    f.write(line)
            except OSError:  # a full disk must not lose the message: it is in `tail`
                continue

    def join(self) -> None:
        for reader in self.readers:
            reader.join(timeout=5)

    @property
    def last_words(self) -> str:
        return next((line for line in reversed(self.tail) if line.strip()), "it said nothing")


class Worker:
    """One job in as many child processes as it has ranks. Their output goes to jobs/<id>/attempts/<k>/."""

    exit_file = "exit.json"

    def __init__(self, job: Path, content: dict[str, Any], slurm: Mapping[str, Any] | None = None, seat: int = 0) -> None:
        """`seat`: its number among the workers at work; their processes take the GPUs of the machine in turn, by LOCAL_RANK."""
        size, self.seat = content.get("n_ranks", 1), seat
        joint = joint_environment(size) if size > 1 else {}
        self._start(job, open_attempt(job, content, slurm=slurm), content,
                    {r: {**joint, "RANK": str(r), "LOCAL_RANK": str(seat * size + r)} for r in range(size)})

    def _start(self, job: Path, attempt: Path, content: dict[str, Any], ranks: Mapping[int, Mapping[str, str]]) -> None:
        """A process for each of `ranks`: number -> the variables that say which it is."""
        self.job, self.attempt, self.n_ranks = job, attempt, content.get("n_ranks", 1)
        threads = content["execution"]["threads"]
        # huge pages for large temporaries: page faults were more than half of the time of a small language model's forward
        env = {"THP_MEM_ALLOC_ENABLE": "1", **os.environ, "SAESCALE_PARENT": str(os.getpid()), "OMP_NUM_THREADS": str(threads),
               "MKL_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        command = [CLI_MODULE, *content["arguments"]] if content["stage"] == "report" else [JOB_MODULE, str(job)]
        self.ranks = [Rank(command, attempt, r, env | who, content.get("cwd")) for r, who in ranks.items()]
        self.culprit: Rank | None = None
        self.given_up: list[Rank] = []  # hung: they were still there after the grace, and were killed
        self.failed_at = 0.0

    def poll(self) -> bool:
        """Whether all processes have ended. When one ends badly, the others learn of it in their next exchange and end; those
        still there after GRACE_S are killed."""
        running = [r for r in self.ranks if r.process.poll() is None]
        if self.culprit is None:
            self.culprit = next((r for r in self.ranks if r.process.returncode not in (None, 0, ASKED_TO_STOP)), None)
            self.failed_at = time.monotonic()
        elif time.monotonic() - self.failed_at > GRACE_S:
            self.given_up += [rank for rank in running if rank not in self.given_up]
            for rank in running:
                rank.process.kill()
        return not running

    def send_signal(self, number: int) -> None:
        for rank in self.ranks:
            rank.process.send_signal(number)

    def wait(self) -> None:
        while not self.poll():
            time.sleep(POLL_S)

    def finish(self, **said: Any) -> str | None:
        """None when the job ended well, else one sentence: of the rank that was killed or had the trouble, not of those it took
        along. `said` goes to exit.json."""
        for rank in self.ranks:
            rank.join()
        first, code = self.end()
        try:
            write_json(self.attempt / self.exit_file,
                       {"exit_code": code, "ended": time.time(), "done": self._work_done(), **said})
        except OSError as e:
            self.ranks[0].tail.append(f"{self.attempt} cannot be written: {e.strerror}.")
        if first is None:
            return None
        how = f"was killed by signal {-code}" if code < 0 else f"stopped with exit code {code}"
        which = f" (rank {first.rank} of {self.n_ranks})" if self.n_ranks > 1 else ""
        hung = ", ".join(str(rank.rank) for rank in self.given_up)
        return f"job {self.job.name}{which} {how}: {first.last_words}" + (f" Rank {hung} hung and was killed." if hung else "")

    def end(self) -> tuple[Rank | None, int]:
        """The rank whose end tells how the job ended, and its exit code; (None, 0) when all ended well."""
        bad = [r for r in self.ranks if r.process.returncode and r not in self.given_up]
        first = min(bad, key=lambda r: (r.process.returncode > 0, r is not self.culprit), default=None)
        return first, first.process.returncode if first else 0

    def _work_done(self) -> float:
        try:
            return (read_json(self.job / "status.json") or {}).get("done", 0.0)
        except Damaged:
            return 0.0


def joint_environment(size: int) -> dict[str, str]:
    """How `size` processes of this machine find each other (training/parallel.py reads it)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = {"GLOO_SOCKET_IFNAME": "lo"} if Path("/sys/class/net/lo").exists() else {}
    return {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **here}


def open_attempt(job: Path, content: Mapping[str, Any], **said: Any) -> Path:
    """The next attempts/<k>/ of a job, with its start.json. What an earlier attempt showed of its progress is gone."""
    attempt = _new_attempt(job / "attempts")
    (job / "status.json").unlink(missing_ok=True)
    request = content.get("request") or {}
    write_json(attempt / "start.json", {"started": time.time(), "host": platform.node(), **said,
                                        "gpus": request.get("gpus", 0) * request.get("nodes", 1)})
    return attempt


def _new_attempt(attempts: Path) -> Path:
    """The next attempts/<k>/; another launch of the same job at the same time gets another."""
    attempts.mkdir(parents=True, exist_ok=True)
    for k in itertools.count(len(list(attempts.glob("*")))):
        try:
            (attempts / str(k)).mkdir()
        except FileExistsError:
            continue
        return attempts / str(k)
    raise AssertionError


def is_orphan(pid: int) -> bool:
    """Whether process `pid` of this machine is a worker whose launcher is gone: it saves and stops at the end of its block.

    False where there is no /proc to tell.
    """
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return False
    launcher = next((e.partition(b"=")[2].decode() for e in environment if e.startswith(b"SAESCALE_PARENT=")), parent)
    return launcher != parent


def run_pool(jobs: Sequence[Path], workers: int, stage: str, progress: Progress) -> list[str]:
    """Run the jobs, at most `workers` at once, and return one sentence per job that did not end well."""
    waiting, running, problems = list(jobs), list[Worker](), list[str]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                try:
                    free = min(set(range(workers)) - {worker.seat for worker in running})
                    running.append(Worker(job, read_json(job / "job.json"), seat=free))
                except OSError as e:  # a full disk: what runs goes on, and the launch still ends by saying what stopped
                    problems.append(f"job {job.name} could not start: {e.filename or job}: {e.strerror}.")
            time.sleep(POLL_S)
            _show(jobs, stage, progress)
            for worker in [w for w in running if w.poll()]:
                running.remove(worker)
                problem = worker.finish()
                problems += [problem] if problem else []
    finally:
        for worker in running:  # an error or Ctrl-C here: let the workers save and stop
            worker.send_signal(signal.SIGTERM)
        for worker in running:
            worker.wait()
            worker.finish(asked="stop")
    return problems


def run_in_process(jobs: Sequence[Path], _workers: int, stage: str, progress: Progress) -> list[str]:
    """The same jobs in this process, one after another, however many workers there could be."""
    problems = []
    run_job = getattr(importlib.import_module(JOB_MODULE), JOB_CALLABLE)
    for job in jobs:
        code = run_job(job, lambda: _show(jobs, stage, progress))
        if code:
            problems.append(f"job {job.name} stopped with exit code {code}.")
        if code == ASKED_TO_STOP:
            break
    return problems


def _show(jobs: Sequence[Path], stage: str, progress: Progress) -> None:
    """The share done of all jobs: one that has not begun counts as the mean of those that have. While jobs that train still fill
    their cache, that is what is shown: the two are counted in other units."""
    found = [status for job in jobs if (status := read_or_empty(job / "status.json"))]
    filling = [status for status in found if status.get("harvesting")]
    if filling and stage == "train":
        stage, found, jobs = "harvest", filling, jobs[:len(filling)]
    done, total = (sum(status[name] for status in found) for name in ("done", "total"))
    note = next((status["note"] for status in reversed(found) if status.get("note")), "")
    progress.stage(stage, done, total * len(jobs) / max(len(found), 1), note)
