"""The 48-run grid on one array in memory, ours beside SAELens' trainers: python -m benchmarks.memory_grid --peers PYTHON

Both sides hold the same array, in the order the training stream has it, and are warm; neither evaluates or saves. Ours: the
fleets that `saescale launch` would make, one process for each worker, trunks shared. Theirs: MultiSAETrainer, once for every
learning rate and horizon with all sizes in it, and SAETrainer once for every run, both fed the array by a data provider. Beside
them `saescale launch` of the same runs from an empty store, with start-up, drawing the activations, held-out evaluation and
saving in its time; its decoders must be those trained in memory, bit for bit.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from benchmarks.grid import Grid
from benchmarks.memory_ours import digest_of
from benchmarks.sweep import ours as launched
from benchmarks.train_step import RESULTS, cpu_name, file_name
from saescale.config import PRECISIONS

SWEEP = """\
question: How long does this grid take on activations in memory?
base: [activations=synthetic, sae=topk, train=small, cluster=local]
set:
  activations.d_in: {grid.d_in}
  activations.mean_l0: 24
  activations.n_tokens: {tokens}
  sae.k: {grid.k}
  train.batch_tokens: {grid.batch}
  train.lr_power: 0.0
  eval.n_tokens: 8192
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
    (folder / "sweeps" / "grid.yaml").write_text(SWEEP.format(
        grid=grid, tokens=max(grid.tokens), workers=workers, sizes=list(grid.sizes), horizons=list(grid.tokens),
        lrs=list(grid.lrs)))


class Process:
    """A warm process of one side: a JSON line in is a task, a JSON line out its answer."""

    def __init__(self, python: str, module: str, arguments: list[str], threads: int) -> None:
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen([python, "-m", module, *arguments], text=True, env=env, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def ask(self, **task: Any) -> None:
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise ValueError(f"{' '.join(self.process.args[:3])} ended early: is this the environment of setup_peers.sh?")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Ours:
    """One process for each worker, each with its fleet; the array is drawn by the first and left in `folder` for all."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.processes = [Process(sys.executable, "benchmarks.memory_ours", [str(folder), str(rank)], 1)
                          for rank in range(workers)]
        self.about = [process.answer() for process in self.processes]

    def take(self, precision: str) -> dict[str, Any]:
        """Seconds until the last is done, and the digest of each trained decoder by run."""
        begun = time.perf_counter()
        for process in self.processes:
            process.ask(precision=precision)
        answers = [process.answer() for process in self.processes]
        seconds = time.perf_counter() - begun
        return {"precision": precision, "seconds": seconds, "decoders": {k: v for a in answers for k, v in a.items()}}

    def close(self) -> None:
        for process in self.processes:
            process.close()


def decoders(store: Path) -> dict[str, str]:
    """The digest of each exported decoder, by run."""
    return {p.parent.name: digest_of(load_file(p)["W_dec"]) for p in store.glob("by-id/*/sae_weights.safetensors")}


def measure(grid: Grid, python: str | None, threads: int, folder: Path) -> dict[str, Any]:
    write_sweep(grid, folder, threads)
    found: dict[str, Any] = {"ours": [], "launched": [], "multi": [], "single": []}
    ours = Ours(folder, threads)
    calls = [(lr, tokens) for lr in grid.lrs for tokens in grid.tokens]
    middle = len(calls) // 2
    peer = None
    if python is not None:
        peer = Process(python, "benchmarks.memory_peer", [json.dumps(asdict(grid)), str(folder / "x.npy"), str(threads)], threads)
        peer.answer()
    ours.take("float32")  # warms up
    for i, (lr, tokens) in enumerate(calls):
        if i in (0, middle):
            take_ours(ours, found)
        for size in (None, *grid.sizes) if peer else ():
            peer.ask(lr=lr, tokens=tokens, size=size)
            found["multi" if size is None else "single"].append({"lr": lr, "tokens": tokens, "size": size, **peer.answer()})
            print(f"  {found['multi' if size is None else 'single'][-1]}", file=sys.stderr, flush=True)
    take_ours(ours, found)
    for process in (ours, *([peer] if peer else [])):
        process.close()
    for precision in PRECISIONS:
        found["launched"].append(launched(folder, f"store-{precision}", precision))
        same = decoders(folder / f"store-{precision}")
        made = [one.pop("decoders") for one in found["ours"] if one["precision"] == precision]
        found["launched"][-1]["same_decoders"] = all(one == same for one in made)
    return found


def take_ours(ours: Ours, found: dict[str, Any]) -> None:
    for precision in PRECISIONS:
        found["ours"].append(ours.take(precision))
        print(f"  ours, {precision}: {found['ours'][-1]['seconds']:.1f} s", file=sys.stderr, flush=True)


def table(grid: Grid, found: dict[str, Any], threads: int) -> str:
    rounds = {p: [one["seconds"] for one in found["ours"] if one["precision"] == p] for p in PRECISIONS}
    base = [statistics.median(taken) for taken in rounds.values()]
    seconds = {f"saescale in memory, {p}": s for p, s in zip(rounds, base, strict=True)}
    seconds |= {f"saescale launch, {one['precision']}, everything in it": one["seconds"] for one in found["launched"]}
    names = {"multi": "SAELens 6.54 in memory, MultiSAETrainer, {} calls",
             "single": "SAELens 6.54 in memory, one by one, {} calls"}
    seconds |= {name.format(len(found[key])): sum(c["seconds"] for c in found[key]) for key, name in names.items() if found[key]}
    lines = [f"{grid.n_runs} runs: {min(grid.sizes)} to {max(grid.sizes)} latents, {min(grid.tokens):,} to {max(grid.tokens):,} "
             f"tokens, {len(grid.lrs)} learning rates; topk, k {grid.k}, d_in {grid.d_in}, batch {grid.batch}, {threads} cores.",
             "", f"| | s | over ours, {' | over ours, '.join(PRECISIONS)} |", "|---|---|---|---|"]
    lines += [f"| {name} | {s:.1f} | {' | '.join(f'{s / own:.1f} x' for own in base)} |" for name, s in seconds.items()]
    said = "; ".join(f"{p} {', '.join(f'{s:.1f}' for s in taken)} s" for p, taken in rounds.items())
    same = "the same" if all(one["same_decoders"] for one in found["launched"]) else "NOT the same"
    return "\n".join([*lines, "", f"Each round of ours in memory: {said}; medians count. The decoders of the launch are {same}, "
                                  "bit for bit, as those trained in memory."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="Python of the environment made by benchmarks/setup_peers.sh; without it ours alone")
    parser.add_argument("--threads", type=int, default=2, help="cores for each side")
    parser.add_argument("--sizes", default="128,256,512,1024,2048,4096")
    parser.add_argument("--tokens", default="8192,16384,32768,65536")
    asked = parser.parse_args()
    numbers = {key: tuple(int(n) for n in getattr(asked, key).split(",")) for key in ("sizes", "tokens")}
    grid = Grid(**numbers, k=32, batch=2048, d_in=512)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(grid, asked.peers, asked.threads, Path(folder))
    said = table(grid, found, asked.threads)
    print(said)
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / file_name("memory_grid", asked.threads)
    target.with_suffix(".json").write_text(json.dumps({"cpu": cpu_name(), "grid": asdict(grid), **found}, indent=1) + "\n")
    target.with_suffix(".md").write_text(f"# A 48-run grid on the same activations in memory\n\n{cpu_name()}.\n\n{said}\n")


if __name__ == "__main__":
    main()
