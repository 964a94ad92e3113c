"""A project folder on the test cluster: its sweep of sixty runs, the command line as a user types it, and what runs leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import one_host

from saescale.records.store import Store

REPOSITORY = Path(__file__).resolve().parents[2]
SIXTY = """\
question: Does every run of a cluster come home?
base: [activations=synthetic, sae=topk, train=small, cluster=slurm]
set:
  activations.d_in: 16
  activations.n_features: 64
  activations.n_tokens: 262_144
  sae.k: 4
  train.batch_tokens: 128
  train.lr_warmup_tokens: 512
  eval.n_tokens: 4096
  budget.min_steps: 10
  cluster.workers: 8
  cluster.checkpoint_s: 0
  cluster.job.memory: 2G
  cluster.job.time: 10m
  cluster.job.gpus: 1
  cluster.job.partition: scavenge
  cluster.rules:
    - {when: n_latents >= 48, gpus: 2, memory: 3G}
    - {when: n_latents <= 16, gpus: 0, time: 5m}
grids:
  grid:
    sae.n_latents: [16, 24, 32, 48, 64]
    train.n_tokens: [65_536, 131_072, 262_144]
    seed: [0, 1, 2, 3]
"""
SLOWED = """\
import os
import sys
import time

if "saescale.training.train" in sys.orig_argv and os.environ.get("TEST_BLOCK_S"):
    from saescale.training.fleet import Trunk

    advance = Trunk.advance

    def slowly(*arguments):
        time.sleep(float(os.environ["TEST_BLOCK_S"]))
        return advance(*arguments)

    Trunk.advance = slowly
"""


@dataclass
class Lab:
    """A project folder with sweeps, a store, and the command line run in it as a user would."""

    root: Path
    store_root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return Store(self.store_root)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **self.environment, **environment}
        command = [sys.executable, "-m", "saescale.cli", *arguments, "--store", str(self.store_root)]
        return subprocess.Popen(command, cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=180)
        assert "Traceback" not in out + err, err
        return process.returncode, out + err

    def states(self, sweep: str, *overrides: str) -> dict[str, dict[str, str]]:
        return json.loads(self.run("status", sweep, *overrides, "--json")[1])

    def settle(self, seconds: float = 420) -> None:
        """Wait until nothing of this user is queued or running, but for what Slurm holds and what depends on that."""
        def settled() -> bool:
            rows = [r.split("|") for r in one_host.said("squeue", "-hr", "-o", "%T|%r").splitlines()]
            held = [r for r in rows if "held" in r[1]]
            return not rows or bool(held) and all(r in held or r[1] == "Dependency" for r in rows)

        one_host.wait_for("an empty queue", settled, seconds)

    def processes(self) -> list[int]:
        """Workers that train for this store and the tasks that watch them, by their command lines."""
        mine, found = str(self.store_root).encode(), []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if (b"saescale.training.train" in words or b"submitit.core._submit" in words) and mine in b" ".join(words) \
                    and b"srun" not in words[0]:
                found.append(int(path.parent.name))
        return found

    def ranks(self) -> dict[tuple[str, int], int]:
        """('worker' or 'task', rank) -> its process, of a job with a task per rank."""
        found = {}
        for pid in self.processes():
            try:
                words = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            said = dict(w.split(b"=", 1) for w in words if b"=" in w)
            kind = ("worker", b"RANK") if b"SAESCALE_PARENT" in said else ("task", b"SLURM_PROCID")
            found[kind[0], int(said.get(kind[1], b"0"))] = pid
        return found


def slowed(folder: Path, block_s: float) -> dict[str, str]:
    """Environment in which every block of training takes `block_s` longer: a fault finds something to hit on any machine."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SLOWED)
    return {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}".rstrip(":"), "TEST_BLOCK_S": str(block_s)}


def shim(folder: Path, name: str, script: str) -> dict[str, str]:
    """Environment in which a command of the scheduler is a script of the test."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def queued(state: str = "all") -> list[str]:
    """Elements in the queue, as <array>_<task>."""
    states = "PENDING,RUNNING,SUSPENDED,COMPLETING,CONFIGURING,REQUEUED" if state == "all" else state
    rows = one_host.said("squeue", "-hr", f"--states={states}", "-o", "%F|%K|%A").split()
    return [f"{a}_{k}" if k.isdigit() else j for a, k, j in (r.split("|") for r in rows)]


def left_by(store: Store) -> dict[str, dict[str, object]]:
    """What every run left, without what tells the time."""
    found = {}
    for folder in sorted(store.root.glob("by-id/*")):
        result = json.loads((folder / "result.json").read_text())
        files = ("sae_weights.safetensors", "cfg.json", "first_fired.npy", "metrics.jsonl")
        found[folder.name] = {**{f: (folder / f).read_bytes() for f in files},
                              **{k: result[k] for k in ("metrics", "science", "fingerprint", "steps", "n_tokens")}}
    return found
