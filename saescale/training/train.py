"""One job, from its directory to its records. Read `train_job` downwards: it is the main flow.

A job is a directory with job.json and this importable callable, `run_job(job_dir)`; everything else it needs is in the
store the directory lies in. Exit codes: 0 done, 3 stopped (what is missing can be launched again), 4 asked to stop.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saescale.activations.lm import LanguageModel, wanted
from saescale.measure.oracle import score_features
from saescale.measure.score import score_dictionaries
from saescale.records import concepts, record
from saescale.records.lock import Lock
from saescale.records.store import Store, read_json, write_json
from saescale.sae.device import chosen
from saescale.sae.ranks import ALONE, Ranks
from saescale.sources import is_synthetic
from saescale.training import checkpoint, parallel
from saescale.training.ahead import Ahead, Blocks, InTurn
from saescale.training.begin import open_trunks, restore, take, trunk_lock
from saescale.training.finish import STEP_LATENTS, Bench, ending_work, finish_run, mark, mark_failed
from saescale.training.fleet import Trunk, block_steps, not_finite
from saescale.training.harvest import fill_cache
from saescale.training.metrics import MetricsLog
from saescale.training.probe import probe

DONE, STOPPED, ASKED_TO_STOP = 0, 3, 4
LOCK_WAIT_S = 30.0
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)  # each sets a flag, read at the next block


@dataclass
class Job:
    """Where a job stands: its directory, its store, what it shows, and whether it was asked to stop."""

    folder: Path
    content: dict[str, Any]
    on_progress: Callable[[], None] = lambda: None
    done: float = 0.0
    total: float = 0.0
    stop: bool = False
    shown: float = field(default=0.0)
    began: dict[str, tuple[int, float]] = field(default_factory=dict)  # run_id -> its tokens when this job took it, and when
    ranks: Ranks = ALONE
    elsewhere: tuple[float, float] = (0.0, 0.0)  # done and total of the other ranks
    harvesting: bool = False  # what done and total count

    @property
    def store(self) -> Store:
        return Store(self.folder.parent.parent)

    def show(self, note: str = "", every_s: float = 0.5) -> None:
        now = time.monotonic()
        if self.ranks.first and now - self.shown >= every_s:
            self.shown = now
            done, total = self.done + self.elsewhere[0], self.total + self.elsewhere[1]
            write_json(self.folder / "status.json", {"done": done, "total": total, "note": note, "harvesting": self.harvesting,
                                                     "pid": os.getpid(), "heartbeat": time.time()})
            self.on_progress()

    def asked_to_stop(self) -> bool:
        """A signal came, or the launcher that started this worker is gone."""
        parent = os.environ.get("SAESCALE_PARENT")
        return self.stop or (parent is not None and os.getppid() != int(parent))


def run_job(job_dir: str | Path, on_progress: Callable[[], None] = lambda: None, is_worker: bool = False) -> int:
    """Run the job in `job_dir`. User errors and full disks end in one sentence on stderr and exit code 3.

    A worker's process ends with its job: its handlers stay, so that a second signal cannot kill it on its way out.
    """
    folder = Path(job_dir).resolve()
    job = Job(folder, read_json(folder / "job.json"), on_progress)
    torch.set_num_threads(job.content["execution"]["threads"])
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its start: the same bits every time
    previous = {s: signal.signal(s, lambda *_: setattr(job, "stop", True)) for s in STOPPING}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # a task of a scheduler starts its worker with SIGUSR2 blocked
    try:
        return STAGES[job.content["stage"]](job)
    except OSError as e:
        print(f"{e.filename or job.store.root}: {e.strerror}. Finished runs are safe; make room or fix the permission and "
              "launch again to go on.", file=sys.stderr)
        return STOPPED
    except ValueError as e:
        print(str(e), file=sys.stderr)
        return STOPPED
    finally:
        for number, handler in previous.items() if not is_worker else ():
            signal.signal(number, handler)


def harvest_job(job: Job) -> int:
    """Fill the shards of the activation caches this job was given."""
    science = job.content["science"]
    is_full = fill_cache(job, science, LanguageModel(*wanted(science, job.content["execution"])))
    job.show(every_s=0)
    return DONE if is_full else ASKED_TO_STOP


def train_job(job: Job) -> int:
    """Train a fleet: restore its trunks, step them over the stream, evaluate and record each run at its end. Before, harvest what
    the cache lacks, where the job says so.

    With several ranks each has this function to itself, with its own trunks and those that all of them train together.
    """
    configs = {run: read_json(job.store.run_dir(run) / record.CONFIG) for run in job.content["runs"]}
    shared = next(iter(configs.values()))
    device = chosen(job.content["execution"].get("device", "cpu"))
    timeout_s = job.content.get("rank_timeout_s", parallel.TIMEOUT_S)
    with parallel.joined(job.content.get("n_ranks", 1), timeout_s, device) as job.ranks:
        trunks = open_trunks(job, configs)
        bench = Bench(job.store, shared["science"], job.content["execution"], job.ranks)
        if "shards" in job.content and not fill_cache(job, shared["science"], bench.lm):
            return ASKED_TO_STOP
        job.done = 0.0
        locks = {t.trunk_id: trunk_lock(job.store, t.trunk_id) for t in trunks if t.ranks.first}
        try:
            give_up = time.monotonic() + LOCK_WAIT_S  # one wait for all: a job may hold many trunks
            # never 0: whoever waits at all also outwaits the silence of an owner on another host
            trunks = [t for t in trunks if take(job, t, locks.get(t.trunk_id), max(0.1, give_up - time.monotonic()))]
            for trunk in trunks:
                restore(job, trunk, bench)
            train_fleet(job, trunks, bench, locks)
        finally:
            for lock in locks.values():
                lock.release()
    job.show(every_s=0)
    return ASKED_TO_STOP if job.asked_to_stop() else DONE


def train_fleet(job: Job, trunks: list[Trunk], bench: Bench, locks: dict[str, Lock]) -> None:
    """The training loop: block after block of the stream through every trunk that is not done, at one pace on all ranks."""
    ending = {t.trunk_id: ending_work(t.science, bench) for t in trunks}
    job.total = sum(work_left(t, ending[t.trunk_id]) for t in trunks)
    live, last_saved = [t for t in trunks if t.live], time.monotonic()
    logs = {t.trunk_id: MetricsLog(job.store, t) for t in live}
    size = bench.science["train"]["batch_tokens"]
    steps = block_steps(size)
    blocks = blocks_of(job, live, bench)
    while (position := next_step(job, live)) is not None:
        start = position // steps * steps
        block = blocks.get(start)
        for trunk in live:
            if trunk.position < start + steps:  # else it is ahead of the others, after a kill: none of this block is its
                before = work_left(trunk, ending[trunk.trunk_id])
                trunk.advance(block, start, start + steps)
                log_block(job, trunk, logs[trunk.trunk_id])
                close_ends(job, trunk, bench)
                job.done += before - work_left(trunk, ending[trunk.trunk_id])
            if trunk.ranks.first:
                locks[trunk.trunk_id].beat()
            job.show(f"{len(live)} trunks, at {(start + steps) * size / 1e6:.2f}M tokens")
        live = [t for t in live if t.live]
        is_due = time.monotonic() - last_saved > job.content["execution"]["checkpoint_s"]
        if job.ranks.totals(is_due)[0]:
            save_all(job, live)
            last_saved = time.monotonic()
    blocks.close()
    save_all(job, live)


def blocks_of(job: Job, live: list[Trunk], bench: Bench) -> Blocks:
    """The blocks of the stream by their first step: on a GPU the next is read while this one trains, up to the last that a trunk
    of any rank needs (all ranks read the same ones, for they may read together)."""
    size = bench.science["train"]["batch_tokens"]
    steps = block_steps(size)
    ends = [s.steps for t in live for s in t.runs.values()]
    last = -job.ranks.least(-max(ends, default=0))[0]

    def read(start: int) -> Tensor:
        return bench.stream.read(start * size, steps * size)

    def after(start: int) -> int | None:
        return start + steps if start + steps < last else None

    return InTurn(read) if bench.device.type == "cpu" else Ahead(read, after, bench.device)


def next_step(job: Job, live: list[Trunk]) -> int | None:
    """First step that a trunk of any rank still has to make; None when none is left, or when some rank was asked to stop."""
    mine = min((t.position for t in live), default=math.inf)
    first, goes_on = job.ranks.least(mine, not job.asked_to_stop())
    done, total = job.ranks.totals(job.done, job.total)
    job.elsewhere = (done - job.done, total - job.total)
    job.stop = job.stop or not goes_on
    return int(first) if goes_on and first < math.inf else None


def work_left(trunk: Trunk, ending: float) -> float:
    """Remaining work in latent-tokens: steps left of the trunk, open branches and branches not forked yet, and the evaluation
    at the end of each run."""
    steps = sum(m.end - m.step for m in trunk.live.values())
    steps += sum(s.steps - s.fork_step for run, s in trunk.runs.items() if run not in trunk.live)
    train = trunk.science["train"]
    return float(steps * train["batch_tokens"] * (STEP_LATENTS + trunk.science["sae"]["n_latents"])) + len(trunk.runs) * ending


def log_block(job: Job, trunk: Trunk, log: MetricsLog) -> None:
    """One metrics row per live member; a member whose numbers are not finite is marked failed and dropped."""
    for name, member in list(trunk.live.items()):
        stats = member.block_stats()
        if stats["n_steps"] == 0:
            continue
        bad = not_finite(stats)
        if bad is None and not trunk.ranks.first:
            continue
        if bad is None:
            log.row(name, member, stats, job.content["execution"]["log_every_tokens"])
            continue
        evidence = f"{bad} is {stats[bad]} at step {member.step} of {member.end} (lr {member.schedule.lr:g})"
        for run_id in [r for r in trunk.runs if r not in trunk.live] if member.is_trunk else [name]:
            if trunk.ranks.first:
                mark_failed(job, run_id, f"diverged: {evidence}")
            trunk.drop(run_id)
        trunk.drop(name)


def close_ends(job: Job, trunk: Trunk, bench: Bench) -> None:
    """Record the branches that reached their end; keep the trunk's end for budgets added later."""
    for run_id in list(trunk.finished):
        finish_run(job, run_id, trunk, bench)
        trunk.drop(run_id)
    if trunk.trunk_ended:
        folder = job.store.trunk_dir(trunk.trunk_id) / "checkpoints"
        member = trunk.live[checkpoint.TRUNK]
        end = checkpoint.Checkpoint(member.step, {checkpoint.TRUNK: member.step},
                                    {checkpoint.TRUNK: member.state()}, {checkpoint.TRUNK: member.seconds}, *member.made_by)
        checkpoint.write(folder, trunk.trunk_id, end, True, trunk.ranks)
        trunk.live.pop(checkpoint.TRUNK)
        if trunk.live:
            checkpoint.write(folder, trunk.trunk_id, trunk.checkpoint(), False, trunk.ranks)
    if not trunk.live and trunk.ranks.first:
        checkpoint.clear_rolling(job.store.trunk_dir(trunk.trunk_id) / "checkpoints")


