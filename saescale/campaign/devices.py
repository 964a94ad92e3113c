"""What jobs train on, said without torch: the GPUs of this machine, those a job of a cluster asks for, and their memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from saescale.config import ClusterConfig
from saescale.slurm_site import Request

# By the beginning of cluster.job.gpu_type: the least memory, in GB (1e9), that a card of this name is sold with
LEAST_GB = {"b200": 179, "gh200": 96, "h200": 141, "h100": 80, "a100": 40, "l40": 48, "a40": 48, "a6000": 48, "l4": 24, "a10": 24,
            "a30": 24, "v100": 16, "t4": 16, "rtx3090": 24, "rtx4090": 24}
QUERY = ("nvidia-smi", "--query-gpu=index,name,memory.total,memory.free", "--format=csv,noheader,nounits")
MIB = 2**20


@dataclass(frozen=True)
class GPU:
    name: str
    total_bytes: float
    free_bytes: float


@cache
def gpus_here() -> tuple[GPU, ...]:
    """Those processes started here will see; none where nvidia-smi is missing or torch is built without CUDA."""
    if not shutil.which(QUERY[0]) or "+cpu" in torch_version():
        return ()
    try:
        said = subprocess.run(QUERY, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return parsed(said, os.environ.get("CUDA_VISIBLE_DEVICES"))


def parsed(said: str, visible: str | None) -> tuple[GPU, ...]:
    """The lines of QUERY; `visible`: CUDA_VISIBLE_DEVICES, of which numbers choose and other names are only counted."""
    found = {}
    for line in said.splitlines():
        try:
            index, name, total, free = map(str.strip, line.split(","))
            found[index] = GPU(name, float(total) * MIB, float(free) * MIB)
        except ValueError:  # a card that does not say, '[N/A]'
            continue
    if visible is None:
        return tuple(found.values())
    names = [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    if all(name.isdigit() for name in names):
        return tuple(found[name] for name in names if name in found)
    return tuple(found.values())[: len(names)]


def torch_version() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return "none"


def on_gpu(cluster: ClusterConfig, request: Request) -> bool:
    """Whether a job trains on GPUs, as far as can be said before it starts. Raises ValueError when it should and cannot."""
    if cluster.device == "cpu":
        return False
    there = request.gpus > 0 if cluster.kind == "slurm" else bool(gpus_here())
    if cluster.device == "cuda" and not there:
        raise ValueError("cluster.device=cuda, but " + (
            "cluster.job.gpus=0: ask for at least one GPU" if cluster.kind == "slurm" else
            f"{cannot_see()}: train where there is one") + ", or choose cluster.device=auto or cpu. Nothing was started.")
    if there and cluster.kind == "slurm" and request.ranks_on_a_node > request.gpus:
        raise ValueError(f"cluster.job.ranks_per_node={request.ranks_per_node} and cluster.job.gpus={request.gpus}: a rank that "
                         "trains on a GPU needs one of its own. Leave ranks_per_node null, or choose cluster.device=cpu. Nothing "
                         "was started.")
    if there and cluster.kind != "slurm" and cluster.ranks > len(gpus_here()):
        raise ValueError(f"cluster.ranks={cluster.ranks} and this machine has {len(gpus_here())} of the GPUs they need one each: "
                         "lower cluster.ranks, or choose cluster.device=cpu. Nothing was started.")
    return there


def lm_on_gpu(execution: Mapping[str, Any], cluster: ClusterConfig, request: Request) -> bool:
    """Whether a run's language model lies on a GPU: where the SAEs train, unless lm.device says otherwise."""
    device = execution.get("lm_device")
    return on_gpu(cluster, request) if device is None else device != "cpu"


def cannot_see() -> str:
    if "+cpu" in torch_version():
        return f"torch {torch_version()} is built without CUDA"
    return "nvidia-smi shows no GPU on this machine"


def gpu_bytes(cluster: ClusterConfig, request: Request) -> float | None:
    """Memory of one GPU of a job; None where nothing tells."""
    if cluster.gpu_memory_gb is not None:
        return cluster.gpu_memory_gb * 1e9
    if cluster.kind != "slurm":
        return min((gpu.free_bytes for gpu in gpus_here()), default=None)
    kind = (request.gpu_type or "").lower().replace("nvidia_", "").replace("_", "").replace("-", "")
    known = [gb for name, gb in LEAST_GB.items() if kind.startswith(name)]
    return max(known) * 1e9 if known else None


def name_of(cluster: ClusterConfig, request: Request) -> str:
    """The GPU a job trains on, for a person and for what a probe measured."""
    if cluster.kind == "slurm":
        return request.gpu_type or "GPU"
    return gpus_here()[0].name
