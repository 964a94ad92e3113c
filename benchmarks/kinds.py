"""One training step of every kind of SAE at the same shape and l0: python -m benchmarks.kinds

Each kind is trained for some steps first, and one whose penalty is solved for the l0 until it has been there for a while, so that
what is timed is the sparsity of a trained SAE and not that of its start. Then the kinds take turns: the time of one is the median
over rounds of its best step.
"""

import argparse
import json
import re
import statistics
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.inputs import activations
from benchmarks.train_step import RESULTS, cpu_name
from saescale.flops import flops_dense, flops_executed
from saescale.kinds import KINDS, KindFacts
from saescale.sae.entries import SPARSE_BELOW
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

BATCHES, LR, REST = 16, 3e-3, 1e-9
FIRST_COEFF = 0.5
NEAR, FOR_STEPS, MOST_TIMES = 0.05, 50, 5  # matched: so near to the l0 on average over these steps; given up at times train_steps


@dataclass(frozen=True)
class Shape:
    d_in: int
    n_latents: int
    l0: int
    batch: int
    train_steps: int


def knobs(facts: KindFacts, shape: Shape) -> dict[str, float]:
    made: dict[str, float] = {"k": shape.l0} if facts.keeps_k else {"sparsity_coeff": FIRST_COEFF, "target_l0": shape.l0}
    return made | ({"bandwidth": 0.5} if facts.bandwidth_by_norm else {})  # 1e-3 is for trainings of 10^5 steps


def trained(kind: str, shape: Shape, x: Tensor) -> Trainable:
    spec = SAESpec(kind, shape.d_in, shape.n_latents, **knobs(KINDS[kind], shape))
    trainable = Trainable.create(spec, 0, InputSample.of(x))
    last: deque[float] = deque(maxlen=FOR_STEPS)
    for i in range(MOST_TIMES * shape.train_steps):
        trainable.step(batch(x, i, shape), LR, min(1.0, 4 * (i + 1) / shape.train_steps))
        last.append(float(trainable.memory.last_l0))
        if i + 1 >= shape.train_steps and abs(statistics.mean(last) / shape.l0 - 1) < NEAR:
            break
    print(f"  {kind}: {i + 1} steps, l0 {statistics.mean(last):.1f}", file=sys.stderr, flush=True)
    return trainable


def batch(x: Tensor, i: int, shape: Shape) -> Tensor:
    return x[i % BATCHES * shape.batch:][:shape.batch]


def pairs_per_token(trainable: Trainable) -> float:
    """What a step works on: the pairs that were touched, or all in a dense step."""
    touched, n_latents = float(trainable.memory.last_touched), trainable.spec.n_latents
    dense = not KINDS[trainable.spec.kind].keeps_k and touched >= SPARSE_BELOW * n_latents
    return n_latents if dense else touched


def measure(shape: Shape, rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """By kind: seconds of a step, tokens/s, l0, and the FLOPs it executes over the dense 12 d_in n_latents."""
    x = activations(BATCHES * shape.batch, shape.d_in)
    members = {kind: trained(kind, shape, x) for kind in KINDS}
    best: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind, member in members.items():
            times = []
            for i in range(steps):
                part, begun = batch(x, i, shape), time.perf_counter()
                member.step(part, REST)
                times.append(time.perf_counter() - begun)
            best[kind].append(min(times))
    found = {}
    for kind, member in members.items():
        seconds = statistics.median(best[kind])
        executed = flops_executed(kind, shape.d_in, shape.n_latents, 1, pairs_per_token(member))
        found[kind] = {"seconds": seconds, "tokens_per_s": shape.batch / seconds, "l0": float(member.memory.last_l0),
                       "pairs_per_token": pairs_per_token(member),
                       "executed_over_dense": executed / flops_dense(shape.d_in, shape.n_latents, 1)}
    return found


def table(shape: Shape, found: dict[str, dict[str, float]], threads: int) -> str:
    lines = [f"# Kinds of SAE: d_in {shape.d_in}, {shape.n_latents} latents, batch {shape.batch}, fp32, {threads} threads", "",
             f"{cpu_name()}, after at least {shape.train_steps} steps towards l0 {shape.l0}, kinds taking turns.", "",
             "| kind | tokens/s | topk is faster by | l0 | pairs per token | executed / dense FLOPs |",
             "|---|---|---|---|---|---|"]
    for kind, n in sorted(found.items(), key=lambda item: item[1]["seconds"]):
        lines.append(f"| {kind} | {n['tokens_per_s']:,.0f} | {n['seconds'] / found['topk']['seconds']:.2f} x | {n['l0']:.1f} "
                     f"| {n['pairs_per_token']:,.0f} | {n['executed_over_dense']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("d_in", 256), ("n_latents", 4096), ("l0", 32), ("batch", 512), ("train_steps", 300)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps per round and kind")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--into", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    shape = Shape(asked.d_in, asked.n_latents, asked.l0, asked.batch, asked.train_steps)
    found = measure(shape, asked.rounds, asked.steps)
    print(table(shape, found, asked.threads))
    asked.into.mkdir(exist_ok=True, parents=True)
    target = asked.into / f"kinds-{re.sub('[^a-z0-9]+', '-', cpu_name().lower()).strip('-')}-{asked.threads}t"
    target.with_suffix(".json").write_text(json.dumps({"cpu": cpu_name(), "shape": vars(shape), "kinds": found}, indent=1) + "\n")
    target.with_suffix(".md").write_text(table(shape, found, asked.threads) + "\n")


if __name__ == "__main__":
    main()
