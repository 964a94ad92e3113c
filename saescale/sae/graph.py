"""Steps of one or several SAEs recorded once and replayed: a CUDA graph has no launch gaps, and small SAEs share the GPU in it.

A step with kernels of a device is a function of tensors alone (Trainable.update), so a recording that reads the batch and the
rates from fixed places does, replayed, what the step would have done.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from saescale.sae import kernels
from saescale.sae.step import Trainable

Steps = Callable[[], None]
WARM_UP = 2  # steps as they come before one is recorded: kernels are compiled and memory found by then
STREAMS = 4  # members step at the same time on so many, each with scratch memory of its own


class Recorded:
    """Takes steps of `members`, which share one batch, as Trainable.step does for each; the same bits, in fewer launches.

    All members are on one device and their kernels are those of a device. Where recording fails, steps go on as they come, and a
    warning says so once. Nothing here is state: checkpoints know nothing of it, and a resumed run records anew.
    """

    def __init__(self, members: Sequence[Trainable], n_tokens: int, record: Callable[[Steps], Steps] | None = None) -> None:
        """record: makes of a function without arguments the one that replays what it did; None: a CUDA graph on CUDA, and on
        other devices nothing is recorded."""
        if not members or any(not m.fixed_shapes or m.ranks.size > 1 or m.device != members[0].device for m in members):
            raise ValueError("steps can be recorded of SAEs on one device, one rank each, with the kernels torch or triton.")
        self.members, self.device = list(members), members[0].device
        params = members[0].params
        self.x = params.new_empty(n_tokens, members[0].spec.d_in)
        self.rates = torch.zeros(len(members), 2, dtype=torch.float64, device=self.device)
        self._known: list[tuple[float, float] | None] = [None] * len(members)
        self._record = record or (cuda_graph if self.device.type == "cuda" else None)
        self._taken: Counter[tuple[bool, ...]] = Counter()
        self._replays: dict[tuple[bool, ...], Steps] = {}
        n_streams = min(STREAMS, len(members)) if self.device.type == "cuda" and len(members) > 1 else 0
        self._streams = [torch.cuda.Stream(self.device) for _ in range(n_streams)]

    def step(self, x: Tensor, rates: Sequence[tuple[float, float]]) -> None:
        """One update of every member on x [n_tokens, d_in]; rates: its learning rate and sparsity scale."""
        with torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
            self._step(x, rates)

    def _step(self, x: Tensor, rates: Sequence[tuple[float, float]]) -> None:
        self.x.copy_(x)
        for i, (now, known) in enumerate(zip(rates, self._known, strict=True)):
            if now != known:
                self.rates[i, 0].fill_(now[0])
                self.rates[i, 1].fill_(now[1])
                self._known[i] = now
        self._take(tuple(member.may_have_dead for member in self.members))
        for member in self.members:
            member.pass_over(len(x))

    def _take(self, form: tuple[bool, ...]) -> None:
        """form: which members look for dead latents; a recording is of one form."""
        self._taken[form] += 1
        if form not in self._replays and self._record and self._taken[form] > WARM_UP:
            try:
                self._replays[form] = self._record(self._steps)
            except Exception as e:  # whatever it was, the same step can be taken without a recording
                self._record = None
                warnings.warn(f"steps are not recorded, and go on one launch at a time: {type(e).__name__}: {e}", stacklevel=3)
        self._replays.get(form, self._steps)()

    def _steps(self) -> None:
        if not self._streams:
            for member, (lr, scale) in zip(self.members, self.rates, strict=True):
                member.update(self.x, lr, scale)
            return
        begun = torch.cuda.current_stream(self.device)
        for i, stream in enumerate(self._streams):
            stream.wait_stream(begun)
            with torch.cuda.stream(stream), kernels.lane(1 + i):
                for member, (lr, scale) in list(zip(self.members, self.rates, strict=True))[i :: len(self._streams)]:
                    member.update(self.x, lr, scale)
        for stream in self._streams:
            begun.wait_stream(stream)


def cuda_graph(steps: Steps) -> Steps:
    """What replays the CUDA work of steps(), which is not done now. Scratch memory whose addresses it holds lives as long."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        steps()
    held = kernels.scratch_in_use()

    def replay(_: object = held) -> None:
        graph.replay()
    return replay
