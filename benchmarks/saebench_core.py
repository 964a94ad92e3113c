"""SAEBench's core evaluation of an SAE on disk: PEERS/bin/python benchmarks/saebench_core.py SAE LM TOKENS

Runs in the peers' environment (benchmarks/setup_peers.sh), by itself: nothing of saescale is imported. SAE: a finished run's
folder, or any folder SAELens loads; LM: a Hugging Face folder; TOKENS: token ids [sequence, n_ctx], `held_out-sequences.npy` of a
store's corpus (padded rows are left out) or `tokens` of a .safetensors file. Prints SAEBench's metrics as JSON. The first token
of a row (BOS) is neither reconstructed nor counted.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from sae_bench.evals.core.eval_config import CoreEvalConfig
from sae_bench.evals.core.main import run_evals
from sae_bench.sae_bench_utils.general_utils import load_and_format_sae
from sae_lens import SAE
from safetensors.torch import load_file
from transformer_lens.model_bridge import TransformerBridge


class Rows:
    """Stands where SAELens' activation store does: the same rows of tokens in the same order, from the first after each reset."""

    def __init__(self, tokens: torch.Tensor, at_once: int) -> None:
        self.tokens, self.store_batch_size_prompts, self.context_size = tokens, at_once, tokens.shape[1]
        self.reset_input_dataset()

    def reset_input_dataset(self) -> None:
        self.left = iter(self.tokens.split(self.store_batch_size_prompts))

    def get_batch_tokens(self, _n: int) -> torch.Tensor:
        return next(self.left)


def core(sae_folder: str, lm_folder: str, tokens: torch.Tensor, at_once: int, device: str = "cpu") -> dict:
    """SAEBench's core metrics by group. Sequences beyond the last whole batch of `at_once` are left out."""
    tokens = tokens[:len(tokens) // at_once * at_once].long().to(device)
    _, sae, _ = load_and_format_sae("saescale", SAE.load_from_disk(sae_folder, device=device), device)
    lm = TransformerBridge.boot_transformers(lm_folder, dtype=torch.float32, device=device).eval()
    n_batches = len(tokens) // at_once
    everything = CoreEvalConfig(
        batch_size_prompts=at_once, n_eval_reconstruction_batches=n_batches, n_eval_sparsity_variance_batches=n_batches,
        context_size=tokens.shape[1], exclude_special_tokens_from_reconstruction=True, compute_kl=True, compute_ce_loss=True,
        compute_l2_norms=True, compute_sparsity_metrics=True, compute_variance_metrics=True)
    first = set(tokens[:, 0].unique().tolist())
    metrics, _ = run_evals(sae, Rows(tokens, at_once), lm, everything, ignore_tokens=first)
    return metrics


def rows(path: Path) -> torch.Tensor:
    if path.suffix == ".safetensors":
        return load_file(path)["tokens"]
    found, lengths = np.load(path), path.with_name(path.name.replace("-sequences", "-lengths"))
    return torch.from_numpy(found if lengths == path else found[np.load(lengths) == found.shape[1]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("sae", "lm", "tokens"):
        parser.add_argument(name)
    parser.add_argument("--at-once", type=int, default=16, help="sequences of one forward")
    parser.add_argument("--rows", type=int, default=1024, help="at most so many sequences")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    tokens = rows(Path(asked.tokens))[:asked.rows]
    print(json.dumps(core(asked.sae, asked.lm, tokens, asked.at_once, asked.device), indent=1))


if __name__ == "__main__":
    main()
