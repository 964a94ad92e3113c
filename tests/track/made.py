"""A store made by hand: the plan and the runs of the sweep `tiny`, as training leaves them, without training."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saescale import identity
from saescale.records import record
from saescale.records.store import Store, write_json, write_text

SCIENCE = {
    "data": {"activation_dtype": "bfloat16", "batch_sequences": 8, "corpus": "text_files", "corpus_sha256": "ab" * 32,
             "data_seed": 0, "held_out_fraction": 0.2, "max_train_tokens": None, "n_ctx": 64, "tokenizer_sha256": "cd" * 32},
    "eval": {"ce_tokens": 512, "n_tokens": 2048},
    "lm": {"d_in": 128, "dtype": "float32", "hook_name": "blocks.2.hook_resid_post", "revision": "ef" * 32},
    "sae": {"aux_coeff": 0.03125, "bandwidth": None, "k": 4, "k_aux": 8, "kind": "topk", "n_latents": 16,
            "sparsity_coeff": None, "target_l0": None},
    "train": {"batch_tokens": 256, "beta1": 0.9, "beta2": 0.999, "dead_after_tokens": 800, "eps": 1e-08, "grad_clip": 1,
              "lr": 0.01, "lr_decay_fraction": 0.2, "lr_warmup_tokens": 512, "n_tokens": 25600, "precision": "float32", "seed": 0,
              "sparsity_warmup_tokens": 0}}


def metric_row(step: int, **more: Any) -> dict[str, Any]:
    tokens = 256 * step
    return {"step": step, "tokens": tokens, "lr": 0.01, "flops_dense": 12 * 128 * 16 * tokens, "loss": 90.0 / step, "l0": 4.0,
            "n_dead": 0, **more}


@dataclass
class Made:
    """Runs of `tiny`, one per seed."""

    store: Store
    runs: dict[int, dict[str, Any]]

    def run_dir(self, seed: int) -> Path:
        return self.store.run_dir(self.runs[seed]["run_id"])

    def wandb_id(self, seed: int) -> str:
        return f"tiny-{self.runs[seed]['run_id']}"

    def log(self, seed: int, rows: list[dict[str, Any]], torn: str = "") -> None:
        write_text(self.run_dir(seed) / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in rows) + torn)

    def log_trunk(self, seed: int, rows: list[dict[str, Any]]) -> None:
        folder = self.store.trunk_dir(self.runs[seed]["trunk_id"])
        write_text(folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in rows))

    def finish(self, seed: int, **metrics: Any) -> None:
        run, folder = self.runs[seed], self.run_dir(seed)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / record.FIRST_FIRED).open("wb") as f:
            np.save(f, np.array([0, 5, -1, 7] * 4), allow_pickle=False)
        record.write_result(folder, {
            "schema": 1, "run_id": run["run_id"], "trunk_id": run["trunk_id"], "science": run["science"],
            "fingerprint": identity.fingerprint(run["science"]), "n_tokens": 25600, "steps": 100, "wall_s": 2.0,
            "metrics": {"fvu": 0.25, "objective": 0.25, "l0": 4.0, "ce_recovered": None, "n_held_out_tokens": 2048} | metrics,
            "flops": {"flops_dense": run["flops_dense"], "flops_lm": None}, "environment": {"torch": "2"}})

    def fail(self, seed: int, reason: str) -> None:
        write_json(self.run_dir(seed) / "status.json", {"state": "failed", "reason": reason, "heartbeat": time.time()})


def make(root: Path, seeds: int = 2) -> Made:
    runs = {}
    for seed in range(seeds):
        science = identity.canonical({**SCIENCE, "train": {**SCIENCE["train"], "seed": seed}})
        run_id, trunk_id = identity.names(science)
        runs[seed] = {"run_id": run_id, "trunk_id": trunk_id, "grids": ["isoflop"], "target_flops": 6.3e8,
                      "flops_dense": 12 * 128 * 16 * 25600, "steps": 100, "tokens_per_s": None, "science": science}
    store = Store(root)
    write_json(store.sweep_dir("tiny") / "plan.json",
               {"schema": 1, "sweep": "tiny", "question": "How small?", "runs": list(runs.values())})
    return Made(store, runs)
