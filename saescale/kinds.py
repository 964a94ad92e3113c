"""What may be said of each SAE kind, and what planning must know of it, without torch. The mathematics is in sae/kinds/."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MEANINGS = {"k": "latents kept per token", "sparsity_coeff": "the weight of a sparsity penalty",
            "aux_coeff": "the weight of an auxiliary loss", "k_aux": "dead latents in the auxiliary loss",
            "target_l0": "the l0 that the penalty's weight is solved for", "bandwidth": "the width of the step's estimator"}


@dataclass(frozen=True)
class KindFacts:
    """One kind.

    settings            keys of `sae` it reads beside kind and n_latents; any other must be null (aux_coeff: 0)
    vectors             trained vectors [n_latents] beside b_enc
    aux_coeff           default weight of its auxiliary loss
    bandwidth           default width of the step function's estimator, in units of sqrt(d_in) if `bandwidth_by_norm`
    pair_products       products by d_in of a step for every (token, latent) pair it works on, beside the encoder's
    passing_bytes       memory a dense step needs for a while, per token and latent; measured: 8 with k, else 18, 20, 29 and 31
    reconstructions     of a step, which ranks that share one SAE must sum; AuxK not counted
    selects_over_batch  what a token keeps depends on the whole batch: it must not be trained in microbatches
    """

    settings: frozenset[str]
    vectors: int = 0
    aux_coeff: float = 0.0
    bandwidth: float | None = None
    bandwidth_by_norm: bool = False
    pair_products: int = 4
    passing_bytes: int = 16
    reconstructions: int = 1
    selects_over_batch: bool = False

    @property
    def keeps_k(self) -> bool:
        """Its sparsity is set by k, not by the weight of a penalty; its encoder alone is dense."""
        return "k" in self.settings


TOP_K = frozenset({"k", "aux_coeff", "k_aux"})
PENALTY = frozenset({"sparsity_coeff", "target_l0"})
KINDS = {
    "batchtopk": KindFacts(TOP_K, aux_coeff=1 / 32, passing_bytes=12, selects_over_batch=True),
    "gated": KindFacts(PENALTY, vectors=2, pair_products=6, reconstructions=2, passing_bytes=34),
    "jumprelu": KindFacts(PENALTY | {"bandwidth"}, vectors=1, bandwidth=1e-3, bandwidth_by_norm=True, passing_bytes=24),
    "jumprelu_tanh": KindFacts(PENALTY | {"bandwidth", "aux_coeff"}, vectors=1, aux_coeff=3e-6, bandwidth=2.0, passing_bytes=36),
    "matryoshka": KindFacts(TOP_K, aux_coeff=1 / 32, pair_products=5, reconstructions=5, passing_bytes=12,
                             selects_over_batch=True),
    "relu_l1": KindFacts(PENALTY, passing_bytes=20),
    "topk": KindFacts(TOP_K, aux_coeff=1 / 32, passing_bytes=12),
}
LEAST_LATENTS = {"matryoshka": 32}  # its smallest group is 1/32 of them


def default_bandwidth(kind: str, d_in: int) -> float | None:
    """The published width at inputs of mean square norm d_in; a width published for norm 1 is multiplied by sqrt(d_in)."""
    facts = KINDS[kind]
    return facts.bandwidth and float(f"{facts.bandwidth * (math.sqrt(d_in) if facts.bandwidth_by_norm else 1.0):.6g}")


def check(kind: str, n_latents: int, given: Mapping[str, Any]) -> None:
    """Raises ValueError, one sentence, unless `given` (the keys of MEANINGS) is what this kind needs and can use."""
    if kind not in KINDS:
        raise ValueError(f"sae.kind={kind!r} is not known. Choose one of: {', '.join(KINDS)}.")
    settings = KINDS[kind].settings
    for key, meaning in MEANINGS.items():
        value = given.get(key)
        if key not in settings and value is not None and not (key == "aux_coeff" and value == 0):
            readers = ", ".join(k for k, facts in KINDS.items() if key in facts.settings)
            neutral = "0" if key == "aux_coeff" else "null"
            raise ValueError(f"sae.{key}={value} is of no use to sae={kind}: {meaning} is read by {readers}. "
                             f"Set it to {neutral}, or in a sweep under by_kind.")
    if n_latents < LEAST_LATENTS.get(kind, 1):
        raise ValueError(f"sae.n_latents={n_latents} is too few for sae={kind}: choose at least {LEAST_LATENTS.get(kind, 1)}.")
    _check_counts(kind, n_latents, given)
    _check_weights(kind, n_latents, given)


def _check_counts(kind: str, n_latents: int, given: Mapping[str, Any]) -> None:
    k, k_aux = given.get("k"), given.get("k_aux")
    if KINDS[kind].keeps_k and (k is None or k < 1):
        raise ValueError(f"sae.k={k} is out of range: sae={kind} keeps k latents per token. Choose k >= 1.")
    if k is not None and k > n_latents:
        raise ValueError(f"sae.k={k} exceeds sae.n_latents={n_latents}: k counts the latents kept per token. "
                         f"Choose k <= {n_latents}.")
    if k_aux is not None and not 1 <= k_aux <= n_latents:
        raise ValueError(f"sae.k_aux={k_aux} is out of range: it counts dead latents of sae.n_latents={n_latents}. "
                         f"Choose 1 <= k_aux <= {n_latents} or null.")


def _check_weights(kind: str, n_latents: int, given: Mapping[str, Any]) -> None:
    coeff, target, aux, width = (given.get(key) for key in ("sparsity_coeff", "target_l0", "aux_coeff", "bandwidth"))
    if "sparsity_coeff" in KINDS[kind].settings:
        if coeff is None or not 0 <= coeff < math.inf:
            raise ValueError(f"sae.sparsity_coeff={coeff} is out of range: sae={kind} needs a coefficient of 0 or more.")
        if target is not None and not 0 < target < n_latents / 2:
            raise ValueError(f"sae.target_l0={target} is out of range: it counts active latents per token of "
                             f"sae.n_latents={n_latents}. Choose it above 0 and below {n_latents / 2:g}, or null.")
        if target is not None and coeff == 0:
            raise ValueError("sae.sparsity_coeff=0 cannot be solved for sae.target_l0: it is where the search begins. "
                             "Give a coefficient above 0.")
    if aux is not None and not 0 <= aux < math.inf:
        raise ValueError(f"sae.aux_coeff={aux} is out of range: it must be 0 or more.")
    if width is not None and not 0 < width < math.inf:
        raise ValueError(f"sae.bandwidth={width} is out of range: it must be above 0, or null for the published one.")
