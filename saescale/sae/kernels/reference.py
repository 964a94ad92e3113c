"""The losses written out densely for autograd, in any dtype: slow, obvious, used by the tests alone.

params: dict of W_enc [d_in, n_latents], b_enc, W_dec [n_latents, d_in], b_dec and the kind's vectors. x [token, d_in].
"""

import torch
from torch import Tensor

Params = dict[str, Tensor]


def topk_loss(params: Params, x: Tensor, k: int, dead: Tensor | None = None, k_aux: int = 1, aux_weight: float = 0.0) -> Tensor:
    """mean over tokens of |x - x_hat|^2, plus aux_weight * AuxK over the latents where the mask dead [n_latents] is true."""
    pre_acts = (x - params["b_dec"]) @ params["W_enc"] + params["b_enc"]
    x_hat = torch.relu(_only_largest(pre_acts, k)) @ params["W_dec"] + params["b_dec"]
    loss = (x - x_hat).pow(2).sum(dim=1).mean()
    return loss + _aux_k(params, pre_acts, x - x_hat, dead, k_aux, aux_weight)


def batchtopk_loss(params: Params, x: Tensor, k: int, dead: Tensor | None = None, k_aux: int = 1, aux_weight: float = 0.0,
                   prefixes: tuple[int, ...] | None = None) -> Tensor:
    """topk_loss with the k len(x) largest of the whole batch; prefixes: the mean of the losses of the first so many latents."""
    pre_acts = (x - params["b_dec"]) @ params["W_enc"] + params["b_enc"]
    acts = torch.relu(_only_largest(pre_acts.reshape(1, -1), k * len(x)).view_as(pre_acts))
    x_hats = [acts[:, :end] @ params["W_dec"][:end] + params["b_dec"] for end in prefixes or (acts.shape[1],)]
    loss = torch.stack([(x - x_hat).pow(2).sum(dim=1).mean() for x_hat in x_hats]).mean()
    return loss + _aux_k(params, pre_acts, x - x_hats[-1], dead, k_aux, aux_weight)


def _aux_k(params: Params, pre_acts: Tensor, residual: Tensor, dead: Tensor | None, k_aux: int, aux_weight: float) -> Tensor:
    if dead is None or not dead.any():
        return torch.zeros((), dtype=residual.dtype)
    e = residual.detach()
    among_dead = torch.where(dead, pre_acts, torch.full_like(pre_acts, -torch.inf))
    z_aux = torch.relu(_only_largest(among_dead, min(k_aux, int(dead.sum()))))
    e_hat = z_aux @ params["W_dec"]
    return aux_weight * (e_hat - e).pow(2).sum() / (e - e.mean(dim=0)).pow(2).sum()


def relu_l1_loss(params: Params, x: Tensor, sparsity_coeff: float) -> Tensor:
    """mean over tokens of |x - x_hat|^2 + sparsity_coeff * sum_i f_i |W_dec[i]|."""
    f = torch.relu(x @ params["W_enc"] + params["b_enc"])
    x_hat = f @ params["W_dec"] + params["b_dec"]
    penalty = (f * params["W_dec"].norm(dim=1)).sum(dim=1)
    return ((x - x_hat).pow(2).sum(dim=1) + sparsity_coeff * penalty).mean()


class _Step(torch.autograd.Function):
    """1[z > theta], whose derivative by z - theta is taken as a rectangle of area 1; it reaches theta alone, or both."""

    @staticmethod
    def forward(ctx, z: Tensor, theta: Tensor, width: float, reaches_z: bool) -> Tensor:  # noqa: ANN001
        ctx.save_for_backward(z, theta)
        ctx.width, ctx.reaches_z = width, reaches_z
        return (z > theta).to(z.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor, None, None]:  # noqa: ANN001
        z, theta = ctx.saved_tensors
        slope = grad * ((z - theta).abs() < ctx.width / 2) / ctx.width
        return slope if ctx.reaches_z else None, -slope.sum(dim=0), None, None


def _jump(z: Tensor, theta: Tensor, width: float, reaches_z: bool) -> Tensor:
    """z 1[z > theta], whose jump has the height theta: z where it is open, theta times the step's slope."""
    is_open = (z > theta).to(z.dtype)
    step = _Step.apply(z, theta, width, reaches_z)
    return z * is_open + theta.detach() * (step - step.detach())


def jumprelu_loss(params: Params, x: Tensor, sparsity_coeff: float, bandwidth: float) -> Tensor:
    """mean over tokens of |x - x_hat|^2 + sparsity_coeff * sum_i 1[z_i > theta_i]; the step's slope reaches theta alone."""
    theta = params["log_threshold"].exp()
    z = (x - params["b_dec"]) @ params["W_enc"] + params["b_enc"]
    x_hat = _jump(z, theta, bandwidth, reaches_z=False) @ params["W_dec"] + params["b_dec"]
    l0 = _Step.apply(z, theta, bandwidth, False).sum(dim=1)
    return ((x - x_hat).pow(2).sum(dim=1) + sparsity_coeff * l0).mean()


def jumprelu_tanh_loss(params: Params, x: Tensor, sparsity_coeff: float, bandwidth: float, aux_coeff: float) -> Tensor:
    """mean over tokens of |x - x_hat|^2 + sparsity_coeff sum_i tanh(4 f_i |W_i|) + aux_coeff sum_i ReLU(theta_i - z_i) |W_i|."""
    theta, norms = params["log_threshold"].exp(), params["W_dec"].norm(dim=1)
    z = x @ params["W_enc"] + params["b_enc"]
    f = _jump(z, theta, bandwidth, reaches_z=True)
    x_hat = f @ params["W_dec"] + params["b_dec"]
    penalty = torch.tanh(4 * f * norms).sum(dim=1)
    silent = (torch.relu(theta - z) * norms).sum(dim=1)
    return ((x - x_hat).pow(2).sum(dim=1) + sparsity_coeff * penalty + aux_coeff * silent).mean()


def gated_loss(params: Params, x: Tensor, sparsity_coeff: float) -> Tensor:
    """mean over tokens of |x - x_hat|^2 + sparsity_coeff * sum_i ReLU(z_i) + |x - x_hat of ReLU(z), decoder frozen|^2."""
    w = (x - params["b_dec"]) @ params["W_enc"]
    z, m = w + params["b_enc"], params["r_mag"].exp() * w + params["b_mag"]
    x_hat = ((z > 0) * torch.relu(m)) @ params["W_dec"] + params["b_dec"]
    x_hat_frozen = torch.relu(z) @ params["W_dec"].detach() + params["b_dec"].detach()
    penalty = sparsity_coeff * torch.relu(z).sum(dim=1)
    return ((x - x_hat).pow(2).sum(dim=1) + penalty + (x - x_hat_frozen).pow(2).sum(dim=1)).mean()


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
