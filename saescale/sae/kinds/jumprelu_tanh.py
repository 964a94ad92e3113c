"""JumpReLU with a tanh penalty and a loss on silent pre-activations (Anthropic's January 2025 update)."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from saescale.sae import entries
from saescale.sae.kernels import Pairs
from saescale.sae.kinds.jumprelu import Thresholded
from saescale.sae.losses import Terms

if TYPE_CHECKING:
    from saescale.sae.model import SAE, InputSample
    from saescale.sae.step import Trainable

TANH_SCALE, FIRST_THRESHOLD = 4.0, 0.1
FIRST_L0, FIRST_SHARE = 10_000, 0.5  # latents that fire on a token at the start; of few latents at most this share
CHUNK = 4096  # latents whose quantiles are taken at once


@dataclass(frozen=True, kw_only=True)
class JumpReLUTanh(Thresholded):
    """z = x W_enc + b_enc; loss = mean over tokens of

        |x - x_hat|^2 + scale * sparsity_coeff * sum_i tanh(4 f_i |W_i|) + aux_coeff * sum_i ReLU(theta_i - z_i) |W_i|

    W_i are the rows of W_dec, and free; no pre-encoder bias. The step's gradient reaches every parameter, d f / d z is
    1[z > theta] + theta K and d f / d theta is -theta K, with K the rectangle. Published with the sparsity ramp over the whole
    training (sae.warmup: horizon). Rows are exported as trained (published: folded to norm 1, which is the same function).
    Source: the January 2025 update, through its re-implementations (SAELens 6.54 has the same estimator).
    """

    aux_coeff: float
    name: ClassVar[str] = "jumprelu_tanh"
    unit_decoder: ClassVar[bool] = False

    def draw(self, W_dec: Tensor, generator: torch.Generator) -> None:
        bound = 1 / math.sqrt(W_dec.shape[1])
        W_dec.uniform_(-bound, bound, generator=generator)

    def begin(self, sae: "SAE", sample: "InputSample | None") -> None:
        """W_enc = d_in / n_latents W_dec^T; b_enc lets each latent fire on the same share of the sample."""
        if sample is None:
            raise ValueError(f"{self.name} starts b_enc at a quantile of the inputs: give InputSample.of(x0).")
        sae.W_enc.copy_(sae.W_dec.T).mul_(sae.d_in / sae.n_latents)
        sae.own["log_threshold"].fill_(math.log(FIRST_THRESHOLD))
        silent = 1 - min(FIRST_L0 / sae.n_latents, FIRST_SHARE)
        rank = min(int(silent * len(sample.rows)) + 1, len(sample.rows))
        for first in range(0, sae.n_latents, CHUNK):
            part = slice(first, first + CHUNK)
            sae.b_enc[part] = FIRST_THRESHOLD - (sample.rows @ sae.W_enc[:, part]).kthvalue(rank, dim=0).values

    def objective(self, sae: "SAE", x: Tensor, x_hat: Tensor, pairs: Pairs) -> Tensor:
        norms = sae.W_dec.norm(dim=1)
        price = torch.tanh(TANH_SCALE * pairs.values * norms[pairs.latents])
        return (x - x_hat).square().sum(-1) + self.held_out_weight * x.new_zeros(len(x)).index_add_(0, pairs.tokens, price)

    def gradients(self, trainable: "Trainable", x: Tensor, sparsity_scale: float) -> Terms:
        """Forward and backward of one batch x [token, d_in]; sparsity_scale in [0, 1] is the ramp of sparsity_coeff."""
        sae, grads, n_tokens = trainable.sae, trainable.grads, len(x)
        norms, thresholds = torch.linalg.vector_norm(sae.W_dec, dim=1), sae.own["log_threshold"].exp()
        coeff, aux = self.weight(sae, sparsity_scale) / n_tokens, self.aux_coeff / n_tokens
        found = entries.read(trainable, x, thresholds - self.bandwidth / 2)
        theta, norm = found.at(thresholds), found.at(norms)
        active, near = found.z > theta, self.near(found.z, theta)
        l0 = self.count(trainable, found, active, n_tokens)
        n_active, short_active = found.sum(active), found.sum((theta - found.z).mul_(active))
        acts = found.z.mul_(active)
        squashed = torch.tanh(acts * norm * TANH_SCALE)
        slope = (1 - squashed.square()).mul_(TANH_SCALE * coeff)
        minus_e, d_acts = found.errors(acts, x - sae.b_dec, torch.zeros_like(norms))
        d_acts.add_(slope * norm)
        step = near.mul_(d_acts).mul_(theta)
        x_sum = x.sum(0)
        short = n_tokens * (thresholds - sae.b_enc) - x_sum @ sae.W_enc - short_active  # sum over silent entries of theta - z
        d_theta = found.sum(step).neg_().add_(aux * norms * (n_tokens - n_active))
        found.write(acts, minus_e, d_acts.add_(aux * norm).mul_(active).add_(step))
        grads.W_enc.T.addcmul_((-aux * norms).unsqueeze(1), x_sum)  # every entry, the active ones taken back above
        grads.b_enc.sub_(norms, alpha=aux * n_tokens)
        d_norms = found.sum(slope.mul_(acts)).add_(short, alpha=aux)
        grads.W_dec.addcmul_(sae.W_dec, torch.where(norms > 0, d_norms / norms, 0.0).unsqueeze(1))
        grads.own["log_threshold"].copy_(d_theta.mul_(thresholds))
        grads.b_dec.copy_(minus_e.sum(0)).mul_(2 / n_tokens)
        silent, penalty = trainable.totals(short @ norms, squashed.sum())
        sum_sq_error, aux_loss = minus_e.square().sum() / n_tokens, silent / n_tokens
        loss = sum_sq_error + coeff * penalty + self.aux_coeff * aux_loss
        return Terms(loss, sum_sq_error, l0, aux_loss)
