"""FLOPs, each count with its formula. One multiply-add is two FLOPs."""

from __future__ import annotations


def flops_dense(d_in: int, n_latents: int, n_tokens: int) -> int:
    """Dense-equivalent training compute, the x-axis of every law: C = 12 * d_in * n_latents * n_tokens.

    Two matmuls (encoder, decoder); forward 2 and backward 4 FLOPs per weight and token. Charged for the full horizon,
    whatever sharing saved. Caveat: exact counting gives 10, since the input needs no gradient (SCIENCE.md section 5).
    """
    return 12 * d_in * n_latents * n_tokens


def tokens_for(flops: float, d_in: int, n_latents: int) -> float:
    """The horizon T that spends `flops` of dense-equivalent compute: T = C / (12 * d_in * n_latents)."""
    return flops / (12 * d_in * n_latents)


def flops_executed(kind: str, d_in: int, n_latents: int, n_tokens: int, l0: float) -> float:
    """FLOPs the kernels really execute in training.

    topk: dense encoder 2 d n, then decode, values' gradient and two sparse weight gradients, each 2 l0 d.
    relu_l1: dense encoder and decoder, and both weight gradients and the latents' gradient: 10 d n.
    Optimiser and selection are not counted.
    """
    if kind == "topk":
        return n_tokens * (2 * d_in * n_latents + 8 * l0 * d_in)
    return n_tokens * 10 * d_in * n_latents


def flops_lm_forward(n_parameters: int, n_tokens: int) -> int:
    """The language model's forward, 2 FLOPs per parameter and token (Kaplan et al. 2020); attention's n_ctx term left out."""
    return 2 * n_parameters * n_tokens
