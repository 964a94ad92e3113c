"""The (token, latent) entries that a step works on: all of them, or the few whose pre-activation passes a floor.

A kind whose rule looks at one entry at a time is written once over `Entries`; the matrix products are here.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saescale.sae import kernels
from saescale.sae.kernels import Groups, Pairs

if TYPE_CHECKING:
    from saescale.sae.step import Trainable

SPARSE_BELOW = 1 / 16  # the dense path is left when the share of entries falls below this: where the two cost the same


@dataclass
class Dense:
    """Every entry. z [token, latent] are pre-activations, and so is the shape of whatever belongs to entries."""

    trainable: "Trainable"
    x_enc: Tensor
    z: Tensor

    @property
    def count(self) -> int:
        return self.z.numel()

    def at(self, per_latent: Tensor) -> Tensor:
        """[latent], to be broadcast over entries."""
        return per_latent

    def sum(self, weights: Tensor) -> Tensor:
        """Sums over tokens: [latent]."""
        return weights.sum(0)

    def latents(self, chosen: Tensor) -> Tensor:
        """The latents with a chosen entry, as Memory.record takes them."""
        return chosen.any(0)

    def errors(self, acts: Tensor, target: Tensor, price: Tensor) -> tuple[Tensor, Tensor]:
        """minus_e = acts W_dec - target [token, d_in], and price + 2 / n_tokens minus_e . W_dec[latent] by entry."""
        W_dec = self.trainable.sae.W_dec
        minus_e = self.trainable.ranks.sum_(self._product(acts, W_dec)).sub_(target)
        if self._rounds:
            return minus_e, self._product(minus_e, W_dec.T).mul_(2 / len(target)).add_(price)
        return minus_e, torch.addmm(price, minus_e, W_dec.T, alpha=2 / len(target))

    def write(self, acts: Tensor, minus_e: Tensor, d_z: Tensor) -> None:
        """grads.W_dec of acts, and grads.W_enc and b_enc of d_z."""
        grads = self.trainable.grads
        self._product(acts.T, minus_e, grads.W_dec).mul_(2 / len(minus_e))
        self._product(d_z.T, self.x_enc, grads.W_enc.T)
        torch.sum(d_z, 0, out=grads.b_enc)

    @property
    def _rounds(self) -> bool:
        """Whether all products are of bf16: on a device, where dense steps would otherwise run at a tenth of its speed."""
        return self.trainable.fixed_shapes and self.trainable.spec.precision == "bfloat16"

    def _product(self, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
        if not self._rounds:
            return torch.mm(a, b, out=out)
        product = torch.mm(a.bfloat16(), b.bfloat16())
        return product.float() if out is None else out.copy_(product)


@dataclass
class Sparse:
    """The entries above a floor. z [entry], and so is the shape of whatever belongs to entries. Methods as in Dense."""

    trainable: "Trainable"
    x_enc: Tensor
    z: Tensor
    pairs: Pairs
    _groups: Groups | None = None

    @property
    def count(self) -> int:
        return len(self.z)

    def at(self, per_latent: Tensor) -> Tensor:
        return per_latent[self.pairs.latents]

    def sum(self, weights: Tensor) -> Tensor:
        return self.trainable.kernels.sum_pairs(self.pairs, weights.to(self.z.dtype), self.trainable.sae.n_latents)

    def latents(self, chosen: Tensor) -> Tensor:
        return self.pairs.latents[chosen]

    def errors(self, acts: Tensor, target: Tensor, price: Tensor) -> tuple[Tensor, Tensor]:
        minus_e, along = self.trainable.kernels.errors(self.pairs._replace(values=acts), self.trainable.sae.W_dec, target)
        return minus_e, along.mul_(2 / len(target)).add_(self.at(price))

    def write(self, acts: Tensor, minus_e: Tensor, d_z: Tensor) -> None:
        grads, backend = self.trainable.grads, self.trainable.kernels
        groups = backend.group_by_latent(self.pairs, len(grads.b_enc))
        backend.sum_rows(groups, acts * (2 / len(minus_e)), minus_e, grads.W_dec)
        backend.sum_rows(groups, d_z, self.x_enc, grads.W_enc.T)
        grads.b_enc.copy_(backend.sum_pairs(self.pairs, d_z, len(grads.b_enc)))


Entries = Dense | Sparse


def read(trainable: "Trainable", x_enc: Tensor, floor: Tensor | None = None) -> Entries:
    """The entries of x_enc [token, d_in]: those above floor [latent] (None: 0), or all while they are many.

    Which of the two follows from how many the last batch had (memory.last_touched), so that a resumed run chooses alike. Kernels
    of a device take all: how many there are is not known here without waiting for it.
    """
    sae, memory = trainable.sae, trainable.memory
    sparse = not trainable.fixed_shapes and bool(memory.last_touched < SPARSE_BELOW * trainable.spec.n_latents)
    bias = sae.b_enc - floor if sparse and floor is not None else sae.b_enc
    z = kernels.pre_activations(x_enc, sae.W_enc, bias, trainable.spec.precision)
    if not sparse:
        return Dense(trainable, x_enc, z)
    pairs = trainable.kernels.positive(z)
    return Sparse(trainable, x_enc, pairs.values if floor is None else pairs.values + floor[pairs.latents], pairs)
