"""JumpReLU with an L0 penalty (Rajamanoharan et al. 2024), and what both JumpReLU kinds share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from saescale.sae import entries, optim
from saescale.sae.kernels import Pairs
from saescale.sae.kernels.select import above
from saescale.sae.kinds.contract import PenaltyKind
from saescale.sae.losses import Terms, pre_bias_gradient

if TYPE_CHECKING:
    from saescale.sae.entries import Entries
    from saescale.sae.model import SAE, InputSample
    from saescale.sae.step import Trainable


@dataclass(frozen=True, kw_only=True)
class Thresholded(PenaltyKind):
    """f = z 1[z > theta], theta = exp(log_threshold) [n_latents]: positive, and moved by Adam by a share of itself whatever
    the scale of the inputs. The gradient of the step passes through a rectangle of width `bandwidth` about theta."""

    bandwidth: float
    architecture: ClassVar[str] = "jumprelu"
    vectors: ClassVar[tuple[str, ...]] = ("log_threshold",)

    def scalars(self, n_latents: int) -> dict[str, float]:
        return super().scalars(n_latents) | {"touched": float(n_latents), "entries": 0.0}

    def thresholds(self, sae: "SAE") -> Tensor:
        return sae.own["threshold"] if "threshold" in sae.own else sae.own["log_threshold"].exp()

    def activate(self, sae: "SAE", pre_acts: Tensor) -> Pairs:
        return above(pre_acts, self.thresholds(sae))

    def near(self, z: Tensor, thresholds: Tensor) -> Tensor:
        """1 / bandwidth inside the rectangle, else 0: what stands for the derivative of the step."""
        return ((z - thresholds).abs_() < self.bandwidth / 2).to(z.dtype).mul_(1 / self.bandwidth)

    def count(self, trainable: "Trainable", found: "Entries", active: Tensor, n_tokens: int) -> float:
        """Remembers one batch; its l0."""
        memory = trainable.memory
        near = found.z > found.at(trainable.sae.own["log_threshold"].exp() - self.bandwidth / 2)
        n_active, n_near, n_worked_on = trainable.totals(active.sum(), near.sum(), found.count)
        l0 = n_active / n_tokens
        memory.record(n_tokens, found.latents(active), l0)
        memory.own["touched"].fill_(n_near / n_tokens)
        memory.own["entries"] += n_worked_on
        return l0

    def unscale_(self, own: dict[str, Tensor], scale: float) -> None:
        own["threshold"] = own.pop("log_threshold").exp() / scale if "log_threshold" in own else own["threshold"] / scale

    def exported(self, sae: "SAE") -> dict[str, Tensor]:
        return {"b_enc": sae.b_enc, "threshold": self.thresholds(sae)}

    def imported(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return tensors["b_enc"], {"threshold": tensors["threshold"]}


@dataclass(frozen=True, kw_only=True)
class JumpReLU(Thresholded):
    """z = (x - b_dec) W_enc + b_enc; loss = mean over tokens of |x - x_hat|^2 + scale * sparsity_coeff * L0; unit decoder rows.

    The step's gradient reaches the thresholds alone: d f / d theta = -theta K, d L0 / d theta = -K with K the rectangle.
    Thresholds start at the bandwidth, both published as 1e-3 for inputs of mean square norm 1.
    Source: Rajamanoharan et al. 2024, Lieberum et al. 2024 (Gemma Scope); theirs: beta1 0, lr 7e-5 at every width.
    """

    name: ClassVar[str] = "jumprelu"
    subtracts_b_dec: ClassVar[bool] = True

    def begin(self, sae: "SAE", sample: "InputSample | None") -> None:  # noqa: ARG002
        sae.own["log_threshold"].fill_(self.bandwidth).log_()

    def objective(self, sae: "SAE", x: Tensor, x_hat: Tensor, pairs: Pairs) -> Tensor:  # noqa: ARG002
        return (x - x_hat).square().sum(-1) + self.held_out_weight * pairs.row_offsets.diff()

    def gradients(self, trainable: "Trainable", x: Tensor, sparsity_scale: float) -> Terms:
        """Forward and backward of one batch x [token, d_in]; sparsity_scale in [0, 1] is the warm-up of sparsity_coeff."""
        sae, grads, n_tokens = trainable.sae, trainable.grads, len(x)
        thresholds, coeff = sae.own["log_threshold"].exp(), self.weight(sae, sparsity_scale)
        x_enc = x - sae.b_dec
        found = entries.read(trainable, x_enc, thresholds - self.bandwidth / 2)
        theta = found.at(thresholds)
        active, near = found.z > theta, self.near(found.z, theta)
        l0 = self.count(trainable, found, active, n_tokens)
        acts = found.z.mul_(active)
        minus_e, d_acts = found.errors(acts, x_enc, torch.zeros_like(thresholds))
        d_theta = found.sum(near.mul_((d_acts * theta).add_(coeff / n_tokens))).neg_()
        found.write(acts, minus_e, d_acts.mul_(active))
        optim.remove_radial(grads.W_dec, sae.W_dec, found.sum(acts.mul_(d_acts)))
        grads.own["log_threshold"].copy_(d_theta.mul_(thresholds))
        pre_bias_gradient(trainable, minus_e)
        sum_sq_error = minus_e.square().sum() / n_tokens
        return Terms(sum_sq_error + coeff * l0, sum_sq_error, l0)
