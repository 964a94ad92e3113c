"""A 48-run grid, ours beside SAELens' runners: python -m benchmarks.sweep --peers ENVIRONMENT/bin/python

Ours is `saescale launch` from an empty store: the launcher and its workers start, read and tokenise the text, harvest, train,
evaluate and record. SAELens runs in one warm process from tokens that are ready, without evaluating or saving: its multi-SAE
runner once for every learning rate and horizon with all sizes in it, and its single runner once for every run. Ours is repeated
before, between and after.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.grid import Grid
from benchmarks.train_step import RESULTS, cpu_name, file_name
from saescale.config import PRECISIONS

SWEEP = """\
question: How long does this grid take?
base: [lm=bundled, data=python_stdlib, sae=topk, train=small, cluster=local]
set:
  lm.hook_name: blocks.{grid.layer}.hook_resid_post
  sae.k: {grid.k}
  data.n_ctx: {grid.n_ctx}
  data.batch_sequences: {grid.batch_sequences}
  data.max_train_tokens: {tokens}
  train.batch_tokens: {grid.batch}
  train.lr_power: 0.0
  eval.n_tokens: 8192
  eval.ce_tokens: 4096
  budget.min_steps: 1
  budget.min_warmups: 0
  cluster.workers: {workers}
grids:
  grid:
    sae.n_latents: {sizes}
    train.n_tokens: {horizons}
    train.lr: {lrs}
"""


def write_sweep(grid: Grid, folder: Path, workers: int) -> None:
    (folder / "sweeps").mkdir()
    tokens = max(grid.tokens) + 2 * grid.batch_sequences * grid.n_ctx
    (folder / "sweeps" / "grid.yaml").write_text(SWEEP.format(
        grid=grid, tokens=tokens, workers=workers, sizes=list(grid.sizes), horizons=list(grid.tokens), lrs=list(grid.lrs)))


def ours(folder: Path, store: str, precision: str) -> dict[str, Any]:
    """Seconds of one launch from nothing and the largest resident set of its processes."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]),
                                "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "saescale.cli", "launch", "grid", f"train.precision={precision}",
                           "--store", store, "--json"], cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise ValueError(f"our launch ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"precision": precision, "seconds": seconds, "peak_bytes": peak}


def full_sequences(store: Path, target: Path) -> None:
    """Our corpus for SAELens: [sequence, n_ctx], the full ones, as its runners want them."""
    corpus = next((store / "corpora").iterdir())
    rows, lengths = (np.load(corpus / f"train-{part}.npy", allow_pickle=False) for part in ("sequences", "lengths"))
    np.save(target, rows[lengths == rows.shape[1]].astype(np.int64))


class Peer:
    """SAELens in its environment, warm."""

    def __init__(self, python: str, grid: Grid, tokens: Path, threads: int) -> None:
        lm = Path(__file__).resolve().parents[1] / "saescale" / "bundled_lm" / "weights"
        self.process = subprocess.Popen([python, "-m", "benchmarks.sweep_peer", json.dumps(asdict(grid)), str(lm), str(threads),
                                         str(tokens)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL)
        self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise ValueError(f"{self.process.args[0]} cannot run the grid: is this the environment of setup_peers.sh?")
        return json.loads(line)

    def take(self, lr: float, tokens: int, size: int | None) -> float:
        self.process.stdin.write(json.dumps({"lr": lr, "tokens": tokens, "size": size}) + "\n")
        self.process.stdin.flush()
        return self._answer()["seconds"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(grid: Grid, python: str | None, threads: int, folder: Path) -> dict[str, Any]:
    write_sweep(grid, folder, threads)
    found: dict[str, Any] = {"ours": [], "multi": [], "single": []}
    launch_ours(folder, found["ours"])
    if python is None:
        return found
    full_sequences(folder / "store-0", folder / "tokens.npy")
    peer = Peer(python, grid, folder / "tokens.npy", threads)
    calls = [(lr, tokens) for lr in grid.lrs for tokens in grid.tokens]
    for i, (lr, tokens) in enumerate(calls):
        found["multi"].append({"lr": lr, "tokens": tokens, "seconds": peer.take(lr, tokens, None)})
        for size in grid.sizes:
            found["single"].append({"lr": lr, "tokens": tokens, "size": size, "seconds": peer.take(lr, tokens, size)})
        print(f"  {i + 1} of {len(calls)} calls: multi {found['multi'][-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
        if i in (len(calls) // 2 - 1, len(calls) - 1):
            launch_ours(folder, found["ours"])
    peer.close()
    return found


def launch_ours(folder: Path, done: list[dict[str, Any]]) -> None:
    for precision in PRECISIONS:
        done.append(ours(folder, f"store-{len(done)}", precision))
        print(f"  ours, {precision}: {done[-1]['seconds']:.1f} s", file=sys.stderr, flush=True)


def table(grid: Grid, found: dict[str, Any], threads: int) -> str:
    rounds = {p: [one["seconds"] for one in found["ours"] if one["precision"] == p] for p in PRECISIONS}
    seconds = {f"saescale launch, {p}": statistics.median(taken) for p, taken in rounds.items()}
    names = {"multi": "SAELens 6.54, multi-SAE runner, {} calls", "single": "SAELens 6.54, one by one, {} calls"}
    seconds |= {name.format(len(found[key])): sum(c["seconds"] for c in found[key]) for key, name in names.items() if found[key]}
    base = [statistics.median(taken) for taken in rounds.values()]
    lines = [f"{grid.n_runs} runs: {min(grid.sizes)} to {max(grid.sizes)} latents, {min(grid.tokens):,} to {max(grid.tokens):,} "
             f"tokens, {len(grid.lrs)} learning rates; topk, k {grid.k}, d_in {grid.d_in}, batch {grid.batch}, {threads} cores.",
             "", f"| | s | over ours, {' | over ours, '.join(PRECISIONS)} |", "|---|---|---|---|"]
    lines += [f"| {name} | {s:.0f} | {' | '.join(f'{s / own:.1f} x' for own in base)} |" for name, s in seconds.items()]
    said = "; ".join(f"{p} {', '.join(f'{s:.0f}' for s in taken)} s" for p, taken in rounds.items())
    peak = max(one["peak_bytes"] for one in found["ours"]) / 1e9
    return "\n".join([*lines, "", f"Each launch of ours: {said}; medians count. Largest of their processes: {peak:.2f} GB."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="Python of the environment made by benchmarks/setup_peers.sh; without it ours alone")
    parser.add_argument("--threads", type=int, default=2, help="cores for each side")
    parser.add_argument("--sizes", default="128,256,512,1024,2048,4096")
    parser.add_argument("--tokens", default="65536,131072,262144,524288")
    asked = parser.parse_args()
    numbers = {key: tuple(int(n) for n in getattr(asked, key).split(",")) for key in ("sizes", "tokens")}
    grid = Grid(**numbers)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(grid, asked.peers, asked.threads, Path(folder))
    said = table(grid, found, asked.threads)
    print(said)
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / file_name("sweep", asked.threads)
    target.with_suffix(".json").write_text(json.dumps({"cpu": cpu_name(), "grid": asdict(grid), **found}, indent=1) + "\n")
    target.with_suffix(".md").write_text(f"# A 48-run grid\n\n{cpu_name()}.\n\n{said}\n")


if __name__ == "__main__":
    main()
