"""Training steps on one GPU beside their floor: python -m benchmarks.gpu [--toy]

Needs torch, triton, numpy and safetensors, and nothing else of saescale's. It first checks the kernels against float64 on this
device, then measures the device, then times a dozen shapes for three kinds, the peers that can be imported at one of them, and a
fleet. A shape that does not fit, or fails, is named and left out. --toy runs all of it small, on a processor: its numbers mean
nothing, and its file says so.
"""

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_contestants as who
from benchmarks.gpu_check import checks
from benchmarks.gpu_floor import Rates, bytes_moved, floor_s, measured, memory_needed, seconds_of
from benchmarks.shape import Shape
from saescale.flops import flops_dense, flops_executed
from saescale.sae import kernels

RESULTS = Path(__file__).parent / "results"
KINDS = ("topk", "batchtopk", "relu_l1")
SIZES = [(768, 2**p) for p in range(14, 19)] + [(2304, 2**p) for p in range(14, 21)]
BESIDE_PEERS = (768, 2**15)
FLEET = (16, 768, 4096)
BATCHES, STEPS, MOST_S = 4, 20, 6.5 * 60  # MOST_S: a shape that would begin later is left out


def one(s: Shape, make: Callable[[], who.Step], steps: int, rates: Rates, n_members: int = 1) -> dict[str, Any]:
    """Median seconds of a step, tokens/s, share of the floor, MFU, peak memory; or why there are none."""
    device = torch.device(s.device)
    try:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            free = torch.cuda.mem_get_info(device)[0]
            if n_members * memory_needed(s) > free:
                return {"skipped": f"needs about {memory_needed(s) / 1e9:.0f} GB, free are {free / 1e9:.0f} GB"}
        step, batches = make(), who.inputs(s.batch, s.d_in, BATCHES, s.device)
        i = iter(range(10**9))
        seconds = seconds_of(lambda: step(batches[next(i) % BATCHES]), device, steps, warm_up=min(5, steps))
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    except Exception as e:  # one that fails is named; the others go on
        return {"skipped": f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"[:300]}
    finally:
        step = batches = None
        kernels.forget_scratch()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    median, l0 = statistics.median(seconds), s.l0 if s.kind == "relu_l1" else s.k
    executed = n_members * flops_executed(s.kind, s.d_in, s.n_latents, s.batch, l0 * s.batch)
    return {"seconds": median, "fastest": min(seconds), "tokens_per_s": s.batch / median,
            "of_floor": n_members * floor_s(s, l0, rates) / median, "floor_seconds": n_members * floor_s(s, l0, rates),
            "mfu_executed": executed / median / rates.flops_per_s,
            "mfu_dense_equivalent": n_members * flops_dense(s.d_in, s.n_latents, s.batch) / median / rates.flops_per_s,
            "peak_gb": None if peak is None else peak / 1e9}


def line(s: Shape, name: str, found: dict[str, Any]) -> str:
    where = f"{s.kind:9} d {s.d_in:4} n {s.n_latents:8,}  {name:32}"
    if "skipped" in found:
        return f"{where} left out: {found['skipped']}"
    peak = "-" if found["peak_gb"] is None else f"{found['peak_gb']:.1f} GB"
    return (f"{where} {found['tokens_per_s']:12,.0f} tokens/s {found['seconds'] * 1e3:9.3f} ms  {found['of_floor']:6.1%} of floor"
            f"  MFU {found['mfu_executed']:6.1%} (dense-equivalent {found['mfu_dense_equivalent']:.0%})  {peak}")


def about(device: torch.device, toy: bool) -> dict[str, Any]:
    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None
    packages = ("torch", "triton", "numpy", "safetensors", "sae-lens", "eai-sparsify", "dictionary-learning")
    said = {"status": "unmeasured: toy" if toy else "measured", "device": platform.processor() or platform.machine(),
            "driver": None, "cuda": torch.version.cuda, "versions": {name: version(name) for name in packages}}
    if device.type == "cuda":
        said["device"] = torch.cuda.get_device_name(device)
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            said["driver"] = subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout.split("\n")[0].strip()
        except OSError:
            said["driver"] = "unknown: no nvidia-smi"
    return said


def shapes(toy: bool, device: str) -> list[Shape]:
    if toy:
        return [Shape(kind, 9, 31, 3, 5, l0=5, device=device) for kind in KINDS]
    return [Shape(kind, d_in, n, 32, 8192, l0=64, device=device) for d_in, n in SIZES for kind in KINDS]


def rows(toy: bool, device: str, rates: Rates, save: Callable[[list[dict[str, Any]]], None]) -> None:
    """Every shape and contestant, printed and saved as they come: the shape beside the peers and the fleet first."""
    begun, steps, found = time.perf_counter(), 1 if toy else STEPS, []

    def take(s: Shape, name: str, make: Callable[[], who.Step], n_members: int = 1) -> None:
        late = time.perf_counter() - begun > MOST_S
        numbers = {"skipped": "no time left"} if late else one(s, make, steps, rates, n_members)
        print(line(s, name, numbers), flush=True)
        moved = bytes_moved(s, s.l0 if s.kind == "relu_l1" else s.k)
        found.append({"contestant": name, "members": n_members, "shape": asdict(s), "bytes": moved, **numbers})
        save(found)

    every = shapes(toy, device)
    first = [s for s in every if toy or (s.d_in, s.n_latents) == BESIDE_PEERS]
    for s in first:
        for name, make in who.contestants(s, full=True).items():
            take(s, name, make)
    n, d_in, n_latents = (2, 9, 23) if toy else FLEET
    small, best = replace(first[0], d_in=d_in, n_latents=n_latents), who.best_kernels(device)
    take(small, f"saescale, fleet of {n}", lambda: who.ours_in_a_fleet(small, best, n), n)
    take(small, "saescale, one of them alone", lambda: who.ours(small, best))
    for s in every:
        if s not in first:
            for name, make in who.contestants(s, full=False).items():
                take(s, name, make)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="small, on a processor, with TRITON_INTERPRET=1 set here")
    parser.add_argument("--into", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if not asked.toy and not torch.cuda.is_available():
        parser.error("no CUDA device is here: --toy runs everything small on a processor, without a number to believe.")
    if asked.toy:
        os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are imported, with the first SAE
    device = torch.device("cpu" if asked.toy else "cuda")
    said = about(device, asked.toy)
    print(f"{said['status']} on {said['device']}, driver {said['driver']}, {said['versions']}", flush=True)
    checked = checks(str(device), asked.toy)
    for name, error in checked.items():
        print(f"check: {name}: {error}", flush=True)
    rates = measured(device, asked.toy)
    print(f"rates: bf16 matmul {rates.flops_per_s / 1e12:.1f} TFLOP/s, copy {rates.bytes_per_s / 1e12:.2f} TB/s", flush=True)
    asked.into.mkdir(parents=True, exist_ok=True)
    name = "toy" if asked.toy else said["device"].lower().replace(" ", "-")
    target = asked.into / f"gpu-{name}.json"

    def save(found: list[dict[str, Any]]) -> None:
        target.write_text(json.dumps({**said, "rates": asdict(rates), "checks": checked, "rows": found}, indent=1) + "\n")

    rows(asked.toy, str(device), rates, save)
    print(f"written: {target}")


if __name__ == "__main__":
    main()
