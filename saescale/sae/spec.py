"""What one sparse autoencoder is and how it is trained, as one frozen value."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saescale.config import PRECISIONS
from saescale.sae.sparsity import KINDS
from saescale.science import default_dead_after_tokens, default_k_aux


@dataclass(frozen=True)
class SAESpec:
    """The part of a run's settings that the mathematics needs. Lengths are tokens.

    kind               one of sparsity.KINDS: "topk", "relu_l1"
    k                  latents kept per token (topk only)
    sparsity_coeff     lambda of the L1 term, with inputs at mean square norm d_in (relu_l1 only)
    aux_coeff, k_aux   weight and width of AuxK (topk only); k_aux None = the power of two nearest d_in / 2 (Gao et al. 2024)
    dead_after_tokens  silent this long = dead; None = min(10M, 100 n_latents / k) for topk, 10M for other kinds
    precision          "float32", or "bfloat16": what the encoder multiplies in training is rounded (kernels.pre_activations)
    grad_clip          largest global norm of the gradient; None = never clipped
    Raises ValueError, one sentence, for a combination that means nothing.
    """

    kind: str
    d_in: int
    n_latents: int
    k: int | None = None
    sparsity_coeff: float | None = None
    aux_coeff: float = 1 / 32
    k_aux: int | None = None
    dead_after_tokens: int | None = None
    grad_clip: float | None = 1.0
    precision: str = "float32"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    @classmethod
    def of(cls, science: Mapping[str, Any]) -> "SAESpec":
        """The spec of a run's science block."""
        sae, train = science["sae"], science["train"]
        own = {key: sae[key] for key in ("kind", "n_latents", "k", "sparsity_coeff", "aux_coeff", "k_aux")}
        shared = {key: train[key] for key in ("dead_after_tokens", "grad_clip", "precision", "beta1", "beta2", "eps")}
        return cls(d_in=science["lm"]["d_in"], **own, **shared)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"sae.kind={self.kind!r} does not exist: choose one of {', '.join(KINDS)}.")
        for name in ("d_in", "n_latents"):
            if getattr(self, name) < 1:
                raise ValueError(f"sae.{name}={getattr(self, name)} must be at least 1.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"train.precision={self.precision!r} is not known: choose one of {', '.join(PRECISIONS)}.")
        KINDS[self.kind].check(self)
        self._check_optimiser()
        if self.k_aux is None:
            object.__setattr__(self, "k_aux", default_k_aux(self.d_in, self.n_latents))
        if self.dead_after_tokens is None:
            object.__setattr__(self, "dead_after_tokens", default_dead_after_tokens(self.n_latents, self.k))

    def _check_optimiser(self) -> None:
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"train.{name}={getattr(self, name)} must be at least 0 and below 1.")
        if not 0 < self.eps < math.inf:
            raise ValueError(f"train.eps={self.eps} must be above 0.")
        if self.grad_clip is not None and not self.grad_clip > 0:
            raise ValueError(f"train.grad_clip={self.grad_clip} must be above 0, or null for no clipping.")
        if self.dead_after_tokens is not None and self.dead_after_tokens < 1:
            raise ValueError(f"train.dead_after_tokens={self.dead_after_tokens} must be at least 1 token.")
