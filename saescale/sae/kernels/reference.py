"""The losses written out densely for autograd, in any dtype: slow, obvious, used by the tests alone.

params: dict of W_enc [d_in, n_latents], b_enc, W_dec [n_latents, d_in], b_dec. x [token, d_in].
"""

import torch
from torch import Tensor

Params = dict[str, Tensor]


def topk_loss(params: Params, x: Tensor, k: int, dead: Tensor | None = None, k_aux: int = 1, aux_weight: float = 0.0) -> Tensor:
    """mean over tokens of |x - x_hat|^2, plus aux_weight * AuxK over the latents where the mask dead [n_latents] is true."""
    pre_acts = (x - params["b_dec"]) @ params["W_enc"] + params["b_enc"]
    x_hat = torch.relu(_only_largest(pre_acts, k)) @ params["W_dec"] + params["b_dec"]
    loss = (x - x_hat).pow(2).sum(dim=1).mean()
    if dead is None or not dead.any():
        return loss
    e = (x - x_hat).detach()
    among_dead = torch.where(dead, pre_acts, torch.full_like(pre_acts, -torch.inf))
    z_aux = torch.relu(_only_largest(among_dead, min(k_aux, int(dead.sum()))))
    e_hat = z_aux @ params["W_dec"]
    return loss + aux_weight * (e_hat - e).pow(2).sum() / (e - e.mean(dim=0)).pow(2).sum()


def relu_l1_loss(params: Params, x: Tensor, sparsity_coeff: float) -> Tensor:
    """mean over tokens of |x - x_hat|^2 + sparsity_coeff * sum_i f_i |W_dec[i]|."""
    f = torch.relu(x @ params["W_enc"] + params["b_enc"])
    x_hat = f @ params["W_dec"] + params["b_dec"]
    penalty = (f * params["W_dec"].norm(dim=1)).sum(dim=1)
    return ((x - x_hat).pow(2).sum(dim=1) + sparsity_coeff * penalty).mean()


def gradients(loss: Tensor, params: Params, unit_decoder: bool) -> Params:
    """d loss / d params; with unit_decoder, W_dec's without the component along each row."""
    grads = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
    if unit_decoder:
        W_dec = params["W_dec"].detach()
        grads["W_dec"] = grads["W_dec"] - (grads["W_dec"] * W_dec).sum(dim=1, keepdim=True) * W_dec
    return grads


def _only_largest(rows: Tensor, k: int) -> Tensor:
    """rows with minus infinity in place of all but the k largest entries of each row."""
    kept = torch.zeros_like(rows, dtype=torch.bool)
    kept.scatter_(1, rows.topk(k, dim=1).indices, True)
    return torch.where(kept, rows, torch.full_like(rows, -torch.inf))
