"""Holds the contestants of one environment in memory and times one when told to: JSON lines in, JSON lines out."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor

from benchmarks.inputs import activations
from benchmarks.shape import Shape

BATCHES = 8


def make(side: str, shape: Shape, x: Tensor) -> dict[str, Callable[[Tensor], object]]:
    if side == "ours":
        from benchmarks.ours import contestants
        return contestants(shape, x)
    from benchmarks.peers import PEERS
    made = {name: maker(shape) for name, maker in PEERS.items()}
    return {name: step for name, step in made.items() if step is not None}


def main() -> None:
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr  # what libraries print must not mix with the answers
    side, shape = sys.argv[1], Shape(**json.loads(sys.argv[2]))
    torch.set_num_threads(shape.threads)
    x = activations(BATCHES * shape.batch, shape.d_in)
    steps = make(side, shape, x)
    print(json.dumps({"contestants": list(steps), "torch": torch.__version__, "shape": asdict(shape)}), file=answers, flush=True)
    taken = 0
    for line in sys.stdin:
        asked = json.loads(line)
        seconds = []
        for _ in range(asked["steps"]):
            batch = x[taken % BATCHES * shape.batch:][:shape.batch]
            begun = time.perf_counter()
            said = steps[asked["contestant"]](batch)
            seconds.append(time.perf_counter() - begun)
            taken += 1
        l0 = said if isinstance(said, float) else None
        print(json.dumps({"seconds": seconds, "l0": l0}), file=answers, flush=True)


if __name__ == "__main__":
    main()
