"""The one SAE class: parameters, initialisation and inference."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from saescale.sae import kernels
from saescale.sae.kernels import Pairs
from saescale.sae.kinds import KINDS, Kind
from saescale.sae.spec import SAESpec

WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_dec")
SAMPLE_ROWS = 1024
INFERENCE_TOKENS = 1024  # encode this many tokens at once, so that pre-activations stay small


@dataclass
class SAE:
    """A sparse autoencoder of d_in numbers in n_latents latents.

        pre_acts    = (x - b_dec) W_enc + b_enc      b_dec is subtracted by kinds with subtracts_b_dec (topk), else read as 0
        latent_acts = kind.activate(sae, pre_acts)   topk: ReLU of the k largest; relu_l1: ReLU; others have a file each in kinds/
        x_hat       = latent_acts W_dec + b_dec

    W_enc [d_in, n_latents]   transposed view of contiguous [n_latents, d_in] storage: one latent's encoder is contiguous
    b_enc [n_latents]
    W_dec [n_latents, d_in]
    b_dec [d_in]
    own   what only this kind has: trained vectors [n_latents] (kind.vectors), and scalars [] that adapt (Kind.scalars)
    In training x has mean square norm d_in; an exported SAE takes raw activations. Plain tensors, no autograd.
    """

    kind: Kind
    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    own: dict[str, Tensor] = field(default_factory=dict)

    @property
    def d_in(self) -> int:
        return self.W_dec.shape[1]

    @property
    def n_latents(self) -> int:
        return self.W_dec.shape[0]

    def params(self) -> dict[str, Tensor]:
        """What is trained."""
        common = {"W_enc": self.W_enc, "b_enc": self.b_enc, "W_dec": self.W_dec, "b_dec": self.b_dec}
        return common | {name: self.own[name] for name in self.kind.vectors if name in self.own}

    def clone(self) -> "SAE":
        """A copy that shares no memory."""
        copies = {name: getattr(self, name).clone(memory_format=torch.preserve_format) for name in WEIGHTS}
        return replace(self, **copies, own={name: tensor.clone() for name, tensor in self.own.items()})

    def to(self, device: str | torch.device) -> "SAE":
        """This SAE on a device, its layout kept; what lies there already is shared."""
        moved = {name: getattr(self, name).to(device) for name in WEIGHTS}
        return replace(self, **moved, own={name: tensor.to(device) for name, tensor in self.own.items()})

    def pre_acts(self, x: Tensor) -> Tensor:
        """[token, n_latents] of x [token, d_in]."""
        return torch.addmm(self.b_enc, x - self.b_dec if self.kind.subtracts_b_dec else x, self.W_enc)

    def encode(self, x: Tensor) -> Tensor:
        """latent_acts, dense [token, n_latents], of x [token, d_in]."""
        pairs = self.encode_pairs(x)
        latent_acts = self.W_dec.new_zeros(len(x), self.n_latents)
        latent_acts[pairs.tokens, pairs.latents] = pairs.values
        return latent_acts

    def encode_pairs(self, x: Tensor) -> Pairs:
        """The active (token, latent) pairs of x [token, d_in], grouped by token, a few tokens at a time."""
        parts = [self.kind.activate(self, self.pre_acts(part)) for part in x.split(INFERENCE_TOKENS)]
        counts = torch.cat([part.row_offsets.diff() for part in parts])
        return Pairs(
            values=torch.cat([part.values for part in parts]),
            tokens=torch.arange(len(x), device=x.device).repeat_interleave(counts),
            latents=torch.cat([part.latents for part in parts]),
            row_offsets=torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        )

    def encode_sparse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(values, indices), both [token, k], of x [token, d_in]; kept values may be 0. Only for kinds with a fixed k."""
        if self.kind.name != "topk":
            raise ValueError(f"{self.kind.name} keeps no fixed number of latents per token: use encode_pairs for it.")
        pairs = self.encode_pairs(x)
        return pairs.values.view(len(x), -1), pairs.latents.view(len(x), -1)

    def decode(self, latent_acts: Tensor) -> Tensor:
        """x_hat [token, d_in] of dense latent_acts [token, n_latents]."""
        return torch.addmm(self.b_dec, latent_acts, self.W_dec)

    def decode_pairs(self, pairs: Pairs) -> Tensor:
        """x_hat [token, d_in] of active pairs."""
        return kernels.of(pairs.values).decode(pairs, self.W_dec).add_(self.b_dec)

    def reconstruct(self, x: Tensor) -> Tensor:
        """x_hat [token, d_in] of x [token, d_in]: decode(encode(x)) without the dense activations."""
        return self.decode_pairs(self.encode_pairs(x))

    def objective(self, x: Tensor, x_hat: Tensor, pairs: Pairs) -> Tensor:
        """The training loss without auxiliary terms, per token [token]; `pairs` are the active pairs of x."""
        return self.kind.objective(self, x, x_hat, pairs)


