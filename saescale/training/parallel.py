"""Several processes for one job: the only room that knows torch.distributed.

Whoever starts the processes (campaign/local.py, or Slurm with one task per GPU) says who they are by RANK, WORLD_SIZE,
MASTER_ADDR and MASTER_PORT. Collectives run over gloo on CPU and NCCL on CUDA. A process that dies closes its connections, and
the others learn of it in their next exchange; one that hangs is given up after cluster.rank_timeout_s.
"""

from __future__ import annotations

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
from saescale.sae.ranks import ALONE, Ranks

JOIN_TIMEOUT = timedelta(minutes=5)  # for all to have started
TIMEOUT_S = 900.0  # for one exchange, where the job does not say: the first rank may be evaluating while the others wait
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class RankLost(ValueError):
    """Another process of the job is gone, or silent for too long."""


@contextmanager
def joined(n_ranks: int, timeout_s: float = TIMEOUT_S) -> Iterator[Ranks]:
    """The group of the n_ranks processes of this job, which is this process alone where there is one.

    `timeout_s`: how long one exchange may take; the others wait so long while the first rank evaluates. Raises ValueError when
    the environment does not say who this process is, RankLost when not all come.
    """
    if n_ranks == 1:
        yield ALONE
        return
    rank, size = _who_we_are(n_ranks)
    try:
        dist.init_process_group(_backend(), timeout=JOIN_TIMEOUT, rank=rank, world_size=size)
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError) as e:
        raise RankLost(f"rank {rank} of {size} could not meet the others at {os.environ['MASTER_ADDR']}:"
                       f"{os.environ['MASTER_PORT']} ({_first_line(e)}). Launch again to go on.") from e
    yield Group(rank, size, timeout_s)
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


def _backend() -> str:
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", os.environ["RANK"])) % torch.cuda.device_count())
        return "cpu:gloo,cuda:nccl"
    return "gloo"


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
    """The processes of one job: see sae.ranks.Ranks. Reductions give every rank the same bits."""

    def __init__(self, rank: int, size: int, timeout_s: float) -> None:
        self.rank, self.size, self.timeout_s = rank, size, timeout_s

    @property
    def first(self) -> bool:
        return self.rank == 0

    @_or_lost
    def sum_(self, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor)
        return tensor

    @_or_lost
    def totals(self, *numbers: float) -> Sequence[float]:
        return self._reduce(numbers, dist.ReduceOp.SUM)

    @_or_lost
    def least(self, *numbers: float) -> Sequence[float]:
        return self._reduce(numbers, dist.ReduceOp.MIN)

    def _reduce(self, numbers: Sequence[float], operation: Any) -> list[float]:
        tensor = torch.tensor([float(n) for n in numbers], dtype=torch.float64)
        dist.all_reduce(tensor, operation)
        return tensor.tolist()

    @_or_lost
    def gather(self, tensor: Tensor) -> Tensor:
        out = tensor.new_empty((self.size, *tensor.shape))
        dist.all_gather(list(out.unbind()), tensor.contiguous())
        return out

    @_or_lost
    def to_first(self, mine: Tensor, places: Sequence[Tensor]) -> None:
        if not self.first:
            dist.send(mine.contiguous(), 0)
            return
        places[0].copy_(mine)
        for rank in range(1, self.size):
            if places[rank].is_contiguous():
                dist.recv(places[rank], rank)
            else:
                dist.recv(received := torch.empty_like(places[rank]), rank)
                places[rank].copy_(received)

    @_or_lost
    def from_first(self, value: Any) -> Any:
        """What the first rank gives, on all ranks: anything JSON can say."""
        data = torch.tensor(list(json.dumps(value).encode()) if self.first else [], dtype=torch.uint8)
        size = torch.tensor([len(data)])
        dist.broadcast(size, 0)
        if not self.first:
            data = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(data, 0)
        return json.loads(bytes(data.tolist()))


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
