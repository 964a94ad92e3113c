"""Two processes beside one with two threads: python -m benchmarks.ranks

Two questions: one SAE whose latents are dealt over two ranks, and a fleet placed over two ranks. The contestants stay in memory
and take turns, so that a busy moment of the machine falls on both; a ratio is that of one round, and the median is told.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.inputs import activations
from benchmarks.train_step import RESULTS, cpu_name, file_name
from saescale.campaign.local import joint_environment
from saescale.sae.model import InputSample
from saescale.sae.ranks import ALONE, Ranks
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable
from saescale.training.parallel import joined

D_IN, BATCH, K, LR = 256, 2048, 32, 1e-4
SHARDED_LATENTS = 65_536
FLEET = (8192, 6144, 6144, 4096, 4096, 4096, 2048, 2048)  # dealt by hand as campaign/placement.py would: longest first
HOMES = (0, 1, 1, 0, 0, 1, 1, 0)
WANTED = 0.8


def made(n_latents: int, x: torch.Tensor, ranks: Ranks) -> Trainable:
    return Trainable.create(SAESpec("topk", D_IN, n_latents, k=K), 0, InputSample.of(x), ranks=ranks)


def contestant(question: str, size: int, ranks: Ranks, x: torch.Tensor) -> list[Trainable]:
    if question == "sharded":
        return [made(SHARDED_LATENTS, x, ranks)]
    return [made(n, x, ALONE) for n, home in zip(FLEET, HOMES, strict=True) if size == 1 or home == ranks.rank]


def work(question: str, size: int) -> None:
    """A process of a contestant: for every line of stdin some steps of its SAEs; the first rank answers with the seconds."""
    torch.set_num_threads(2 if size == 1 else 1)
    x = activations(BATCH, D_IN)
    with joined(size) as ranks:
        members = contestant(question, size, ranks, x)
        while n_steps := ranks.from_first(int(sys.stdin.readline() or 0) if ranks.first else None):
            ranks.totals(0)  # all begin together
            begun = time.perf_counter()
            for _ in range(n_steps):
                for member in members:
                    member.step(x, LR)
            ranks.totals(0)  # and end with the last
            if ranks.first:
                print((time.perf_counter() - begun) / n_steps, flush=True)


class Contestant:
    def __init__(self, question: str, size: int) -> None:
        threads = str(2 if size == 1 else 1)
        joint = joint_environment(size) if size > 1 else {}
        env = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **joint}
        self.processes = [subprocess.Popen([sys.executable, "-m", "benchmarks.ranks", "--work", question, str(size)], text=True,
                                           env=env | {"RANK": str(rank)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                          for rank in range(size)]

    def take(self, steps: int) -> float:
        """Seconds per step."""
        first = self.processes[0]
        first.stdin.write(f"{steps}\n")
        first.stdin.flush()
        return float(first.stdout.readline())

    def close(self) -> None:
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            process.wait()


def measure(question: str, rounds: int, steps: int) -> dict[str, Any]:
    """Seconds per step of one process and of two ranks in every round, and the median of their ratios."""
    one, two = Contestant(question, 1), Contestant(question, 2)
    taken = [(one.take(steps), two.take(steps)) for _ in range(rounds + 1)][1:]  # the first warms up
    one.close()
    two.close()
    ratios = [a / b for a, b in taken]
    return {"one_process_s": [a for a, _ in taken], "two_ranks_s": [b for _, b in taken], "ratio": statistics.median(ratios),
            "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="steps per round and contestant")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(asked.work[0], int(asked.work[1]))
        return
    named = {"sharded": f"one topk SAE of {SHARDED_LATENTS:,} latents, sharded", "fleet": f"a fleet of {len(FLEET)}, placed"}
    found = {question: measure(question, asked.rounds, asked.steps) for question in named}
    lines = ["# Two ranks beside one process with two threads", "",
             f"{cpu_name()}, Python {platform.python_version()}, torch {torch.__version__}; d_in {D_IN}, batch {BATCH}, k {K}. "
             f"Throughput of two gloo ranks with one thread each over that of one process with two threads: median and range of "
             f"{asked.rounds} rounds of {asked.steps} steps, contestants taking turns. Wanted: {WANTED:.0%}.", "",
             "| | one process, s per step | two ranks, s per step | throughput of two ranks | range |", "|---|---|---|---|---|"]
    for question, name in named.items():
        f = found[question]
        lines.append(f"| {name} | {statistics.median(f['one_process_s']):.3f} | {statistics.median(f['two_ranks_s']):.3f} "
                     f"| {f['ratio']:.0%} | {min(f['ratios']):.0%} to {max(f['ratios']):.0%} |")
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    target = Path(RESULTS / file_name("ranks", 2))
    target.with_suffix(".json").write_text(json.dumps({"cpu": cpu_name(), "results": found}, indent=1) + "\n")
    target.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
