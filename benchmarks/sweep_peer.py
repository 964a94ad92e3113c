"""SAELens' own runners on the runs of a Grid, in its environment: JSON lines in, seconds out.

Everything they allow to be left out is left out of their time: imports, the tokenising of the text, evaluation, saving, wandb.
"""

import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sae_lens import (
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    LoggingConfig,
    MultiSAETrainingRunner,
    MultiSAETrainingRunnerConfig,
    TopKTrainingSAEConfig,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.grid import Grid

warnings.filterwarnings("ignore")


def sequences(path: str) -> Dataset:
    """The token sequences of our corpus that are full: theirs must all have one length."""
    return Dataset.from_dict({"tokens": np.load(path, allow_pickle=False)}).with_format("torch")


def shared(grid: Grid, lm: str, lr: float, tokens: int) -> dict[str, Any]:
    return {"model_name": lm, "model_class_name": "AutoModelForCausalLM", "dataset_path": "", "streaming": False,
            "context_size": grid.n_ctx, "n_batches_in_buffer": 8, "training_tokens": tokens, "prepend_bos": False,
            "store_batch_size_prompts": grid.batch_sequences, "train_batch_size_tokens": grid.batch, "lr": lr,
            "lr_decay_steps": tokens // grid.batch // 5, "device": "cpu", "checkpoint_path": None, "output_path": None,
            "logger": LoggingConfig(log_to_wandb=False)}


def sae(grid: Grid, size: int) -> TopKTrainingSAEConfig:
    return TopKTrainingSAEConfig(d_in=grid.d_in, d_sae=size, k=grid.k, device="cpu")


def train(grid: Grid, lm: str, dataset: Dataset, lr: float, tokens: int, size: int | None) -> float:
    """Seconds of one call: all sizes in the multi runner, or one size alone."""
    settings, hook = shared(grid, lm, lr, tokens), f"model.layers.{grid.layer}"
    begun = time.perf_counter()
    if size is None:
        config = MultiSAETrainingRunnerConfig(saes={str(n): sae(grid, n) for n in grid.sizes}, hook_names=hook, **settings)
        MultiSAETrainingRunner(config, override_dataset=dataset).run()
    else:
        config = LanguageModelSAERunnerConfig(sae=sae(grid, size), hook_name=hook, **settings)
        LanguageModelSAETrainingRunner(config, override_dataset=dataset).run()
    return time.perf_counter() - begun


def main() -> None:
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    grid, lm, threads = Grid(**json.loads(sys.argv[1])), sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(threads)
    AutoModelForCausalLM.from_pretrained(lm), AutoTokenizer.from_pretrained(lm)
    dataset = sequences(sys.argv[4])
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(Path(folder))
        print(json.dumps({"ready": True}), file=answers, flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            print(json.dumps({"seconds": train(grid, lm, dataset, **asked)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
