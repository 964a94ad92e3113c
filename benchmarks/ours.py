"""Our training step with each of the kernels and precisions, and the parts of it that no method can leave out."""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.shape import Shape
from saescale.config import PRECISIONS
from saescale.sae.kernels import BACKENDS, backend
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

MATMUL, OPTIMISER = "encoder matmul", "optimiser traffic"


def ours(s: Shape, kernels: str, precision: str, sample: Tensor) -> Callable[[Tensor], object]:
    knobs = {"k": s.k} if s.kind == "topk" else {"sparsity_coeff": s.sparsity_coeff}
    spec = SAESpec(s.kind, s.d_in, s.n_latents, dead_after_tokens=s.dead_after_tokens, precision=precision, **knobs)
    trainable = Trainable.create(spec, 0, InputSample.of(sample), kernels)
    if s.kind == "relu_l1":
        pre_acts = trainable.sae.pre_acts(sample[:256])
        trainable.sae.b_enc.fill_(-float(pre_acts.flatten().kthvalue(int(pre_acts.numel() * (1 - s.l0 / s.n_latents))).values))

    def step(x: Tensor) -> float:
        trainable.step(x, s.lr)
        return float(trainable.memory.last_l0)

    return step


def encoder_matmul(s: Shape, precision: str) -> Callable[[Tensor], object]:
    """[batch, d_in] times [d_in, n_latents] into memory that is there already."""
    dtype = getattr(torch, precision)
    W, out = torch.randn(s.n_latents, s.d_in, dtype=dtype), torch.empty(s.batch, s.n_latents, dtype=dtype)
    return lambda x: torch.mm(x.to(dtype), W.T, out=out)


def optimiser(s: Shape) -> Callable[[Tensor], object]:
    """Adam over all parameters, torch's fused one: four vectors read and three written."""
    params, grad, *moments = torch.randn(4, 2 * s.d_in * s.n_latents + s.n_latents + s.d_in).abs_().mul_(1e-3).unbind()
    step = torch.tensor(1.0)

    def update(_: Tensor) -> None:
        torch._fused_adam_([params], [grad], [moments[0]], [moments[1]], [], [step], lr=1e-4, beta1=0.9, beta2=0.999,
                           weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False)

    return update


def contestants(s: Shape, sample: Tensor) -> dict[str, Callable[[Tensor], object]]:
    """By name; kernels that are not installed are left out."""
    made = {}
    for name in BACKENDS:
        try:
            backend(name)
        except ValueError:
            continue
        made |= {f"saescale {precision}, {name} kernels": ours(s, name, precision, sample) for precision in PRECISIONS}
    return made | {f"{MATMUL} {precision}": encoder_matmul(s, precision) for precision in PRECISIONS} | {OPTIMISER: optimiser(s)}
