"""Runs in the peers' environment: `peer_side.py JOB.json`. What SAELens and sparsify make of our SAEs, and SAEs of theirs for us.

job: {"saes": {name: folder}, "x": file, "out": folder, "run": folder of a run, "lm": model folder, "tokens": file,
      "repo": on the hub}
"""

import json
import sys
from pathlib import Path

import torch
from sae_lens import SAE
from sae_lens.evals import get_recons_loss, get_sparsity_and_variance_metrics
from sae_lens.load_model import load_model
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from sae_lens.training.activation_scaler import ActivationScaler
from safetensors.torch import load_file, save_file
from sparsify import SparseCoder, SparseCoderConfig

job = json.loads(Path(sys.argv[1]).read_text())
out, x = Path(job["out"]), load_file(job["x"])["x"]


@torch.no_grad()
def reconstructions():
    """Each of our SAEs through SAELens' own loading and forward pass."""
    found = {}
    for name, folder in job["saes"].items():
        sae = SAE.load_from_disk(folder)
        found[name] = sae.decode(sae.encode(x)).contiguous()
    save_file(found, out / "reconstructions.safetensors")


@torch.no_grad()
def trained_there():
    """An SAE of SAELens and one of sparsify with random weights, saved by their own code, and what they reconstruct."""
    torch.manual_seed(0)
    theirs = TopKSAE(TopKSAEConfig(d_in=x.shape[1], d_sae=48, k=5, apply_b_dec_to_input=True))
    coder = SparseCoder(x.shape[1], SparseCoderConfig(num_latents=48, k=5))
    for module in (theirs, coder):
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / 4)
    theirs.save_model(str(out / "saelens"))
    coder.save_to_disk(out / "sparsify")
    acts, indices, _ = coder.encode(x)
    save_file({"saelens": theirs.decode(theirs.encode(x)).contiguous(), "sparsify": coder.decode(acts, indices).contiguous()},
              out / "theirs.safetensors")


def from_the_hub():
    """The weights of a run that was pushed, as SAELens loads it by repository and name."""
    sae = SAE.from_pretrained(job["repo"], Path(job["run"]).name)
    save_file({name: tensor.contiguous() for name, tensor in sae.state_dict().items()}, out / "pushed.safetensors")


class Batches:
    """Stands where SAELens' activation store does: gives one batch of token ids after another."""

    def __init__(self, batches):
        self.batches = iter(batches)

    def get_batch_tokens(self, _n):
        return next(self.batches)


@torch.no_grad()
def evaluator():
    """SAELens' evaluator on our run, its model and tokens [sequence, n_ctx]; the first token of a sequence is left out."""
    tokens, hook = load_file(job["tokens"])["tokens"], job["hook"]
    lm = load_model("AutoModelForCausalLM", job["lm"], device="cpu", hook_names=[hook])
    sae = SAE.load_from_disk(job["run"])
    sae.cfg.metadata.hook_name = hook
    ignored, scaler = [job["bos"]], ActivationScaler()
    metrics, _ = get_sparsity_and_variance_metrics(
        sae, lm, Batches([tokens]), scaler, n_batches=1, compute_l2_norms=False, compute_sparsity_metrics=True,
        compute_variance_metrics=True, compute_featurewise_density_statistics=False, eval_batch_size_prompts=len(tokens),
        model_kwargs={}, ignore_tokens=ignored)
    losses = get_recons_loss(sae, lm, scaler, tokens, compute_kl=False, compute_ce_loss=True, ignore_tokens=ignored)
    ce = {name: losses[f"ce_loss_{name}"].contiguous() for name in ("without_sae", "with_sae", "with_ablation")}
    save_file(ce, out / "losses.safetensors")
    (out / "metrics.json").write_text(json.dumps(metrics))


for step in (reconstructions, trained_there, from_the_hub, evaluator):
    step()
