"""What a step cannot go below on this device: its encoder matmul and the bytes it must move, at rates measured here."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.shape import Shape

WEIGHT, ADAM = 4, 28  # bytes of fp32; of Adam per parameter: parameter, two moments read and written, gradient read


@dataclass(frozen=True)
class Rates:
    """Of this device: FLOPs per second of a large bf16 matmul, bytes per second of a large copy, read and written."""

    flops_per_s: float
    bytes_per_s: float


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int, warm_up: int = 3) -> list[float]:
    """Of each of `repeats` calls, on the device's own clock where it has one."""
    for _ in range(warm_up):
        work()
    if device.type != "cuda":
        times = []
        for _ in range(repeats):
            begun = time.perf_counter()
            work()
            times.append(time.perf_counter() - begun)
        return times
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for start, stop in events:
        start.record()
        work()
        stop.record()
    torch.cuda.synchronize(device)
    return [start.elapsed_time(stop) / 1e3 for start, stop in events]


def measured(device: torch.device, toy: bool) -> Rates:
    """Random numbers, not zeros: a matmul of zeros is faster than one of data."""
    side, n_bytes = (128, 2**20) if toy else (8192, 2**32)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(a)
    matmul = statistics.median(seconds_of(lambda: torch.mm(a, b, out=product), device, 5 if toy else 20))
    source = torch.randint(0, 255, (n_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = statistics.median(seconds_of(lambda: target.copy_(source), device, 5 if toy else 20))
    return Rates(2 * side**3 / matmul, 2 * n_bytes / copy)


def bytes_moved(s: Shape, l0: float) -> dict[str, float]:
    """The bytes of one step, by what moves them.

    optimiser  28 a parameter: Adam's seven passes
    gradient   4 a parameter: written once
    sparse     a decoder row for each pair, as it is decoded (its second use is in the cache), and three passes over the batch:
               inputs read, errors written and read
    """
    n_params = 2 * s.d_in * s.n_latents + s.n_latents + s.d_in
    return {"optimiser": ADAM * n_params, "gradient": WEIGHT * n_params,
            "sparse": WEIGHT * s.d_in * s.batch * (l0 + 3)}


def floor_s(s: Shape, l0: float, rates: Rates) -> float:
    """Seconds of the encoder matmul at the measured rate, and of the bytes at the measured bandwidth, one after the other."""
    return 2 * s.batch * s.d_in * s.n_latents / rates.flops_per_s + sum(bytes_moved(s, l0).values()) / rates.bytes_per_s


def memory_needed(s: Shape) -> float:
    """Bytes, by default an underestimate: 16 a parameter and one rounded encoder, pre-activations, and for dense steps three
    arrays of their size in fp32 and two in bf16."""
    n_entries = s.batch * s.n_latents
    per_entry = 2 if s.kind != "relu_l1" else 2 + 3 * 4 + 2 * 2
    return 16 * 2 * s.d_in * s.n_latents + 2 * s.d_in * s.n_latents + per_entry * n_entries
