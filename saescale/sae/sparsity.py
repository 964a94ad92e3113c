"""The kinds of SAE: one small object each. A new kind is a new class here, registered in KINDS.

A kind has `name`, `architecture` (SAELens' word for it), `subtracts_b_dec` (the encoder reads x - b_dec), `unit_decoder`
(decoder rows stay at norm 1, their gradients orthogonal to them) and
    check(spec), from_spec(spec)           the settings it takes
    init_scale                             norm of the decoder rows at initialisation
    inference_settings(), export_settings()    what rebuilds it, and its own keys of SAELens' cfg.json
    activate(pre_acts)                     the encoding rule, as active pairs
    objective(sae, x, x_hat, pairs)        the held-out objective per token: the training loss without auxiliary terms
    gradients(trainable, x, sparsity_scale)            forward and backward of one batch
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from saescale.sae import kernels, optim
from saescale.sae.kernels import Pairs, cpu
from saescale.sae.losses import Terms, aux_k_gradients

if TYPE_CHECKING:
    from saescale.sae.model import SAE
    from saescale.sae.spec import SAESpec
    from saescale.sae.step import Trainable

SPARSE_BELOW = 1 / 16  # relu_l1 leaves the dense path when l0 / n_latents falls below this: where the two cost the same


@dataclass(frozen=True)
class TopK:
    """z = ReLU(k largest of (x - b_dec) W_enc + b_enc); unit decoder rows; loss = mean over tokens of |x - x_hat|^2 + AuxK.

    AuxK is weighted by aux_coeff * input_variance. OpenAI's total is MSE / variance + aux_coeff * AuxK with MSE and variance
    averaged over d_in; times d_in * variance (= input_variance) it is ours, so the ratio of the two terms is theirs.
    Source: Gao et al. 2024 and openai/sparse_autoencoder (train.py).
    """

    k: int
    aux_coeff: float = 0.0
    k_aux: int = 1
    dead_after_tokens: int = 10_000_000
    name: ClassVar[str] = "topk"
    architecture: ClassVar[str] = "topk"
    subtracts_b_dec: ClassVar[bool] = True
    unit_decoder: ClassVar[bool] = True
    init_scale: ClassVar[float] = 1.0

    @staticmethod
    def check(spec: "SAESpec") -> None:
        k, n_latents = spec.k, spec.n_latents
        if k is None or k < 1:
            raise ValueError(f"sae.k={k} is not a number of latents: topk needs sae.k of at least 1.")
        if k > n_latents:
            raise ValueError(
                f"sae.k={k} exceeds sae.n_latents={n_latents}: k counts the latents kept per token. Choose k <= {n_latents}."
            )
        if spec.sparsity_coeff is not None:
            raise ValueError(
                f"sae.sparsity_coeff={spec.sparsity_coeff} means nothing to topk: its sparsity is sae.k. Leave it out."
            )
        if not 0 <= spec.aux_coeff < math.inf:
            raise ValueError(f"sae.aux_coeff={spec.aux_coeff} must be at least 0.")
        if spec.k_aux is not None and not 1 <= spec.k_aux <= n_latents:
            raise ValueError(f"sae.k_aux={spec.k_aux} counts dead latents: choose it between 1 and sae.n_latents={n_latents}.")

    @classmethod
    def from_spec(cls, spec: "SAESpec") -> "TopK":
        return cls(spec.k, spec.aux_coeff, spec.k_aux, spec.dead_after_tokens)

    def inference_settings(self) -> dict[str, float]:
        return {"k": self.k}

    def export_settings(self) -> dict[str, float | bool]:
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}  # rows are unit, so nothing is rescaled

    def activate(self, pre_acts: Tensor) -> Pairs:
        return cpu.top_k(pre_acts, self.k)

    def objective(self, sae: "SAE", x: Tensor, x_hat: Tensor, pairs: Pairs) -> Tensor:  # noqa: ARG002
        return (x - x_hat).square().sum(-1)

    def gradients(self, trainable: "Trainable", x: Tensor, sparsity_scale: float) -> Terms:  # noqa: ARG002
        """Forward and backward of one batch x [token, d_in]. sparsity_scale has no meaning here."""
        sae, grads, memory, backend = trainable.sae, trainable.grads, trainable.memory, trainable.kernels
        n_tokens, n_latents = len(x), sae.n_latents
        x_enc = x - sae.b_dec
        pre_acts = kernels.pre_activations(x_enc, sae.W_enc, sae.b_enc, trainable.spec.precision)
        pairs = backend.top_k(pre_acts, self.k)
        minus_e, d_z = backend.errors(pairs, sae.W_dec, x_enc)  # x_hat - x: both sides lack b_dec
        active = pairs.values > 0
        l0 = int(active.sum()) / n_tokens
        memory.record(n_tokens, pairs.latents if l0 == self.k else pairs.latents[active], l0)

        d_z.mul_(active).mul_(2 / n_tokens)
        groups = backend.group_by_latent(pairs, n_latents)
        backend.sum_rows(groups, pairs.values * (2 / n_tokens), minus_e, grads.W_dec)
        backend.sum_rows(groups, d_z, x_enc, grads.W_enc.T)
        grads.b_enc.copy_(backend.sum_pairs(pairs, d_z, n_latents))
        along = backend.sum_pairs(pairs, pairs.values * d_z, n_latents)  # of each row of grads.W_dec on that row of W_dec

        sum_sq_error = minus_e.square().sum() / n_tokens
        aux_loss, loss = 0.0, sum_sq_error
        dead = memory.dead(self.dead_after_tokens) if self.aux_coeff else None
        if dead is not None:
            weight = float(memory.input_variance) * self.aux_coeff
            aux_loss, along[dead] = aux_k_gradients(trainable, (x_enc, pre_acts, minus_e), dead, weight)
            loss = sum_sq_error + weight * aux_loss
        optim.remove_radial(grads.W_dec, sae.W_dec, along)
        grads.b_dec.copy_(minus_e.sum(0)).mul_(2 / n_tokens).addmv_(sae.W_enc, grads.b_enc, alpha=-1)
        return Terms(loss, sum_sq_error, l0, aux_loss)


@dataclass(frozen=True)
class ReluL1:
    """f = ReLU(x W_enc + b_enc); loss = mean over tokens of |x - x_hat|^2 + scale * sparsity_coeff * sum_i f_i |W_dec[i]|.

    Free decoder rows, no pre-encoder bias. Source: Templeton et al. 2024 and the April 2024 update. The gradient of |W_dec[i]| at
    a row of zeros is taken as zero. Sparse gradients once the last batch's l0 is below SPARSE_BELOW * n_latents.
    """

    sparsity_coeff: float
    name: ClassVar[str] = "relu_l1"
    architecture: ClassVar[str] = "standard"
    subtracts_b_dec: ClassVar[bool] = False
    unit_decoder: ClassVar[bool] = False
    init_scale: ClassVar[float] = 0.1

    @staticmethod
    def check(spec: "SAESpec") -> None:
        if spec.k is not None:
            raise ValueError(f"sae.k={spec.k} means nothing to relu_l1: its sparsity is sae.sparsity_coeff. Leave sae.k out.")
        if spec.sparsity_coeff is None or not 0 <= spec.sparsity_coeff < math.inf:
            raise ValueError(f"sae.sparsity_coeff={spec.sparsity_coeff} is not a weight: relu_l1 needs a number of at least 0.")

    @classmethod
    def from_spec(cls, spec: "SAESpec") -> "ReluL1":
        return cls(spec.sparsity_coeff)

    def inference_settings(self) -> dict[str, float]:
        return {"sparsity_coeff": self.sparsity_coeff}

    def export_settings(self) -> dict[str, float | bool]:
        return {}

    def activate(self, pre_acts: Tensor) -> Pairs:
        return cpu.positive(pre_acts)

    def objective(self, sae: "SAE", x: Tensor, x_hat: Tensor, pairs: Pairs) -> Tensor:
        norms = sae.W_dec.norm(dim=1)
        penalty = torch.zeros(len(x)).index_add_(0, pairs.tokens, pairs.values * norms[pairs.latents])
        return (x - x_hat).square().sum(-1) + self.sparsity_coeff * penalty

    def gradients(self, trainable: "Trainable", x: Tensor, sparsity_scale: float) -> Terms:
        """Forward and backward of one batch x [token, d_in]; sparsity_scale in [0, 1] is the warm-up of sparsity_coeff."""
        sae, grads, memory = trainable.sae, trainable.grads, trainable.memory
        norms = torch.linalg.vector_norm(sae.W_dec, dim=1)
        pre_acts = kernels.pre_activations(x, sae.W_enc, sae.b_enc, trainable.spec.precision)
        price = norms * (sparsity_scale * self.sparsity_coeff / len(x))  # d loss / d f, [latent]
        sparse = bool(memory.last_l0 < SPARSE_BELOW * sae.n_latents)
        path = self._sparse if sparse else self._dense
        minus_e, acts_sum, fired, l0 = path(trainable, x, pre_acts, price)
        memory.record(len(x), fired, l0)
        pull = torch.where(norms > 0, price * acts_sum / norms.square(), 0.0)  # of the price on W_dec itself
        grads.W_dec.addcmul_(sae.W_dec, pull.unsqueeze(1))
        grads.b_dec.copy_(minus_e.sum(0)).mul_(2 / len(x))
        sum_sq_error = minus_e.square().sum() / len(x)
        return Terms(sum_sq_error + price @ acts_sum, sum_sq_error, l0)

    def _dense(
        self, trainable: "Trainable", x: Tensor, pre_acts: Tensor, price: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        sae, grads = trainable.sae, trainable.grads
        active = pre_acts > 0
        acts = pre_acts.clamp_min_(0)
        minus_e = torch.addmm(sae.b_dec, acts, sae.W_dec).sub_(x)
        d_acts = torch.addmm(price, minus_e, sae.W_dec.T, alpha=2 / len(x)).mul_(active)
        torch.mm(acts.T, minus_e, out=grads.W_dec).mul_(2 / len(x))
        torch.mm(d_acts.T, x, out=grads.W_enc.T)
        torch.sum(d_acts, 0, out=grads.b_enc)
        return minus_e, acts.sum(0), active.any(0).nonzero().view(-1), active.sum().item() / len(x)

    def _sparse(
        self, trainable: "Trainable", x: Tensor, pre_acts: Tensor, price: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        sae, grads, backend = trainable.sae, trainable.grads, trainable.kernels
        pairs = backend.positive(pre_acts)
        minus_e, d_acts = backend.errors(pairs, sae.W_dec, x - sae.b_dec)
        d_acts.mul_(2 / len(x)).add_(price[pairs.latents])
        groups = backend.group_by_latent(pairs, sae.n_latents)
        backend.sum_rows(groups, pairs.values * (2 / len(x)), minus_e, grads.W_dec)
        backend.sum_rows(groups, d_acts, x, grads.W_enc.T)
        grads.b_enc.copy_(backend.sum_pairs(pairs, d_acts, sae.n_latents))
        acts_sum = backend.sum_pairs(pairs, pairs.values, sae.n_latents)
        return minus_e, acts_sum, pairs.latents, len(pairs.latents) / len(x)


KINDS = {kind.name: kind for kind in (TopK, ReluL1)}
