"""FLOPs, each count with its formula. One multiply-add is two FLOPs."""

from __future__ import annotations

from saescale.kinds import KINDS

EVALUATED_SHARE = 0.7  # of what a training token costs, what a held-out token does: measured, for plans and progress


def flops_dense(d_in: int, n_latents: int, n_tokens: int) -> int:
    """Dense-equivalent training compute, the x-axis of every law: C = 12 * d_in * n_latents * n_tokens.

    Two matmuls (encoder, decoder); forward 2 and backward 4 FLOPs per weight and token. Charged for the full horizon,
    whatever sharing saved. Caveat: exact counting gives 10, since the input needs no gradient (SCIENCE.md section 5).
    """
    return 12 * d_in * n_latents * n_tokens


def tokens_for(flops: float, d_in: int, n_latents: int) -> float:
    """The horizon T that spends `flops` of dense-equivalent compute: T = C / (12 * d_in * n_latents)."""
    return flops / (12 * d_in * n_latents)


def flops_executed(kind: str, d_in: int, n_latents: int, n_tokens: int, pairs: float) -> float:
    """FLOPs the kernels really execute in training, on `pairs` (token, latent) pairs in all.

    The dense encoder, 2 d n per token, then 2 d for each pair and product: decoding, the gradient of the values and those of the
    two weights (kinds.KINDS: pair_products). A dense step works on all token * n pairs. Optimiser and selection are not counted.
    """
    return 2.0 * d_in * (n_tokens * n_latents + KINDS[kind].pair_products * pairs)


def flops_lm_forward(n_parameters: int, n_tokens: int) -> int:
    """The language model's forward, 2 FLOPs per parameter and token (Kaplan et al. 2020); attention's n_ctx term left out."""
    return 2 * n_parameters * n_tokens
