"""Gated SAE."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from saescale.sae import entries, optim
from saescale.sae.kernels import Pairs
from saescale.sae.kinds.contract import PenaltyKind
from saescale.sae.losses import Terms, pre_bias_gradient

if TYPE_CHECKING:
    from saescale.sae.model import SAE
    from saescale.sae.step import Trainable


@dataclass(frozen=True)
class Gated(PenaltyKind):
    """z = (x - b_dec) W_enc + b_enc decides which latents are on; m = exp(r_mag) (x - b_dec) W_enc + b_mag says how much.

        f = 1[z > 0] ReLU(m); unit decoder rows; W_dec and b_dec are frozen in the last term of the loss, the mean over tokens of
        |x - x_hat(f)|^2 + scale * sparsity_coeff * sum_i ReLU(z_i) + |x - x_hat(ReLU(z))|^2

    Source: Rajamanoharan et al. 2024 (Improving Dictionary Learning with Gated Sparse Autoencoders). Theirs: beta1 0.
    """

    name: ClassVar[str] = "gated"
    architecture: ClassVar[str] = "gated"
    subtracts_b_dec: ClassVar[bool] = True
    vectors: ClassVar[tuple[str, ...]] = ("b_mag", "r_mag")

    def scalars(self, n_latents: int) -> dict[str, float]:
        return super().scalars(n_latents) | {"touched": float(n_latents), "entries": 0.0}

    def activate(self, sae: "SAE", pre_acts: Tensor) -> Pairs:
        """Gates open, with the magnitudes behind them; these may be 0."""
        pairs = super().activate(sae, pre_acts)
        at = pairs.latents
        magnitudes = (pairs.values - sae.b_enc[at]) * sae.own["r_mag"][at].exp() + sae.own["b_mag"][at]
        return pairs._replace(values=magnitudes.clamp_min_(0))

    def objective(self, sae: "SAE", x: Tensor, x_hat: Tensor, pairs: Pairs) -> Tensor:  # noqa: ARG002
        return (x - x_hat).square().sum(-1) + self.held_out_weight * sae.pre_acts(x).clamp_min_(0).sum(1)

    def gradients(self, trainable: "Trainable", x: Tensor, sparsity_scale: float) -> Terms:
        """Forward and backward of one batch x [token, d_in]; sparsity_scale in [0, 1] is the warm-up of sparsity_coeff."""
        sae, grads, memory, n_tokens = trainable.sae, trainable.grads, trainable.memory, len(x)
        x_enc, growth, coeff = x - sae.b_dec, sae.own["r_mag"].exp(), self.weight(sae, sparsity_scale)
        found = entries.read(trainable, x_enc)
        is_open = found.z > 0
        scaled = (found.z - found.at(sae.b_enc)).mul_(found.at(growth))  # exp(r_mag) (x - b_dec) W_enc
        gates = found.z.clamp_min_(0)
        acts = (scaled + found.at(sae.own["b_mag"])).clamp_min_(0).mul_(is_open)
        active = acts > 0
        n_active, n_open, n_worked_on, penalty = trainable.totals(active.sum(), is_open.sum(), found.count, gates.sum())
        l0 = n_active / n_tokens
        memory.record(n_tokens, found.latents(active), l0)
        memory.own["touched"].fill_(n_open / n_tokens)
        memory.own["entries"] += n_worked_on

        free = torch.zeros_like(sae.b_enc)
        frozen_e, d_z = found.errors(gates, x_enc, free + coeff / n_tokens)
        minus_e, d_m = found.errors(acts, x_enc, free)
        d_z.mul_(is_open)
        d_m.mul_(active)
        found.write(acts, minus_e, d_m * found.at(growth) + d_z)
        pre_bias_gradient(trainable, minus_e)
        grads.b_enc.copy_(found.sum(d_z))
        grads.own["b_mag"].copy_(found.sum(d_m))
        grads.own["r_mag"].copy_(found.sum(scaled.mul_(d_m)))
        optim.remove_radial(grads.W_dec, sae.W_dec, found.sum(acts.mul_(d_m)))
        sum_sq_error, aux_loss = (e.square().sum() / n_tokens for e in (minus_e, frozen_e))
        return Terms(sum_sq_error + coeff * penalty / n_tokens + aux_loss, sum_sq_error, l0, aux_loss)

    def unscale_(self, own: dict[str, Tensor], scale: float) -> None:
        own["b_mag"] = own["b_mag"] / scale

    def exported(self, sae: "SAE") -> dict[str, Tensor]:
        return {"b_gate": sae.b_enc, "b_mag": sae.own["b_mag"], "r_mag": sae.own["r_mag"]}

    def imported(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return tensors["b_gate"], {name: tensors[name] for name in self.vectors}
