"""What one sparse autoencoder is and how it is trained, as one frozen value."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saescale import kinds
from saescale.config import PRECISIONS
from saescale.science import default_dead_after_tokens, default_k_aux

OWN = ("kind", "n_latents", "k", "sparsity_coeff", "aux_coeff", "k_aux", "target_l0", "bandwidth")
SHARED = ("dead_after_tokens", "grad_clip", "precision", "beta1", "beta2", "eps")


@dataclass(frozen=True)
class SAESpec:
    """The part of a run's settings that the mathematics needs. Lengths are tokens; inputs have mean square norm d_in.

    kind               one of saescale.kinds.KINDS, which says what each of the next six settings is read by
    k                  latents kept per token
    sparsity_coeff     weight of the sparsity penalty, or where the search for it begins
    aux_coeff          weight of the auxiliary loss; None = as published
    k_aux              width of AuxK; None = the power of two nearest d_in / 2 (Gao et al. 2024)
    target_l0          active latents per token that sparsity_coeff is solved for; None = it stays as it is
    bandwidth          width of the step function's estimator; None = as published
    dead_after_tokens  silent this long = dead; None = min(10M, 100 n_latents / k), 10M for kinds without k
    precision          "float32", or "bfloat16": what the encoder multiplies in training is rounded (kernels.pre_activations)
    grad_clip          largest global norm of the gradient; None = never clipped
    Raises ValueError, one sentence, for a combination that means nothing.
    """

    kind: str
    d_in: int
    n_latents: int
    k: int | None = None
    sparsity_coeff: float | None = None
    aux_coeff: float | None = None
    k_aux: int | None = None
    target_l0: float | None = None
    bandwidth: float | None = None
    dead_after_tokens: int | None = None
    grad_clip: float | None = 1.0
    precision: str = "float32"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    @classmethod
    def of(cls, science: Mapping[str, Any]) -> "SAESpec":
        """The spec of a run's science block, of this version or an older one with fewer settings."""
        sae, train = science["sae"], science["train"]
        read = kinds.KINDS[sae["kind"]].settings | {"kind", "n_latents"}
        own = {key: sae.get(key) for key in OWN if key in read}
        return cls(d_in=science["lm"]["d_in"], **own, **{key: train[key] for key in SHARED})

    def __post_init__(self) -> None:
        for name in ("d_in", "n_latents"):
            if getattr(self, name) < 1:
                raise ValueError(f"sae.{name}={getattr(self, name)} must be at least 1.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"train.precision={self.precision!r} is not known: choose one of {', '.join(PRECISIONS)}.")
        kinds.check(self.kind, self.n_latents, {key: getattr(self, key) for key in kinds.MEANINGS})
        self._check_optimiser()
        facts = kinds.KINDS[self.kind]
        defaults = {
            "aux_coeff": facts.aux_coeff,
            "k_aux": default_k_aux(self.d_in, self.n_latents) if "k_aux" in facts.settings else None,
            "bandwidth": kinds.default_bandwidth(self.kind, self.d_in),
            "dead_after_tokens": default_dead_after_tokens(self.n_latents, self.k),
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

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
