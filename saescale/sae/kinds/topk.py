"""TopK with AuxK, and what the kinds that select latents by rank share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor

from saescale.sae import kernels, optim
from saescale.sae.kernels import Groups, Pairs
from saescale.sae.kinds.contract import Kind
from saescale.sae.losses import Scalar, Terms, aux_k_gradients, masked_aux_k_gradients, pre_bias_gradient

if TYPE_CHECKING:
    from saescale.sae.model import SAE
    from saescale.sae.step import Trainable


class Backward(NamedTuple):
    """Of one batch, before AuxK. grads.W_dec and W_enc are written.

    minus_e  [token, d_in] x_hat - x
    pull     [token, d_in] of which 2 / n_tokens is the gradient of the loss by x_hat, were x_hat moved as a whole
    d_z      [pair]        gradient by the pre-activations
    loss     []
    groups   the pairs by latent
    """

    minus_e: Tensor
    pull: Tensor
    d_z: Tensor
    loss: Scalar
    groups: Groups


@dataclass(frozen=True)
class TopK(Kind):
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
    starts_at_median: ClassVar[bool] = True

    def inference_settings(self) -> dict[str, Any]:
        return {"k": self.k}

    def export_settings(self) -> dict[str, Any]:
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}  # rows are unit, so nothing is rescaled

    def activate(self, sae: "SAE", pre_acts: Tensor) -> Pairs:  # noqa: ARG002
        return kernels.of(pre_acts).top_k(pre_acts, self.k)

    def select(self, trainable: "Trainable", pre_acts: Tensor) -> Pairs:
        """The pairs of a training batch, values through a ReLU."""
        return trainable.kernels.top_k(pre_acts, self.k)

    def objective(self, sae: "SAE", x: Tensor, x_hat: Tensor, pairs: Pairs) -> Tensor:  # noqa: ARG002
        return (x - x_hat).square().sum(-1)

    def gradients(self, trainable: "Trainable", x: Tensor, sparsity_scale: float) -> Terms:  # noqa: ARG002
        """Forward and backward of one batch x [token, d_in]. sparsity_scale has no meaning here."""
        sae, grads, memory, backend = trainable.sae, trainable.grads, trainable.memory, trainable.kernels
        n_tokens, n_latents = len(x), sae.n_latents
        x_enc = x - sae.b_dec
        pre_acts = trainable.pre_acts(x_enc)
        pairs = self.select(trainable, pre_acts)
        active = pairs.values > 0
        l0 = trainable.totals(active.sum())[0] / n_tokens
        if not trainable.fixed_shapes:
            memory.record(n_tokens, pairs.latents if l0 == self.k else pairs.latents[active], l0)
        minus_e, pull, d_z, loss, groups = self.backward(trainable, pairs, x_enc, active)
        found, aux_loss, weight = (x_enc, pre_acts, minus_e), 0.0, 0.0
        if trainable.fixed_shapes:
            fired = backend.sum_group(groups, active.to(d_z.dtype)) > 0
            memory.record(n_tokens, fired, l0)
            grads.b_enc.copy_(backend.sum_group(groups, d_z))
            along = backend.sum_group(groups, pairs.values * d_z)
            if self.aux_coeff and trainable.may_have_dead:
                weight = memory.input_variance * self.aux_coeff
                aux_loss = masked_aux_k_gradients(trainable, found, along, weight)
        else:
            grads.b_enc.copy_(backend.sum_pairs(pairs, d_z, n_latents))
            along = backend.sum_pairs(pairs, pairs.values * d_z, n_latents)  # of each row of grads.W_dec on that row of W_dec
            if self.aux_coeff:
                dead, weight = memory.dead(self.dead_after_tokens), float(memory.input_variance) * self.aux_coeff
                if n_dead := int(trainable.ranks.totals(len(dead))[0]):
                    aux_loss, along[dead] = aux_k_gradients(trainable, found, dead, n_dead, weight)
        optim.remove_radial(grads.W_dec, sae.W_dec, along)
        pre_bias_gradient(trainable, pull)
        return Terms(loss + weight * aux_loss, minus_e.square().sum() / n_tokens, l0, aux_loss)

    def backward(self, trainable: "Trainable", pairs: Pairs, x_enc: Tensor, active: Tensor) -> Backward:
        """Decodes the pairs and writes the weights' gradients. active [pair]: where the value is above 0."""
        grads, backend, n_tokens = trainable.grads, trainable.kernels, len(x_enc)
        minus_e, d_z = backend.errors(pairs, trainable.sae.W_dec, x_enc)  # x_hat - x: both sides lack b_dec
        d_z.mul_(active).mul_(2 / n_tokens)
        groups = backend.group_by_latent(pairs, trainable.sae.n_latents)
        backend.sum_rows(groups, pairs.values * (2 / n_tokens), minus_e, grads.W_dec)
        backend.sum_rows(groups, d_z, x_enc, grads.W_enc.T)
        return Backward(minus_e, minus_e, d_z, minus_e.square().sum() / n_tokens, groups)
