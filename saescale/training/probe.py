"""How fast this device takes training steps of one shape, and what memory the process has needed so far."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch

from saescale.sae.device import CPU, kernels_for
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

WARM_STEPS, STEPS, ENOUGH_S = 5, 100, 3.0
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def probe(science: dict[str, Any], kernels: str, device: torch.device = CPU) -> dict[str, float]:
    """Train a few steps on noise at the training scale: {"tokens_per_s", "peak_gb", "steps"}.

    Warm-up is left out. `peak_gb` is of the whole process, so it says most of the largest shape it was asked for; on a GPU it is
    what this shape had allocated there.
    """
    spec, batch = SAESpec.of(science), science["train"]["batch_tokens"]
    noise = torch.randn(4 * batch, spec.d_in, generator=torch.Generator().manual_seed(0))
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    member = Trainable.create(spec, 0, InputSample.of(noise), kernels_for(kernels, device), device=device)
    blocks = noise.to(device).split(batch)
    for i in range(WARM_STEPS):
        member.step(blocks[i % 4], science["train"]["lr"])
    member.read_stats()  # waits for a GPU
    begun, steps = time.perf_counter(), 0
    while steps < STEPS and (steps < 3 or time.perf_counter() - begun < ENOUGH_S):
        member.step(blocks[steps % 4], science["train"]["lr"])
        steps += 1
    member.read_stats()
    seconds = time.perf_counter() - begun
    return {"tokens_per_s": steps * batch / seconds, "peak_gb": peak_bytes(device) / 1e9, "steps": steps}


def peak_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT)
