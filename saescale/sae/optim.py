"""Adam with a clipped global norm over one flat vector of parameters, and the constraint of unit decoder rows."""

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saescale.sae.kernels import AdamRule

if TYPE_CHECKING:
    from saescale.sae.spec import SAESpec


@dataclass
class Adam:
    """Dense Adam (Kingma & Ba 2015), the same arithmetic as torch.optim.Adam(fused=True), state in plain tensors.

    exp_avg, exp_avg_sq [n_params]; step [] float32, updates done.
    """

    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor

    @classmethod
    def zeros(cls, params: Tensor) -> "Adam":
        return cls(torch.zeros_like(params), torch.zeros_like(params), torch.zeros((), device=params.device))

    def update(
        self, kernels: ModuleType, spec: "SAESpec", lr: float | Tensor, params: Tensor, grad: Tensor, unit: Tensor | None
    ) -> Tensor:
        """One step of params [n_params] down grad, clipped as spec says; grad is overwritten. Returns grad's norm.

        unit [n, d_in]: the part of params whose rows are then divided by their norms.
        """
        self.step += 1
        step = self.step if hasattr(kernels, "FIXED_SHAPES") else int(self.step)
        rule = AdamRule(lr, spec.beta1, spec.beta2, spec.eps, spec.grad_clip, step)
        return kernels.adam(params, grad, (self.exp_avg, self.exp_avg_sq), rule, unit)


def remove_radial(grad: Tensor, W_dec: Tensor, along: Tensor) -> None:
    """grad_i - along_i w_i: takes out of grad [n, d] its component along each unit row w_i of W_dec [n, d].

    along [n] is grad_i . w_i, which sparse gradients give without a pass over memory.
    """
    grad.addcmul_(W_dec, along.unsqueeze(1), value=-1)
