"""The step's gradients on this device against float64, and twice the same training: before anything is timed."""

from typing import Any

import torch

from benchmarks.gpu_contestants import best_kernels, inputs, trainable
from benchmarks.shape import Shape
from saescale.sae import kernels
from saescale.sae.graph import Recorded
from saescale.sae.kernels import reference

TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}


def _worst_error(trainable: Any, x: torch.Tensor, k: int) -> float:
    """The largest relative error of a gradient of TopK, given the selection: bf16 may select otherwise at close entries."""
    sae = trainable.sae
    wanted = {name: t.double().contiguous().requires_grad_() for name, t in sae.params().items()}
    pairs = trainable.kernels.top_k(trainable.pre_acts(x - sae.b_dec), k)
    chosen = torch.zeros(len(x), sae.n_latents, dtype=torch.float64, device=x.device)
    chosen[pairs.tokens, pairs.latents] = 1.0
    acts = torch.relu((x.double() - wanted["b_dec"]) @ wanted["W_enc"] + wanted["b_enc"]) * chosen
    loss = (acts @ wanted["W_dec"] + wanted["b_dec"] - x.double()).square().sum(1).mean()
    exact = reference.gradients(loss, wanted, unit_decoder=True)
    trainable.compute_gradients(x)
    return max(float((t.double() - exact[name]).norm() / exact[name].norm()) for name, t in trainable.grads.params().items())


def checks(device: str, toy: bool) -> dict[str, str]:
    """By name what was found: an error, or the exception that came instead."""
    s = Shape("topk", *((17, 29, 3, 5) if toy else (513, 10_007, 32, 1000)), lr=1e-3, device=device)
    found = {}
    for backend in ("triton", "torch"):
        for precision, tolerance in TOLERANCE.items():
            name = f"{backend} {precision}, gradients against float64"
            try:
                x = inputs(s.batch, s.d_in, 1, device)[0]
                error = _worst_error(trainable(s, kernels.resolve(backend, device), precision), x, s.k)
                found[name] = f"{error:.1e} {'within' if error <= tolerance else 'NOT WITHIN'} {tolerance}"
            except Exception as e:  # the rest is still worth knowing
                found[name] = f"failed: {type(e).__name__}: {str(e)[:200]}"
    for name, records in (("one launch at a time", False), ("recorded", True)):
        try:
            ends = []
            for _ in range(2):
                member, batches = trainable(s, best_kernels(device)), inputs(s.batch, s.d_in, 2, device)
                recorded = Recorded([member], s.batch)
                for i in range(3 if toy else 10):
                    if records:
                        recorded.step(batches[i % 2], [(s.lr, 1.0)])
                    else:
                        member.step(batches[i % 2], s.lr)
                ends.append(member.params.clone())
            found[f"two trainings, {name}"] = "same bits" if torch.equal(*ends) else "DIFFERENT BITS"
        except Exception as e:
            found[f"two trainings, {name}"] = f"failed: {type(e).__name__}: {str(e)[:200]}"
    return found
