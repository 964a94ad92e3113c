"""ReLU with an L1 penalty weighted by decoder norms."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from saescale.sae import entries
from saescale.sae.kernels import Pairs
from saescale.sae.kinds.contract import PenaltyKind
from saescale.sae.losses import Terms

if TYPE_CHECKING:
    from saescale.sae.model import SAE
    from saescale.sae.step import Trainable


@dataclass(frozen=True)
class ReluL1(PenaltyKind):
    """f = ReLU(x W_enc + b_enc); loss = mean over tokens of |x - x_hat|^2 + scale * sparsity_coeff * sum_i f_i |W_dec[i]|.

    Free decoder rows, no pre-encoder bias. Source: Templeton et al. 2024 and the April 2024 update. The gradient of |W_dec[i]| at
    a row of zeros is taken as zero.
    """

    name: ClassVar[str] = "relu_l1"
    architecture: ClassVar[str] = "standard"
    unit_decoder: ClassVar[bool] = False
    init_scale: ClassVar[float] = 0.1

    def objective(self, sae: "SAE", x: Tensor, x_hat: Tensor, pairs: Pairs) -> Tensor:
        norms = sae.W_dec.norm(dim=1)
        penalty = x.new_zeros(len(x)).index_add_(0, pairs.tokens, pairs.values * norms[pairs.latents])
        return (x - x_hat).square().sum(-1) + self.held_out_weight * penalty

    def gradients(self, trainable: "Trainable", x: Tensor, sparsity_scale: float) -> Terms:
        """Forward and backward of one batch x [token, d_in]; sparsity_scale in [0, 1] is the warm-up of sparsity_coeff."""
        sae, grads, n_tokens = trainable.sae, trainable.grads, len(x)
        norms = torch.linalg.vector_norm(sae.W_dec, dim=1)
        price = norms * (self.weight(sae, sparsity_scale) / n_tokens)  # d loss / d f, [latent]
        found = entries.read(trainable, x)
        active = found.z > 0
        acts = found.z.clamp_min_(0)
        minus_e, d_acts = found.errors(acts, x - sae.b_dec, price)
        found.write(acts, minus_e, d_acts.mul_(active))
        acts_sum = found.sum(acts)
        n_active, penalty = trainable.totals(active.sum(), price @ acts_sum)
        l0 = n_active / n_tokens
        trainable.memory.record(n_tokens, found.latents(active), l0)
        pull = torch.where(norms > 0, price * acts_sum / norms.square(), 0.0)  # of the price on W_dec itself
        grads.W_dec.addcmul_(sae.W_dec, pull.unsqueeze(1))
        grads.b_dec.copy_(minus_e.sum(0)).mul_(2 / n_tokens)
        sum_sq_error = minus_e.square().sum() / n_tokens
        return Terms(sum_sq_error + penalty, sum_sq_error, l0)
