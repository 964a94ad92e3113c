"""Control of l0: the weight of a sparsity penalty, moved during training until the wanted number of latents is active.

Equal weights give other l0 at other sizes and horizons, so sizes are compared at an l0, not at a weight (SCIENCE of the laws:
docs/design.md). The control is a function of its checkpointed state and of the batch alone.
"""

import math
import sys

import torch
from torch import Tensor

GAIN = 2.0  # e-folds of the weight per unit of learning rate and e-fold of l0: the weight moves as fast as parameters do
DAMPING = 0.5  # share of the error that acts at once, against overshooting
SMOOTHING = 0.1  # of the error, per batch
LARGEST_ERROR, LEAST_L0 = 1.0, 0.1
LARGEST_LOG = math.log(sys.float_info.max)


def scalars(sparsity_coeff: float) -> dict[str, float]:
    """What the control remembers, before the first batch: the weight in force, its slow part's logarithm, the smoothed error."""
    return {"sparsity_coeff": sparsity_coeff, "log_coeff": math.log(sparsity_coeff), "log_error": 0.0}


def follow(own: dict[str, Tensor], l0: float | Tensor, wanted: float, lr: float) -> None:
    """Moves the weight after a batch with mean `l0`, at learning rate lr, so that l0 goes to `wanted`.

    A proportional and integral controller of log weight by log l0: e <- (1 - s) e + s log(l0 / wanted), log_coeff += GAIN lr e,
    weight = exp(log_coeff + DAMPING e). As lr decays to 0 the weight comes to rest with the parameters. A weight beyond every
    number is infinite: its run has diverged, which the statistics say, and no other is touched.
    """
    error, log_coeff = float(own["log_error"]), float(own["log_coeff"])
    found = math.log(max(float(l0), LEAST_L0) / wanted)
    error += SMOOTHING * (min(max(found, -LARGEST_ERROR), LARGEST_ERROR) - error)
    log_coeff += GAIN * lr * error
    own["log_error"].fill_(error)
    own["log_coeff"].fill_(log_coeff)
    own["sparsity_coeff"].fill_(math.inf if log_coeff + DAMPING * error > LARGEST_LOG else math.exp(log_coeff + DAMPING * error))


def follow_on_device(own: dict[str, Tensor], l0: Tensor, wanted: float | Tensor, lr: float | Tensor) -> None:
    """The same in operations on tensors, so that nobody waits for l0."""
    error, log_coeff = own["log_error"], own["log_coeff"]
    found = torch.log(torch.as_tensor(l0, dtype=torch.float64, device=error.device).clamp_min(LEAST_L0) / wanted)
    error += SMOOTHING * (found.clamp(-LARGEST_ERROR, LARGEST_ERROR) - error)
    log_coeff += GAIN * lr * error
    own["sparsity_coeff"].copy_(torch.exp(log_coeff + DAMPING * error))


def set_point(target_l0: float, n_latents: int, ramp: float | Tensor) -> float | Tensor:
    """The l0 wanted now: from half of the latents down to the target, geometrically, as the sparsity ramp goes from 0 to 1."""
    return (n_latents / 2) ** (1 - ramp) * target_l0**ramp
