"""What a kind of SAE is. A new kind is a subclass with `objective`, `gradients` and what it does otherwise than here."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from saescale.sae import control
from saescale.sae.kernels import Pairs
from saescale.sae.kernels.select import above
from saescale.sae.losses import Scalar, Terms

if TYPE_CHECKING:
    from saescale.sae.model import SAE, InputSample
    from saescale.sae.spec import SAESpec
    from saescale.sae.step import Trainable


@dataclass(frozen=True)
class Kind:
    """One kind, as a frozen value of its settings, which are named as in SAESpec.

    name                saescale's word for it, a key of saescale.kinds.KINDS
    architecture        SAELens' word for its inference function; `training_architecture` where SAELens trains it under another
    subtracts_b_dec     the encoder reads x - b_dec
    starts_at_median    b_dec begins at the geometric median of the inputs, else at 0
    unit_decoder        decoder rows stay at norm 1, their gradients orthogonal to them
    init_scale          norm of the decoder rows at initialisation
    vectors             names of its trained vectors [n_latents] beside b_enc: sae.own[name]
    """

    name: ClassVar[str]
    architecture: ClassVar[str]
    training_architecture: ClassVar[str | None] = None
    subtracts_b_dec: ClassVar[bool] = False
    starts_at_median: ClassVar[bool] = False
    unit_decoder: ClassVar[bool] = True
    init_scale: ClassVar[float] = 1.0
    vectors: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_spec(cls, spec: "SAESpec") -> "Kind":
        return cls(**{field.name: getattr(spec, field.name) for field in fields(cls)})

    def inference_settings(self) -> dict[str, Any]:
        """The settings that rebuild it around exported weights."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def export_settings(self) -> dict[str, Any]:
        """Its own keys of SAELens' cfg.json."""
        return {}

    def scalars(self, n_latents: int) -> dict[str, float]:  # noqa: ARG002
        """What adapts during training besides the parameters, checkpointed as float64 []: name -> value before the first step."""
        return {}

    def draw(self, W_dec: Tensor, generator: torch.Generator) -> None:
        """Fills W_dec at initialisation: random directions of norm init_scale."""
        torch.randn(W_dec.shape, generator=generator, out=W_dec)
        W_dec.mul_(self.init_scale / W_dec.norm(dim=1, keepdim=True))

    def begin(self, sae: "SAE", sample: "InputSample | None") -> None:
        """What its initialisation does after the common one (model.init): writes into `sae`."""

    def activate(self, sae: "SAE", pre_acts: Tensor) -> Pairs:  # noqa: ARG002
        """The encoding rule of inference: the active pairs of pre_acts [token, n_latents]."""
        return above(pre_acts, pre_acts.new_zeros(()))

    def objective(self, sae: "SAE", x: Tensor, x_hat: Tensor, pairs: Pairs) -> Tensor:
        """The held-out objective per token [token]: the training loss without auxiliary terms."""
        raise NotImplementedError

    def gradients(self, trainable: "Trainable", x: Tensor, sparsity_scale: float) -> Terms:
        """Forward and backward of one batch x [token, d_in]; all of trainable.grads is written."""
        raise NotImplementedError

    def unscale_(self, own: dict[str, Tensor], scale: float) -> None:
        """Turns `own` of inputs x into that of inputs x / scale, in place."""

    def exported(self, sae: "SAE") -> dict[str, Tensor]:
        """The tensors of SAELens' file beside W_enc, W_dec and b_dec."""
        return {"b_enc": sae.b_enc}

    def imported(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """b_enc and `own` from the tensors of `exported`."""
        return tensors["b_enc"], {}


@dataclass(frozen=True)
class PenaltyKind(Kind):
    """Its sparsity comes from a penalty. With target_l0 its weight begins at sparsity_coeff and is solved for (control.py)."""

    sparsity_coeff: float
    target_l0: float | None = None

    def scalars(self, n_latents: int) -> dict[str, float]:  # noqa: ARG002
        return {} if self.target_l0 is None else control.scalars(self.sparsity_coeff)

    def weight(self, sae: "SAE", ramp: Scalar) -> Scalar:
        """The penalty's weight in training: times the warm-up's share, unless the control has the warm-up in its set point."""
        if self.target_l0 is None:
            return ramp * self.sparsity_coeff
        coeff = sae.own["sparsity_coeff"]
        return coeff.item() if coeff.is_cpu and not isinstance(ramp, Tensor) else coeff  # a device is not waited for

    @property
    def held_out_weight(self) -> float:
        """The penalty's weight in the held-out objective. None under control: l0 is then a constraint, and the loss of runs with
        other weights but one l0 is their squared error."""
        return self.sparsity_coeff if self.target_l0 is None else 0.0
