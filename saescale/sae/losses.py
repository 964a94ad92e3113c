"""What a training step measures and remembers, and the auxiliary loss for dead latents."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from saescale.sae.step import Trainable

Scalar = Tensor | float


@dataclass(frozen=True)
class Terms:
    """Scalars of one batch. loss = sum_sq_error + penalties; sum_sq_error is summed over d_in and averaged over tokens."""

    loss: Scalar
    sum_sq_error: Scalar
    l0: Scalar
    aux_loss: Scalar = 0.0


@dataclass
class Memory:
    """What adapts during training besides the parameters; part of every checkpoint.

    tokens_since_fired  [n_latents] int64, counted in whole batches: 0 if the latent fired in the last one
    input_variance      []  float64, sum over d_in of the variance of the inputs about their mean, on the first sample
    last_l0             []  float64, mean l0 of the last batch (n_latents before the first)
    own                 what the kind or the control of its penalty remembers (Kind.scalars, control.py), each [] float64
    """

    tokens_since_fired: Tensor
    input_variance: Tensor
    last_l0: Tensor
    own: dict[str, Tensor] = field(default_factory=dict)

    @property
    def last_touched(self) -> Tensor:
        """[] entries per token that the last batch worked on, or would have, had it been sparse: for the switch to sparse."""
        return self.own.get("touched", self.last_l0)

    def record(self, n_tokens: int, fired: Tensor, l0: Scalar) -> None:
        """Counts one batch. fired: the latents that were active in it, as indices in any order, repeats allowed, or as a mask
        [n_latents]."""
        self.tokens_since_fired += n_tokens
        if fired.dtype == torch.bool:
            self.tokens_since_fired.masked_fill_(fired, 0)
        else:
            self.tokens_since_fired.index_fill_(0, fired, 0)
        self.last_l0.fill_(l0)

    def dead(self, dead_after_tokens: int) -> Tensor:
        """Indices of the latents silent for dead_after_tokens or longer."""
        if self.tokens_since_fired.amax() < dead_after_tokens:
            return self.tokens_since_fired.new_empty(0)
        return (self.tokens_since_fired >= dead_after_tokens).nonzero().view(-1)

    def tensors(self) -> dict[str, Tensor]:
        kept = ("tokens_since_fired", "input_variance", "last_l0")
        return {name: getattr(self, name) for name in kept} | self.own


def pre_bias_gradient(trainable: "Trainable", pull: Tensor) -> None:
    """Writes grads.b_dec where the encoder reads x - b_dec: 2 / n_tokens sum of pull [token, d_in] - W_enc grads.b_enc."""
    sae, grads, ranks = trainable.sae, trainable.grads, trainable.ranks
    grads.b_dec.copy_(pull.sum(0)).mul_(2 / len(pull) if ranks.first else 0.0)  # every rank has pull: it counts once
    ranks.sum_(grads.b_dec.addmv_(sae.W_enc, grads.b_enc, alpha=-1))


def aux_k_gradients(
    trainable: "Trainable", inputs: tuple[Tensor, Tensor, Tensor], dead: Tensor, n_dead: int, weight: float
) -> tuple[Tensor, Tensor]:
    """The AuxK loss of Gao et al. (2024); its gradients times weight are written into the rows of the dead latents.

    Returns the loss [], not weighted, and the component of each written row of grads.W_dec along that row of W_dec [dead].

        e     = x - x_hat                                    detached: no gradient through the live latents
        z_aux = ReLU(top-k_aux of the pre-activations among the dead latents)
        e_hat = z_aux W_dec                                  no b_dec: e is already a residual
        loss  = sum |e_hat - e|^2 / sum |e - mean_batch e|^2     (0 if the denominator is 0)

    dead are those of this rank's latents, n_dead counts those of all ranks.
    inputs = (x_enc [token, d_in] what the encoder reads, pre_acts [token, latent], minus_e = x_hat - x [token, d_in]).
    Dead latents had no active pair in this batch (Memory.record comes first, as in OpenAI's code), so their rows hold
    zeros and are written, not added to. Source: openai/sparse_autoencoder, train.py (loss, order of the dead statistics)
    and kernels.py (normalized_mse: its denominator is about the batch mean). There b_pre is added to e_hat and, detached,
    to e: the same value, but one more gradient for b_pre that we do not take.
    """
    x_enc, pre_acts, minus_e = inputs
    sae, grads, kernels = trainable.sae, trainable.grads, trainable.kernels
    W_dec = sae.W_dec[dead]
    pairs = kernels.top_k(pre_acts.index_select(1, dead), min(sae.kind.k_aux, n_dead))  # latents count among the dead here
    difference, d_z = kernels.errors(pairs, W_dec, minus_e.neg())
    spread = (minus_e - minus_e.mean(0)).square_().sum()
    loss = torch.where(spread == 0, 0.0, difference.square().sum() / spread)
    scale = torch.where(spread == 0, 0.0, 2 * weight / spread)
    d_e_hat, d_z = difference.mul_(scale), d_z.mul_(scale).mul_(pairs.values > 0)
    if not len(dead):  # all of them on other ranks
        return loss, W_dec.new_empty(0)
    groups, rows = kernels.group_by_latent(pairs, len(dead)), torch.empty_like(W_dec)
    kernels.sum_rows(groups, pairs.values, d_e_hat, rows)
    grads.W_dec[dead] = rows
    kernels.sum_rows(groups, d_z, x_enc, rows)
    grads.W_enc.T[dead] = rows
    grads.b_enc[dead] = kernels.sum_pairs(pairs, d_z, len(dead))
    return loss, kernels.sum_pairs(pairs, pairs.values * d_z, len(dead))


def masked_aux_k_gradients(
    trainable: "Trainable", inputs: tuple[Tensor, Tensor, Tensor], along: Tensor, weight: Tensor
) -> Tensor:
    """aux_k_gradients in fixed shapes, for kernels that do not wait: the live latents are masked instead of left out.

    Takes the inputs of aux_k_gradients, writes the dead latents' rows of the gradients and entries of along [latent], and returns
    the loss [], not weighted: 0 when none is dead.
    """
    x_enc, pre_acts, minus_e = inputs
    sae, grads, kernels, memory = trainable.sae, trainable.grads, trainable.kernels, trainable.memory
    dead = memory.tokens_since_fired >= sae.kind.dead_after_tokens
    n_dead = trainable.totals(dead.sum())[0]
    pairs = kernels.top_k(pre_acts, min(sae.kind.k_aux, trainable.spec.n_latents), only=dead)
    difference, d_z = kernels.errors(pairs, sae.W_dec, minus_e.neg())
    spread = (minus_e - minus_e.mean(0)).square_().sum()
    none = (spread == 0) | (n_dead == 0)
    loss = torch.where(none, 0.0, difference.square().sum() / spread)
    scale = torch.where(none, 0.0, 2 * weight / spread)
    d_e_hat, d_z = difference.mul_(scale), d_z.mul_(scale).mul_(pairs.values > 0)
    groups = kernels.group_by_latent(pairs, sae.n_latents)
    kernels.sum_rows(groups, pairs.values, d_e_hat, grads.W_dec, only=dead)
    kernels.sum_rows(groups, d_z, x_enc, grads.W_enc.T, only=dead)
    grads.b_enc.copy_(torch.where(dead, kernels.sum_group(groups, d_z), grads.b_enc))
    along.copy_(torch.where(dead, kernels.sum_group(groups, pairs.values * d_z), along))
    return loss
