"""SAELens' trainers on an array in memory, in its environment: JSON lines in, seconds out. Nothing is evaluated or saved."""

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.multi_sae_trainer import MultiSAETrainer
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from benchmarks.grid import Grid

warnings.filterwarnings("ignore")
HOOK = "array"


def batches(x: Tensor, size: int) -> Iterator[Tensor]:
    while True:
        yield from x.split(size)


def sae(grid: Grid, size: int) -> TopKTrainingSAE:
    return TopKTrainingSAE(TopKTrainingSAEConfig(d_in=grid.d_in, d_sae=size, k=grid.k, device="cpu"))


def train(grid: Grid, x: Tensor, lr: float, tokens: int, size: int | None) -> float:
    """Seconds of one call: all sizes in the multi trainer, or one size alone."""
    begun = time.perf_counter()
    config = SAETrainerConfig(total_training_samples=tokens, train_batch_size_samples=grid.batch, device="cpu", lr=lr, lr_end=0.0,
                              lr_decay_steps=tokens // grid.batch // 5)
    if size is None:
        saes = {str(n): sae(grid, n) for n in grid.sizes}
        provider = ({HOOK: batch} for batch in batches(x, grid.batch))
        MultiSAETrainer(config, saes, dict.fromkeys(saes, HOOK), provider).fit()
    else:
        SAETrainer(config, sae(grid, size), batches(x, grid.batch)).fit()
    return time.perf_counter() - begun


def main() -> None:
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    grid, threads = Grid(**json.loads(sys.argv[1])), int(sys.argv[3])
    torch.set_num_threads(threads)
    x = torch.from_numpy(np.load(sys.argv[2], allow_pickle=False))
    train(grid, x, grid.lrs[0], 2 * grid.batch, None)  # warms up
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps({"seconds": train(grid, x, **json.loads(line))}), file=answers, flush=True)


if __name__ == "__main__":
    main()
