"""Jobs on this machine: a pool of worker processes, or this very process. Progress is read from the jobs' files."""

from __future__ import annotations

import importlib
import itertools
import os
import platform
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from saescale.records.store import Damaged, read_json, write_json

JOB_MODULE, JOB_CALLABLE = "saescale.training.train", "run_job"
CLI_MODULE = "saescale.cli"
POLL_S = 0.25
ASKED_TO_STOP = 4


class Stopped(Exception):
    """Work that was begun and did not end: nothing is lost, and the same command goes on from there."""


class Progress(Protocol):
    """What the terminal shows while jobs run: the share done of a stage, and a note."""

    def stage(self, name: str, done: float, total: float, note: str) -> None: ...


class Worker:
    """One job in one child process. Its output goes to jobs/<id>/attempts/<k>/, as far as the disk allows."""

    def __init__(self, job: Path, threads: int, slurm: Mapping[str, Any] | None = None) -> None:
        self.job = job
        self.attempt = _new_attempt(job / "attempts")
        (job / "status.json").unlink(missing_ok=True)
        content = read_json(job / "job.json")
        self.start = {"started": time.time(), "host": platform.node(), "gpus": (content.get("request") or {}).get("gpus", 0),
                      "slurm": slurm}
        write_json(self.attempt / "start.json", self.start)
        env = {**os.environ, "SAESCALE_PARENT": str(os.getpid()), "OMP_NUM_THREADS": str(threads),
               "MKL_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        command = [CLI_MODULE, *content["arguments"]] if content["stage"] == "report" else [JOB_MODULE, str(job)]
        self.process = subprocess.Popen([sys.executable, "-m", *command], env=env, cwd=content.get("cwd"),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        errors="replace")
        self.tail: deque[str] = deque(maxlen=40)
        self.readers = [threading.Thread(target=self._drain, args=(stream, name), daemon=True)
                        for stream, name in ((self.process.stdout, "stdout"), (self.process.stderr, "stderr"))]
        for reader in self.readers:
            reader.start()

    def _drain(self, stream: IO[str], name: str) -> None:
        for line in stream:
            if name == "stderr":
                self.tail.append(line.rstrip())
            try:
                with (self.attempt / name).open("a") as f:
                    f.write(line)
            except OSError:  # a full disk must not lose the message: it is in `tail`
                continue

    def finish(self, **said: Any) -> str | None:
        """None when the job ended well, else one sentence. `said` goes to exit.json."""
        code = self.process.wait()
        for reader in self.readers:
            reader.join(timeout=5)
        try:
            write_json(self.attempt / "exit.json", {"exit_code": code, "ended": time.time(), "done": self._work_done(), **said})
        except OSError as e:
            self.tail.append(f"{self.attempt} cannot be written: {e.strerror}.")
        if code == 0:
            return None
        last = next((line for line in reversed(self.tail) if line.strip()), "it said nothing")
        how = f"was killed by signal {-code}" if code < 0 else f"stopped with exit code {code}"
        return f"job {self.job.name} {how}: {last}"

    def _work_done(self) -> float:
        try:
            return (read_json(self.job / "status.json") or {}).get("done", 0.0)
        except Damaged:
            return 0.0


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
                    running.append(Worker(job, read_json(job / "job.json")["execution"]["threads"]))
                except OSError as e:  # a full disk: what runs goes on, and the launch still ends by saying what stopped
                    problems.append(f"job {job.name} could not start: {e.filename or job}: {e.strerror}.")
            time.sleep(POLL_S)
            _show(jobs, stage, progress)
            for worker in [w for w in running if w.process.poll() is not None]:
                running.remove(worker)
                problem = worker.finish()
                problems += [problem] if problem else []
    finally:
        for worker in running:  # an error or Ctrl-C here: let the workers save and stop
            worker.process.terminate()
        for worker in running:
            worker.process.wait()
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
    done = total = 0.0
    note = ""
    for job in jobs:
        try:
            status = read_json(job / "status.json")
        except Damaged:
            status = None
        if status:
            done, total = done + status["done"], total + status["total"]
            note = status.get("note", "") or note
    progress.stage(stage, done, total, note)