def save_all(job: Job, trunks: list[Trunk]) -> None:
    for trunk in trunks:
        folder = job.store.trunk_dir(trunk.trunk_id) / "checkpoints"
        checkpoint.write(folder, trunk.trunk_id, trunk.checkpoint(), False, trunk.ranks)
        for run_id in trunk.runs:
            mark(job, run_id, trunk)


def concepts_job(job: Job) -> int:
    """Score the concepts of the dictionaries this job was given."""
    def show(done: float, total: float, note: str) -> None:
        job.done, job.total = done, total
        job.show(note)

    first = job.content["dictionaries"][0]["run_id"]
    if is_synthetic(read_json(job.store.run_dir(first) / record.CONFIG)["science"]):
        by_label = score_features(job.store, job.content, show)
        concepts.write(job.folder / concepts.COSINE, *by_label["cosine"])
        concepts.write(job.folder, *by_label["activity"])
        return DONE
    concepts.write(job.folder, *score_dictionaries(job.store, job.content, job.folder, show))
    return DONE


def probe_job(job: Job) -> int:
    """Measure how fast this device trains the shapes this job was given."""
    job.total = float(len(job.content["shapes"]))
    measured = {}
    for name, science in job.content["shapes"].items():
        execution = job.content["execution"]
        measured[name] = probe(science, execution["kernels"], chosen(execution.get("device", "cpu")))
        job.done += 1
        job.show(name)
    write_json(job.folder / "probe.json", {"device": job.content["device"], "measured": measured, "at": time.time()})
    return DONE


STAGES = {"harvest": harvest_job, "train": train_job, "concepts": concepts_job, "probe": probe_job}

if __name__ == "__main__":
    sys.exit(run_job(sys.argv[1], is_worker=True))
