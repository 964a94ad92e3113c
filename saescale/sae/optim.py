"""Adam with a clipped global norm over one flat vector of parameters, and the constraint of unit decoder rows."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Adam:
    """Dense Adam (Kingma & Ba 2015), the same arithmetic as torch.optim.Adam(fused=True), state in plain tensors.

    exp_avg, exp_avg_sq [n_params]; step [] float32, updates done.
    """

    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor

    @classmethod
    def zeros(cls, n_params: int) -> "Adam":
        return cls(torch.zeros(n_params), torch.zeros(n_params), torch.zeros(()))

    def clone(self) -> "Adam":
        return Adam(self.exp_avg.clone(), self.exp_avg_sq.clone(), self.step.clone())

    def update(
        self, params: Tensor, grad: Tensor, lr: float, betas: tuple[float, float], eps: float, divisor: Tensor | None
    ) -> None:
        """One step of params [n_params] down grad / divisor. grad is overwritten."""
        self.step += 1
        torch._fused_adam_(
            [params],
            [grad],
            [self.exp_avg],
            [self.exp_avg_sq],
            [],
            [self.step],
            lr=lr,
            beta1=betas[0],
            beta2=betas[1],
            weight_decay=0.0,
            eps=eps,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
        )


def clip_divisor(norm: Tensor, largest: float | None) -> Tensor | None:
    """What to divide a gradient of this norm by so that its norm is at most `largest`: max(norm / largest, 1)."""
    return None if largest is None else (norm / largest).clamp_min_(1.0)


def remove_radial(grad: Tensor, W_dec: Tensor, along: Tensor) -> None:
    """grad_i - along_i w_i: takes out of grad [n, d] its component along each unit row w_i of W_dec [n, d].

    along [n] is grad_i . w_i, which sparse gradients give without a pass over memory.
    """
    grad.addcmul_(W_dec, along.unsqueeze(1), value=-1)


def unit_rows(W_dec: Tensor) -> None:
    """Divides each row of W_dec [n, d] by its norm."""
    W_dec.div_(torch.linalg.vector_norm(W_dec, dim=1, keepdim=True))
