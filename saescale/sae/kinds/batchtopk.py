"""BatchTopK: the k * n_tokens largest activations of a batch, and one threshold for inference."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from saescale.sae.kernels import Pairs
from saescale.sae.kernels.select import above, batch_top_k
from saescale.sae.kinds.topk import TopK

if TYPE_CHECKING:
    from saescale.sae.model import SAE, InputSample
    from saescale.sae.step import Trainable

THRESHOLD_RATE = 0.01  # of the running mean, as in SAELens: a hundred batches, so that it keeps up with the last decay
FIRST_TOKENS = 256  # inputs of the sample that give the threshold of an untrained one


@dataclass(frozen=True)
class BatchTopK(TopK):
    """As TopK, but a batch of m tokens keeps its m k largest activations, however they fall on the tokens.

    Inference, held-out evaluation and export included, keeps what is above `threshold`: the running mean of the smallest active
    value of a batch, in the first batches the plain mean. Source: Bussmann et al. 2024.
    """

    name: ClassVar[str] = "batchtopk"
    architecture: ClassVar[str] = "jumprelu"
    training_architecture: ClassVar[str | None] = "batchtopk"

    def export_settings(self) -> dict[str, Any]:
        return {}

    def scalars(self, n_latents: int) -> dict[str, float]:  # noqa: ARG002
        return {"threshold": 0.0}

    def begin(self, sae: "SAE", sample: "InputSample | None") -> None:
        rows = sample.rows[:FIRST_TOKENS]
        kept = batch_top_k(sae.pre_acts(rows), self.k * len(rows)).values
        sae.own["threshold"].fill_(kept.amin() if len(kept) else 0.0)

    def activate(self, sae: "SAE", pre_acts: Tensor) -> Pairs:
        return above(pre_acts, sae.own["threshold"].to(pre_acts.dtype))

    def select(self, trainable: "Trainable", pre_acts: Tensor) -> Pairs:
        pairs = trainable.kernels.batch_top_k(pre_acts, self.k * len(pre_acts))
        if trainable.fixed_shapes:
            self._follow(trainable, pairs.values)
            return pairs
        least = trainable.ranks.least(float(pairs.values.amin()) if len(pairs.values) else math.inf)[0]
        if least < math.inf or math.isnan(least):
            rate = max(THRESHOLD_RATE, 1 / (1 + float(trainable.adam.step)))
            threshold = trainable.memory.own["threshold"]
            threshold += rate * (least - threshold)
        return pairs

    def _follow(self, trainable: "Trainable", values: Tensor) -> None:
        """Moves the threshold towards the least active value as below, without waiting for it."""
        least = torch.where(values <= 0, math.inf, values).amin().double()
        if trainable.ranks.size > 1:
            least = least.new_tensor(trainable.ranks.least(float(least))[0])
        rate = (1 / (1 + trainable.adam.step.double())).clamp_min(THRESHOLD_RATE)
        threshold = trainable.memory.own["threshold"]
        threshold.copy_(torch.where(least == math.inf, threshold, threshold + rate * (least - threshold)))

    def unscale_(self, own: dict[str, Tensor], scale: float) -> None:
        own["threshold"] = own["threshold"] / scale

    def exported(self, sae: "SAE") -> dict[str, Tensor]:
        return {"b_enc": sae.b_enc, "threshold": torch.full_like(sae.b_enc, float(sae.own["threshold"]))}

    def imported(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return tensors["b_enc"], {"threshold": tensors["threshold"][0]}
