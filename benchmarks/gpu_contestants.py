"""Who takes steps on a GPU: saescale, the same SAE in plain dense PyTorch, and the peers that can be imported.

A maker takes Shape and gives step(x), or raises: what cannot be made is named with the reason.
"""

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.inputs import activations
from benchmarks.shape import Shape
from saescale.sae import kernels, model
from saescale.sae.graph import Recorded
from saescale.sae.kinds import KINDS
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

Step = Callable[[Tensor], object]


@cache
def inputs(batch: int, d_in: int, n_batches: int, device: str) -> list[Tensor]:
    """Batches of the features all our benchmarks train on: a few latents are hot, as in a language model."""
    return list(activations(n_batches * batch, d_in).to(device).view(n_batches, batch, d_in))


def trainable(s: Shape, backend: str, precision: str = "bfloat16", seed: int = 0) -> Trainable:
    """An SAE that begins on the device itself: at 2^20 latents the processor would take minutes to draw it.

    relu_l1 begins with a bias that lets about l0 latents fire.
    """
    own = {"sparsity_coeff": s.sparsity_coeff} if s.kind == "relu_l1" else {"k": s.k}
    spec = SAESpec(s.kind, s.d_in, s.n_latents, precision=precision, dead_after_tokens=s.dead_after_tokens, **own)
    kind = KINDS[s.kind].from_spec(spec)
    flat = torch.zeros(model.n_params(kind, s.d_in, s.n_latents), device=s.device)
    sae = model.views(kind, flat, s.d_in, s.n_latents)
    generator = torch.Generator(s.device).manual_seed(seed)
    for first in range(0, s.n_latents, 2**14):
        part = sae.W_dec[first : first + 2**14]
        part.normal_(generator=generator)
        part.mul_(kind.init_scale / torch.linalg.vector_norm(part, dim=1, keepdim=True))
        sae.W_enc[:, first : first + 2**14].copy_(part.T)
    sae.own |= {name: tensor.to(s.device) for name, tensor in model.scalars(kind, s.n_latents).items()}
    if s.kind == "relu_l1":
        share = min(0.5, s.l0 / s.n_latents)  # pre-activations are about normal, with this deviation
        sae.b_enc.fill_(float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64))) * kind.init_scale)
    made = Trainable(spec, sae, float(s.d_in), backend, device=s.device)
    made.read_stats()  # no latent is dead yet: AuxK has nothing to do, as with the peers
    return made


def ours(s: Shape, backend: str, precision: str = "bfloat16", records: bool = True) -> Step:
    member = trainable(s, backend, precision)
    if not records:
        return lambda x: member.step(x, s.lr)
    recorded = Recorded([member], s.batch)
    return lambda x: recorded.step(x, [(s.lr, 1.0)])


def ours_in_a_fleet(s: Shape, backend: str, n_members: int) -> Step:
    """n_members SAEs on the same batches, in one recording."""
    recorded = Recorded([trainable(s, backend, seed=i) for i in range(n_members)], s.batch)
    return lambda x: recorded.step(x, [(s.lr, 1.0)] * n_members)


def dense(s: Shape) -> Step:
    """The SAE as one would write it first: autograd through dense activations, autocast to bf16, Adam of torch."""
    def parameter(*shape: int) -> Tensor:
        return torch.nn.Parameter(torch.randn(shape, device=s.device) / shape[-1] ** 0.5 if len(shape) > 1
                                  else torch.zeros(shape, device=s.device))
    W_enc, b_enc, W_dec, b_dec = (parameter(s.d_in, s.n_latents), parameter(s.n_latents), parameter(s.n_latents, s.d_in),
                                  parameter(s.d_in))
    params = [W_enc, b_enc, W_dec, b_dec]
    adam = torch.optim.Adam(params, lr=s.lr, fused=True)

    def step(x: Tensor) -> None:
        with torch.autocast(torch.device(s.device).type, torch.bfloat16):
            acts = torch.relu((x - b_dec) @ W_enc + b_enc)
            if s.kind == "topk":
                values, latents = acts.topk(s.k, dim=1, sorted=False)
                acts = torch.zeros_like(acts).scatter(1, latents, values)
            elif s.kind == "batchtopk":
                values, places = acts.flatten().topk(s.k * len(x), sorted=False)
                acts = torch.zeros_like(acts).flatten().scatter(0, places, values).view_as(acts)
            x_hat = acts @ W_dec + b_dec
            loss = (x_hat.float() - x).square().sum(1).mean()
            if s.kind == "relu_l1":
                loss = loss + s.sparsity_coeff * (acts.float() * W_dec.norm(dim=1)).sum(1).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        adam.step()
        adam.zero_grad()
    return step


def peer(name: str) -> Callable[[Shape], Step]:
    """Its own step, under bf16 autocast."""
    def make(s: Shape) -> Step:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            step = peers.PEERS[name](s)
        if step is None:
            raise ValueError(f"{name} has no {s.kind}")

        def rounded(x: Tensor) -> None:
            with torch.autocast(torch.device(s.device).type, torch.bfloat16):
                step(x)
        return rounded
    return make


def best_kernels(device: str) -> str:
    return kernels.resolve("triton" if kernels.find_spec("triton") else "torch", device)


def contestants(s: Shape, full: bool) -> dict[str, Callable[[], Step]]:
    """Names and makers; `full`: the peers and the slower ways of ours too."""
    best = best_kernels(s.device)
    found: dict[str, Callable[[], Step]] = {"saescale": lambda: ours(s, best)}
    if full:
        found |= {"saescale, one launch at a time": lambda: ours(s, best, records=False),
                  "saescale, plain torch kernels": lambda: ours(s, "torch"),
                  "saescale, fp32": lambda: ours(s, best, "float32"),
                  "dense PyTorch": lambda: dense(s)}
        for name in peers.PEERS:
            found[name] = lambda name=name: peer(name)(s)
    return found
