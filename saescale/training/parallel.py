"""Several processes for one job: the only room that knows torch.distributed.

Whoever starts the processes (campaign/local.py, or Slurm with one task per GPU) says who they are by RANK, WORLD_SIZE,
MASTER_ADDR and MASTER_PORT. What lies on a GPU is exchanged by NCCL, numbers and tensors of the host by gloo: a process that dies
closes its connections, and the others learn of it in their next exchange over gloo, of which every block has one; one that hangs
is given up after cluster.rank_timeout_s.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from saescale.activations.live import Source
from saescale.activations.stream import Load
from saescale.sae.device import CPU
from saescale.sae.ranks import ALONE, Ranks

JOIN_TIMEOUT = timedelta(minutes=5)  # for all to have started
TIMEOUT_S = 900.0  # for one exchange, where the job does not say: the first rank may be evaluating while the others wait
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class RankLost(ValueError):
    """Another process of the job is gone, or silent for too long."""


@contextmanager
def joined(n_ranks: int, timeout_s: float = TIMEOUT_S, device: torch.device = CPU) -> Iterator[Ranks]:
    """The group of the n_ranks processes of this job, which is this process alone where there is one.

    `timeout_s`: how long one exchange may take; the others wait so long while the first rank evaluates. `device`: where this
    process trains. Raises ValueError when the environment does not say who this process is or two ranks have one GPU, RankLost
    when not all come.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if n_ranks == 1:
        yield ALONE
        return
    rank, size = _who_we_are(n_ranks)
    try:
        dist.init_process_group(_backend(device), timeout=JOIN_TIMEOUT, rank=rank, world_size=size)
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError) as e:
        raise RankLost(f"rank {rank} of {size} could not meet the others at {os.environ['MASTER_ADDR']}:"
                       f"{os.environ['MASTER_PORT']} ({_first_line(e)}). Launch again to go on.") from e
    group = Group(rank, size, timeout_s)
    refuse_mixed(group, device)
    if device.type == "cuda":
        refuse_shared_gpu(group, str(torch.cuda.get_device_properties(device).uuid))
    yield group
    dist.destroy_process_group()  # only after a good end: when a rank is lost, the process ends with its connections


def _who_we_are(n_ranks: int) -> tuple[int, int]:
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise ValueError(f"this job is for {n_ranks} processes, but {', '.join(missing)} is not set: start it with "
                         "`saescale launch`, or set cluster.ranks=1.")
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if size != n_ranks:
        raise ValueError(f"this job is for {n_ranks} processes, but WORLD_SIZE={size}: start as many as cluster.ranks says.")
    return rank, size


def _backend(device: torch.device) -> str:
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def refuse_mixed(ranks: Ranks, device: torch.device) -> None:
    """Raises ValueError, on all ranks, when some train on a GPU and some on a processor."""
    on_gpu = int(ranks.totals(device.type == "cuda")[0])
    if on_gpu not in (0, ranks.size):
        raise ValueError(f"{on_gpu} of the {ranks.size} ranks of this job see a GPU: all must train on the same kind of device. "
                         "Ask for GPUs for all of them, or choose cluster.device=cpu.")


