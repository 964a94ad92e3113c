"""The device a job trains on, what may be said of it, and how time is taken there."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch

from saescale.sae import kernels

CPU = torch.device("cpu")


def chosen(wanted: str) -> torch.device:
    """The device that `wanted` (auto, cpu, cuda) means for this process: of several GPUs that of its LOCAL_RANK.

    auto: CUDA where this process sees a GPU, else the processor. Raises ValueError when a GPU is asked for and there is none.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        why = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no GPU"
        raise ValueError(f"cluster.device=cuda, but {why} on {platform.node()}: ask for a GPU (cluster.job.gpus on Slurm), "
                         "install torch with CUDA, or choose cluster.device=auto or cpu.")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())


def kernels_for(wanted: str, device: torch.device) -> str:
    """The backend that cluster.kernels means on this device: on a GPU those named for the processor stand for auto."""
    return kernels.resolve("auto" if device.type != "cpu" and wanted in kernels.BACKENDS else wanted, device)


def described(device: torch.device) -> dict[str, Any]:
    """For the record: what computed, and with which CUDA; None where there is none."""
    if device.type != "cuda":
        return {"device": device.type, "cuda": None, "device_gb": None}
    found = torch.cuda.get_device_properties(device)
    return {"device": found.name, "cuda": torch.version.cuda, "device_gb": round(found.total_memory / 1e9, 1)}


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Sums over indices in one order on a GPU, where they otherwise are in any; nothing to do on a processor."""
    before, only_warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.use_deterministic_algorithms(before, warn_only=only_warned)
            torch.utils.deterministic.fill_uninitialized_memory = fills


class Stopwatch:
    """Seconds spent between start() and stop(): on a GPU those it worked, which are known once it has been waited for."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self._begun: Any = None
        self._spans: list[tuple[Any, Any]] = []

    def start(self) -> None:
        self._begun = self._now()

    def stop(self) -> None:
        self._spans.append((self._begun, self._now()))

    def copy(self) -> "Stopwatch":
        other = copy(self)
        other._spans = list(self._spans)
        return other

    def _now(self) -> Any:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def taken(self) -> float:
        """Of all spans since the last call."""
        spans, self._spans = self._spans, []
        return sum(a.elapsed_time(b) / 1e3 if self.on_gpu else b - a for a, b in spans)
