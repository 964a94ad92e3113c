"""One SAE in training: parameters, Adam state, what it remembers, and its statistics."""

from collections.abc import Sequence

import torch
from torch import Tensor

from saescale.sae import control, kernels, model, optim
from saescale.sae.kernels.cpu import denormals_flushed
from saescale.sae.kinds import KINDS
from saescale.sae.losses import Memory, Scalar, Terms
from saescale.sae.model import SAE, InputSample
from saescale.sae.ranks import ALONE, Ranks
from saescale.sae.shards import Part, ShardedKernels, Share
from saescale.sae.spec import SAESpec

ADAPTED = ("sparsity_coeff", "threshold")  # of what kinds remember, shown as it is now
LARGEST_BATCH = 2**20  # tokens: may_have_dead allows for the next one
STATISTICS = ("loss", "sum_sq_error", "l0", "grad_norm", "aux_loss")


class Trainable:
    """An SAE that can take training steps. All of its state is in state_dict(); nothing is shared with another Trainable.

    One flat vector each for parameters and the two Adam moments: 12 bytes a parameter. The gradient lives in memory that all
    Trainables of the process share, from compute_gradients to the update: every step writes it whole.

    On a device all of it lies there, batches are given there, and a step never waits: read_stats does.
    """

    def __init__(
        self, spec: SAESpec, sae: SAE, input_variance: float, backend: str = "cpu", *, ranks: Ranks = ALONE,
        device: str | torch.device = "cpu",
    ) -> None:
        """Takes the weights of `sae` as its start (copied): those of this rank's share. `backend` names the kernels.

        It trains in the dtype of these weights: fp32 but for the slow references of tests.
        """
        self.spec, self.ranks, self.device = spec, ranks, torch.device(device)
        self.backend = kernels.resolve(backend, self.device)
        self.share = Share.of(spec.n_latents, ranks.rank, ranks.size)
        d_in, n_latents = spec.d_in, len(self.share)
        kind = KINDS[spec.kind].from_spec(spec)
        self.kernels = kernels.backend(self.backend, self.device)
        self.fixed_shapes = self.backend in kernels.DEVICE_BACKENDS
        if ranks.size > 1:
            b_dec = slice(n_latents * (2 * d_in + 1), n_latents * (2 * d_in + 1) + d_in)
            self.kernels = ShardedKernels(self.kernels, ranks, self.share, b_dec)
        self.params = torch.empty(model.n_params(kind, d_in, n_latents), dtype=sae.W_dec.dtype, device=self.device)
        self.sae = model.views(kind, self.params, d_in, n_latents)
        for name, tensor in sae.params().items():
            self.sae.params()[name].copy_(tensor)
        self.adam = optim.Adam.zeros(self.params)
        self.memory = Memory(
            torch.zeros(n_latents, dtype=torch.int64, device=self.device),
            torch.tensor(input_variance, dtype=torch.float64, device=self.device),
            torch.tensor(float(spec.n_latents), dtype=torch.float64, device=self.device),
            {name: tensor.to(self.device) for name, tensor in model.scalars(kind, spec.n_latents).items()},
        )
        self.sae.own |= self.memory.own  # the same tensors: inference sees what training remembers
        for name, tensor in self.memory.own.items():
            tensor.copy_(sae.own[name])
        # sums since the last read, then steps
        self.statistics = torch.zeros(len(STATISTICS) + 1, dtype=torch.float64, device=self.device)
        self._longest_silence: int | None = None  # at least the largest of tokens_since_fired; None: not looked at yet

    @property
    def grad(self) -> Tensor:
        """[n_params], as the last compute_gradients of this process left it."""
        return kernels.scratch("grad", self.params.shape, self.params.dtype, self.device)

    @property
    def grads(self) -> SAE:
        """The same memory, by parameter."""
        return model.views(self.sae.kind, self.grad, self.spec.d_in, len(self.share))

    @classmethod
    def create(
        cls, spec: SAESpec, seed: int, sample: InputSample, backend: str = "cpu", *, ranks: Ranks = ALONE,
        device: str | torch.device = "cpu",
    ) -> "Trainable":
        """Before the first step: a function of spec, seed and sample alone. Every rank makes the whole and keeps its share.

        It is computed on the processor, from a sample that lies there, and has the same bits on every device.
        """
        share = Share.of(spec.n_latents, ranks.rank, ranks.size)
        made = share.of_sae(model.init(spec, seed, sample))
        return cls(spec, made, sample.variance, backend, ranks=ranks, device=device)

    def step(self, x: Tensor, lr: float | Tensor, sparsity_scale: float | Tensor = 1.0) -> None:
        """One update on x [token, d_in] fp32 at mean square norm d_in. Non-finite numbers pass through into the statistics.

        With kernels of a device lr and sparsity_scale may be tensors [] there.
        """
        self.update(x, lr, sparsity_scale)
        self.pass_over(len(x))

    def update(self, x: Tensor, lr: float | Tensor, sparsity_scale: float | Tensor) -> None:
        """What a step does to tensors, all of it: with kernels of a device a function of tensors alone (graph.py)."""
        with denormals_flushed():
            terms = self.compute_gradients(x, sparsity_scale)
            unit = self.sae.W_dec if self.sae.kind.unit_decoder else None
            norm = self.adam.update(self.kernels, self.spec, lr, self.params, self.grad, unit)
            if self.spec.target_l0 is not None:
                wanted = control.set_point(self.spec.target_l0, self.spec.n_latents, sparsity_scale)
                follow = control.follow_on_device if self.fixed_shapes else control.follow
                follow(self.memory.own, terms.l0, wanted, lr)
            self._count(terms, norm)

    def pass_over(self, n_tokens: int) -> None:
        """Notes that n_tokens more were trained on, here or by a replay of a captured step."""
        if self._longest_silence is not None:
            self._longest_silence += n_tokens

    @property
    def may_have_dead(self) -> bool:
        """False when it is certain, without asking the device, that the next step finds no dead latent.

        With none AuxK is exactly zero, so leaving it out changes no bit. Ranks that share an SAE know the same (read_stats), so
        that all or none take part.
        """
        return self._longest_silence is None or self._longest_silence >= self.spec.dead_after_tokens - LARGEST_BATCH

    def totals(self, *scalars: Tensor | float) -> Sequence[Scalar]:
        """Sums over ranks of scalars []. Kernels of a processor get counts as numbers; on a device all stay tensors there, and
        nobody waits for them, unless there are other ranks to tell."""
        if self.fixed_shapes and self.ranks.size == 1:
            return [s.double() if isinstance(s, Tensor) else s for s in scalars]
        return self.ranks.totals(*(s.item() if isinstance(s, Tensor) and not s.is_floating_point() else s for s in scalars))

    def pre_acts(self, x_enc: Tensor) -> Tensor:
        """What the kernels' selections read of x_enc [token, d_in]: pre-activations, in memory that the next step overwrites."""
        products = self.kernels.products if self.fixed_shapes and self.ranks.size == 1 else kernels.pre_activations
        return products(x_enc, self.sae.W_enc, self.sae.b_enc, self.spec.precision)

    def compute_gradients(self, x: Tensor, sparsity_scale: float | Tensor = 1.0) -> Terms:
        """Writes the gradient of the loss on x, before clipping and with the decoder constraint applied, into self.grad."""
        if x.ndim != 2 or x.shape[1] != self.spec.d_in or len(x) < 1 or x.dtype != self.params.dtype:
            raise ValueError(f"a batch has shape {tuple(x.shape)} and dtype {x.dtype}: give "
                             f"{str(self.params.dtype).removeprefix('torch.')} [token, {self.spec.d_in}].")
        if x.device != self.params.device:
            raise ValueError(f"a batch lies on {x.device}, but this SAE trains on {self.params.device}: give it there.")
        return self.sae.kind.gradients(self, _aligned(x), sparsity_scale)

    def _count(self, terms: Terms, norm: Tensor) -> None:
        values = [*({**vars(terms), "grad_norm": norm}[name] for name in STATISTICS), 1.0]
        if not self.fixed_shapes:
            self.statistics += torch.tensor([float(value) for value in values], dtype=torch.float64)
            return
        self.statistics += torch.stack([value.double() if isinstance(value, Tensor) else self.statistics.new_full((), value)
                                        for value in values])

    def read_stats(self) -> dict[str, float]:
        """Averages per step since the last read, n_steps of them and n_dead now; empty averages are NaN. Starts counting anew."""
        silence, adapted = self.memory.tokens_since_fired, [name for name in ADAPTED if name in self.memory.own]
        counts = torch.stack([(silence >= self.spec.dead_after_tokens).sum(), silence.amax()]).double()
        found = torch.cat([self.statistics, counts, *(self.memory.own[name].view(1) for name in adapted)]).tolist()  # one wait
        self.statistics.zero_()
        *sums, n_steps = found[: len(STATISTICS) + 1]
        n_dead, longest, *own = found[len(STATISTICS) + 1 :]
        self._longest_silence = int(-self.ranks.least(-longest)[0])  # of all shares
        averages = {name: total / n_steps if n_steps else float("nan") for name, total in zip(STATISTICS, sums, strict=True)}
        n_dead = self.ranks.totals(int(n_dead))[0]
        return {**averages, "n_steps": n_steps, "n_dead": int(n_dead), **dict(zip(adapted, own, strict=True))}

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
        self._longest_silence = None

    def load_whole(self, state: dict[str, Tensor]) -> None:
        """Takes over this rank's share of a state_dict of the whole SAE, whatever number of ranks wrote it."""
        if self.ranks.size == 1:
            self.load_state_dict(state)
            return
        whole = {name: t.shape for name, t in state.items()}
        alike = self.share.to_write(self.state_dict(), self.spec.d_in, self.n_vectors, is_first=True)
        if whole != {name: part.shape for name, part in alike.items()}:
            raise ValueError(f"this state has the shapes {whole}, which are not those of these settings.")
        self.load_state_dict(self.share.part_of(state, self.spec.d_in, self.n_vectors))

    def to_write(self) -> dict[str, Part]:
        """What this rank writes, so that all together write the state_dict of the whole SAE: parts of the live tensors."""
        return self.share.to_write(self.state_dict(), self.spec.d_in, self.n_vectors, self.ranks.first)

    @property
    def n_vectors(self) -> int:
        return len(self.sae.kind.vectors)

    def whole_sae(self) -> SAE | None:
        """The SAE of all ranks, on the first; None on the others. What no single device may hold comes together on the host."""
        if self.ranks.size == 1:
            return self.sae
        d_in, n_latents, first = self.spec.d_in, self.spec.n_latents, self.ranks.first
        flat = torch.empty(model.n_params(self.sae.kind, d_in, n_latents), dtype=self.params.dtype) if first else None
        shares = [Share.of(n_latents, rank, self.ranks.size) for rank in range(self.ranks.size)] if first else []
        places = [list(share.ranges(d_in, self.n_vectors)) for share in shares]
        for i, (mine, _) in enumerate(self.share.ranges(d_in, self.n_vectors)):
            self.ranks.to_first(self.params[mine].cpu(), [flat[at[i][1]] for at in places])
        if flat is None:
            return None
        whole = model.views(self.sae.kind, flat, d_in, n_latents)
        whole.own |= {name: tensor.cpu() for name, tensor in self.memory.own.items()}
        return whole

    def clone(self) -> "Trainable":
        """An exact copy that shares no memory: the fork of a branch."""
        copy = Trainable(self.spec, self.sae, 0.0, self.backend, ranks=self.ranks, device=self.device)
        copy.load_state_dict(self.state_dict())
        return copy


def _aligned(x: Tensor) -> Tensor:
    """x, contiguous and at a 64-byte address: batches come from any offset of a file, and matmul may round by address."""
    x = x.contiguous()
    return x if not x.is_cpu or x.data_ptr() % 64 == 0 else x.clone()