def refuse_shared_gpu(ranks: Ranks, mine: str) -> None:
    """Raises ValueError, on all ranks, when two have the GPU of one name: NCCL wants one for each."""
    digest = torch.frombuffer(bytearray(hashlib.sha256(mine.encode()).digest()), dtype=torch.uint8)
    different = len({bytes(row.tolist()) for row in ranks.gather(digest)})
    if different < ranks.size:
        raise ValueError(f"this job has {ranks.size} ranks and {different} {'GPU' if different == 1 else 'GPUs'}: each rank "
                         "needs one of its own. Ask for as many GPUs (cluster.job.gpus on Slurm) or fewer cluster.ranks, or "
                         "choose cluster.device=cpu.")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _or_lost(exchange: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(exchange)
    def wrapped(self: Group, *args: Any) -> Any:
        try:
            return exchange(self, *args)
        except RuntimeError as e:
            said = _first_line(e)
            how = f"lost another rank ({said})"
            if "timed out" in said.lower():
                how = f"waited {self.timeout_s:g} s (cluster.rank_timeout_s) for another rank in vain"
            raise RankLost(f"rank {self.rank} of {self.size} {how}. What was saved is safe: launch again to go on.") from e
    return wrapped


class Group:
    """The processes of one job: see sae.ranks.Ranks. Reductions give every rank the same bits. `channel`: a group of
    torch.distributed; None: that of all."""

    def __init__(self, rank: int, size: int, timeout_s: float, channel: Any = None) -> None:
        self.rank, self.size, self.timeout_s, self.channel = rank, size, timeout_s, channel

    @property
    def first(self) -> bool:
        return self.rank == 0

    @_or_lost
    def apart(self) -> Group:
        """The same processes with connections of their own, for a thread that reads ahead: what it exchanges on the host is not
        taken for what the others exchange meanwhile. Called by all at the same place."""
        channel = dist.new_group(backend="gloo", timeout=timedelta(seconds=self.timeout_s))
        return Group(self.rank, self.size, self.timeout_s, channel)

    @_or_lost
    def sum_(self, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor, group=self.channel)
        return tensor

    @_or_lost
    def totals(self, *numbers: float) -> Sequence[float]:
        return self._reduce(numbers, dist.ReduceOp.SUM)

    @_or_lost
    def least(self, *numbers: float) -> Sequence[float]:
        return self._reduce(numbers, dist.ReduceOp.MIN)

    def _reduce(self, numbers: Sequence[float], operation: Any) -> list[float]:
        tensor = torch.tensor([float(n) for n in numbers], dtype=torch.float64)
        dist.all_reduce(tensor, operation, group=self.channel)
        return tensor.tolist()

    @_or_lost
    def gather(self, tensor: Tensor) -> Tensor:
        out = tensor.new_empty((self.size, *tensor.shape))
        dist.all_gather(list(out.unbind()), tensor.contiguous(), group=self.channel)
        return out

    @_or_lost
    def to_first(self, mine: Tensor, places: Sequence[Tensor]) -> None:
        if not self.first:
            dist.send(mine.contiguous(), 0, group=self.channel)
            return
        places[0].copy_(mine)
        for rank in range(1, self.size):
            if places[rank].is_contiguous():
                dist.recv(places[rank], rank, group=self.channel)
            else:
                dist.recv(received := torch.empty_like(places[rank]), rank, group=self.channel)
                places[rank].copy_(received)

    @_or_lost
    def from_first(self, value: Any) -> Any:
        """What the first rank gives, on all ranks: anything JSON can say."""
        data = torch.tensor(list(json.dumps(value).encode()) if self.first else [], dtype=torch.uint8)
        size = torch.tensor([len(data)])
        dist.broadcast(size, 0, group=self.channel)
        if not self.first:
            data = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(data, 0, group=self.channel)
        return json.loads(bytes(data.tolist()))


def apart(ranks: Ranks) -> Ranks:
    """These ranks with connections of their own (Group.apart)."""
    return ranks.apart() if isinstance(ranks, Group) else ranks


def forwarded_together(source: Source, ranks: Ranks) -> Load:
    """Forward batches of which each rank computes every size-th; all ranks get all of them, in order and with the same bits."""
    def load(indices: list[int]) -> list[Tensor]:
        counts = [[int(source.counts[i]) for i in indices[rank::ranks.size]] for rank in range(ranks.size)]
        mine = [source.batch(i) for i in indices[ranks.rank::ranks.size]]
        if ranks.size == 1:
            return mine
        d_in = ranks.from_first(mine[0].shape[1] if mine else None)
        rows = torch.zeros(max(map(sum, counts)), d_in)  # of one length on all ranks
        torch.cat([*mine, rows[:0]], out=rows[:sum(counts[ranks.rank])])
        parts = [iter(of_rank[:sum(n)].split(n)) for of_rank, n in zip(ranks.gather(rows), counts, strict=True)]
        return [next(parts[i % ranks.size]) for i in range(len(indices))]
    return load
