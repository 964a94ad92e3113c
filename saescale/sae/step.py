"""One SAE in training: parameters, Adam state, what it remembers, and its statistics."""

import torch
from torch import Tensor

from saescale.sae import kernels, model, optim
from saescale.sae.kernels.cpu import denormals_flushed
from saescale.sae.losses import Memory, Terms
from saescale.sae.model import SAE, InputSample
from saescale.sae.sparsity import KINDS
from saescale.sae.spec import SAESpec

STATISTICS = ("loss", "sum_sq_error", "l0", "grad_norm", "aux_loss")


class Trainable:
    """An SAE that can take training steps. All of its state is in state_dict(); nothing is shared with another Trainable.

    One flat vector each for parameters and the two Adam moments: 12 bytes a parameter. The gradient lives in memory that all
    Trainables of the process share, from compute_gradients to the update: every step writes it whole.
    """

    def __init__(self, spec: SAESpec, sae: SAE, input_variance: float, backend: str = "cpu") -> None:
        """Takes the weights of `sae` as its start (copied). `backend` names the kernels it trains with."""
        d_in, n_latents = spec.d_in, spec.n_latents
        kind = KINDS[spec.kind].from_spec(spec)
        self.spec, self.backend, self.kernels = spec, backend, kernels.backend(backend)
        self.params = torch.empty(model.n_params(d_in, n_latents))
        self.sae = model.views(kind, self.params, d_in, n_latents)
        for name, tensor in sae.params().items():
            self.sae.params()[name].copy_(tensor)
        self.adam = optim.Adam.zeros(len(self.params))
        self.memory = Memory(
            torch.zeros(n_latents, dtype=torch.int64),
            torch.tensor(input_variance, dtype=torch.float64),
            torch.tensor(float(n_latents), dtype=torch.float64),
        )
        self.statistics = torch.zeros(len(STATISTICS) + 1, dtype=torch.float64)  # sums since last read, then steps

    @property
    def grad(self) -> Tensor:
        """[n_params], as the last compute_gradients of this process left it."""
        return kernels.scratch("grad", self.params.shape)

    @property
    def grads(self) -> SAE:
        """The same memory, by parameter."""
        return model.views(self.sae.kind, self.grad, self.spec.d_in, self.spec.n_latents)

    @classmethod
    def create(cls, spec: SAESpec, seed: int, sample: InputSample, backend: str = "cpu") -> "Trainable":
        """Before the first step: a function of spec, seed and sample alone."""
        return cls(spec, model.init(spec, seed, sample), sample.variance, backend)

    def step(self, x: Tensor, lr: float, sparsity_scale: float = 1.0) -> None:
        """One update on x [token, d_in] fp32 at mean square norm d_in. Non-finite numbers pass through into the statistics."""
        with denormals_flushed():
            terms = self.compute_gradients(x, sparsity_scale)
            unit = self.sae.W_dec if self.sae.kind.unit_decoder else None
            norm = self.adam.update(self.kernels, self.spec, lr, self.params, self.grad, unit)
            self._count(terms, norm)

    def compute_gradients(self, x: Tensor, sparsity_scale: float = 1.0) -> Terms:
        """Writes the gradient of the loss on x, before clipping and with the decoder constraint applied, into self.grad."""
        if x.ndim != 2 or x.shape[1] != self.spec.d_in or len(x) < 1 or x.dtype != torch.float32:
            raise ValueError(f"a batch has shape {tuple(x.shape)} and dtype {x.dtype}: give float32 [token, {self.spec.d_in}].")
        return self.sae.kind.gradients(self, _aligned(x), sparsity_scale)

    def _count(self, terms: Terms, norm: Tensor) -> None:
        values = {**vars(terms), "grad_norm": norm}
        self.statistics += torch.tensor([*(float(values[name]) for name in STATISTICS), 1.0], dtype=torch.float64)

    def read_stats(self) -> dict[str, float]:
        """Averages per step since the last read, n_steps of them and n_dead now; empty averages are NaN. Starts counting anew."""
        *sums, n_steps = self.statistics.tolist()
        self.statistics.zero_()
        averages = {name: total / n_steps if n_steps else float("nan") for name, total in zip(STATISTICS, sums, strict=True)}
        n_dead = int((self.memory.tokens_since_fired >= self.spec.dead_after_tokens).sum())
        return {**averages, "n_steps": n_steps, "n_dead": n_dead}

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that decides the future, as contiguous tensors.

        They are the live ones, so that a checkpoint costs no memory: write or clone them before the next step.
        """
        return {
            "params": self.params,
            "exp_avg": self.adam.exp_avg,
            "exp_avg_sq": self.adam.exp_avg_sq,
            "step": self.adam.step,
            "statistics": self.statistics,
            **self.memory.tensors(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over a state_dict of an SAE with the same spec (copied)."""
        own = self.state_dict()
        if state.keys() != own.keys():
            raise ValueError(f"this state has {sorted(state)}, but a training state has exactly {sorted(own)}.")
        for name, tensor in own.items():
            if state[name].shape != tensor.shape:
                raise ValueError(f"{name} has shape {tuple(state[name].shape)}, but these settings need {tuple(tensor.shape)}.")
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def clone(self) -> "Trainable":
        """An exact copy that shares no memory: the fork of a branch."""
        copy = Trainable(self.spec, self.sae, 0.0, self.backend)
        copy.load_state_dict(self.state_dict())
        return copy


def _aligned(x: Tensor) -> Tensor:
    """x, contiguous and at a 64-byte address: batches come from any offset of a file, and matmul may round by address."""
    x = x.contiguous()
    return x if x.data_ptr() % 64 == 0 else x.clone()