@dataclass(frozen=True)
class InputSample:
    """What initialisation needs of the inputs, measured once and shared by all SAEs on the same stream.

    median    [d_in] float32, geometric median
    variance  sum over d_in of the variance about the mean
    rows      [token, d_in] float32, some of the inputs themselves
    """

    median: Tensor
    variance: float
    rows: Tensor

    @classmethod
    def of(cls, x0: Tensor) -> "InputSample":
        """From sample inputs x0 [token, d_in] at the training scale; at most the first 32,768 are used (Gao et al. 2024)."""
        if x0.ndim != 2 or len(x0) < 1:
            raise ValueError(f"the sample of inputs has shape {tuple(x0.shape)}: give at least one row of d_in numbers.")
        rows, x0 = x0[:SAMPLE_ROWS].clone(), x0[:32_768].double()
        return cls(geometric_median(x0).float(), (x0 - x0.mean(0)).square().sum(1).mean().item(), rows)


def geometric_median(points: Tensor, tolerance: float = 1e-7, max_steps: int = 200) -> Tensor:
    """The point [d] with the least summed distance to points [m, d], by Weiszfeld's iteration from the mean.

    Stops when a step is shorter than tolerance times the mean distance.
    """
    median = points.mean(0)
    for _ in range(max_steps):
        distances = (points - median).norm(dim=1)
        scale = distances.mean()
        weights = 1 / distances.clamp_min(1e-12 * scale + 1e-300)
        moved = weights @ points / weights.sum()
        step, median = (moved - median).norm(), moved
        if step <= tolerance * scale:
            break
    return median


def n_params(kind: type[Kind] | Kind, d_in: int, n_latents: int) -> int:
    return 2 * d_in * n_latents + (1 + len(kind.vectors)) * n_latents + d_in


def views(kind: Kind, flat: Tensor, d_in: int, n_latents: int) -> SAE:
    """An SAE whose parameters are views of flat [n_params]: W_enc storage, W_dec, b_enc, b_dec, the kind's vectors."""
    size, n_vectors = d_in * n_latents, len(kind.vectors)
    W_enc, W_dec, b_enc, b_dec, *vectors = flat.split([size, size, n_latents, d_in, *[n_latents] * n_vectors])
    own = dict(zip(kind.vectors, vectors, strict=True))
    return SAE(kind, W_enc.view(n_latents, d_in).T, b_enc, W_dec.view(n_latents, d_in), b_dec, own)


def scalars(kind: Kind, n_latents: int) -> dict[str, Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in kind.scalars(n_latents).items()}


def init(spec: SAESpec, seed: int, sample: InputSample | None = None) -> SAE:
    """The SAE that training starts from: a function of spec, seed and sample alone.

    W_dec rows: random directions of norm kind.init_scale (1 topk, 0.1 relu_l1); W_enc = W_dec^T; b_enc = 0; b_dec = geometric
    median of the inputs for kinds that start there, else 0; then what the kind does in `begin`.
    Sources: Gao et al. 2024 (topk; without their rescaling of the encoder), Anthropic's April 2024 update (relu_l1); kinds/.
    """
    kind = KINDS[spec.kind].from_spec(spec)
    sae = views(kind, torch.zeros(n_params(kind, spec.d_in, spec.n_latents)), spec.d_in, spec.n_latents)
    sae.own |= scalars(kind, spec.n_latents)
    kind.draw(sae.W_dec, torch.Generator().manual_seed(seed))
    sae.W_enc.copy_(sae.W_dec.T)
    if kind.starts_at_median:
        if sample is None or sample.median.shape != (spec.d_in,):
            raise ValueError(
                f"{spec.kind} starts b_dec at the median of the inputs: give InputSample.of(x0) with x0 [token, {spec.d_in}]."
            )
        sae.b_dec.copy_(sample.median)
    kind.begin(sae, sample)
    return sae
