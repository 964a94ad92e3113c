"""What training needs of memory, estimated before anything starts; and what the machine has.

worker = its process + the language model + what it reads (a segment of the stream, the held-out set)
         + the live members of its fleet (weights, two Adam moments) + the largest passing need of one (gradient, latents).
On a GPU: its context, the language model, two blocks of activations, the live members and the passing need lie there; on the host
stay the process, the stream, the held-out set, and one whole SAE with its initialisation or one checkpointed vector at a time.
The constants of a GPU are assumptions, not measured.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from saescale.campaign import devices, lm_cost, price
from saescale.campaign.plan import PlannedRun
from saescale.campaign.resources import requests
from saescale.config import ClusterConfig
from saescale.kinds import KINDS
from saescale.slurm_site import Request
from saescale.sources import SYNTHETIC_BATCH_TOKENS, is_synthetic

# Measured: Python with torch, and what importing transformer-lens and transformers adds.
PROCESS_BYTES, LM_LIBRARIES_BYTES = 0.3e9, 0.3e9
SEGMENT_BATCHES = 32  # forward batches of one shuffled segment (activations/stream.py)
BLOCK_TOKENS = 16384  # a branch stays to the end of the block it ends in (training/fleet.py)
INFERENCE_TOKENS = 1024  # encoded at once when a dictionary is measured (sae/model.py)
MEMBER_BYTES = 12  # a parameter: fp32 weight and two moments
GRADIENT_BYTES = 4  # a parameter of the member that is stepping: the others use the same memory

CONTEXT_BYTES = 1e9  # assumed: CUDA context, cuBLAS workspaces, what the allocator rounds up
CUDA_PROCESS_BYTES = 0.8e9  # assumed: what the CUDA libraries and pinned memory add to a process
HOST_WHOLE_BYTES = 12  # a parameter: a whole SAE while it is initialised or exported
BLOCKS_ON_GPU = 3  # the block that trains, the next, and what the allocator still keeps of the last
SELECT_BYTES = 32  # per (token, latent), for a selection by the torch kernels; the triton kernels write pre-activations alone

Trunks = Sequence[Sequence[PlannedRun]]


def n_params(run: PlannedRun) -> int:
    d_in, n_latents = run.science["lm"]["d_in"], run.science["sae"]["n_latents"]
    return 2 * d_in * n_latents + (1 + KINDS[run.science["sae"]["kind"]].vectors) * n_latents + d_in


def live_members(trunk: Sequence[PlannedRun]) -> int:
    """The most members of one trunk that are in memory at once: the trunk to its last fork, each branch from its own."""
    block = max(1, BLOCK_TOKENS // trunk[0].science["train"]["batch_tokens"])
    return _most_at_once(tuple((price.fork_step(r), r.steps) for r in trunk), block)


@cache
def _most_at_once(branches: tuple[tuple[int, int], ...], block: int) -> int:
    spans = [(0, max(fork for fork, _ in branches) + block), *((fork, end + block) for fork, end in branches)]
    return max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)


def members_bytes(trunk: Sequence[PlannedRun]) -> float:
    run = trunk[0]
    return live_members(trunk) * (MEMBER_BYTES * n_params(run) + 8 * run.science["sae"]["n_latents"])


def passing_bytes(trunk: Sequence[PlannedRun], on_gpu: bool = False) -> float:
    """What comes and goes with one trunk: the gradient and the latents of a step; as a probe measured them, where one did."""
    science = trunk[0].science
    n, peak_gb = n_params(trunk[0]), trunk[0].peak_gb
    if peak_gb is not None:
        return max(GRADIENT_BYTES * n, peak_gb * 1e9 - (0 if on_gpu else PROCESS_BYTES) - MEMBER_BYTES * n)
    facts, kernels = KINDS[science["sae"]["kind"]], trunk[0].execution.get("kernels")
    each = SELECT_BYTES if on_gpu and facts.keeps_k and kernels == "torch" else facts.passing_bytes
    entries = each * max(science["train"]["batch_tokens"], INFERENCE_TOKENS)
    if on_gpu and facts.keeps_k:
        entries = max(entries, SELECT_BYTES * INFERENCE_TOKENS)  # it is measured with the torch kernels
    return entries * science["sae"]["n_latents"] + GRADIENT_BYTES * n


@cache
def lm_bytes(path: str | None, tokens: int, dtype: str = "float32", hub: str | None = None) -> float:
    """Libraries, weights, and one forward over `tokens` with its logits and their log-softmax."""
    if path is None:
        return 0.0
    lm = lm_cost.opened(path, hub)
    passing = 4.0 * tokens * (3 * lm.config.get("vocab_size", 0) + 16 * lm.d_model)
    return LM_LIBRARIES_BYTES + lm_cost.weights_bytes(lm, dtype) + passing


def reading_bytes(run: PlannedRun) -> float:
    """A segment twice, while it is shuffled; the held-out set in float32, and in double while it is measured."""
    batch = forward_tokens(run)
    segment = 2 * SEGMENT_BATCHES * batch + BLOCK_TOKENS
    return run.science["lm"]["d_in"] * (4.0 * segment + 24.0 * (run.science["eval"]["n_tokens"] + batch))


def refuse_lm(run: PlannedRun, processes: int, limit: float, on_gpu: bool, asked: str | None = None) -> None:
    """Raise ValueError when the language model alone fills what training processes may use (lm_cost.refuse_too_large)."""
    if run.execution["lm_path"] is not None and not on_gpu:
        what = f"training with {lm_cost.folder_of(run.execution).label}, before any dictionary,"
        lm_cost.refuse_lm(run, PROCESS_BYTES + own_lm_bytes(run), processes, limit, asked, what)


def forward_tokens(run: PlannedRun) -> int:
    data = run.science["data"]
    return SYNTHETIC_BATCH_TOKENS if is_synthetic(run.science) else data["batch_sequences"] * data["n_ctx"]


def own_lm_bytes(run: PlannedRun) -> float:
    """The language model of this run, wherever it lies."""
    return lm_bytes(run.execution["lm_path"], forward_tokens(run), run.science["lm"].get("dtype") or "float32",
                    (run.execution.get("lm_hub") or {}).get("name"))


def shared_bytes(run: PlannedRun, on_gpu: bool = False) -> float:
    """What a worker needs however many trunks it trains, on the device that trains."""
    if not on_gpu:
        return PROCESS_BYTES + reading_bytes(run) + own_lm_bytes(run)
    blocks = BLOCKS_ON_GPU * 4.0 * max(BLOCK_TOKENS, run.science["train"]["batch_tokens"]) * run.science["lm"]["d_in"]
    lm = 0.0 if run.execution.get("lm_device") == "cpu" else max(0.0, own_lm_bytes(run) - LM_LIBRARIES_BYTES)
    return CONTEXT_BYTES + blocks + lm


def host_bytes(fleet: Sequence[PlannedRun]) -> float:
    """What one rank that trains on a GPU needs of the machine's own memory."""
    run, whole = fleet[0], HOST_WHOLE_BYTES * max(map(n_params, fleet))
    lm = own_lm_bytes(run) if run.execution.get("lm_device") == "cpu" else LM_LIBRARIES_BYTES
    return PROCESS_BYTES + CUDA_PROCESS_BYTES + reading_bytes(run) + lm + whole


def worker_bytes(trunks: Trunks, ranks: int = 1, on_gpu: bool = False) -> float:
    """One worker training these trunks side by side; each of its ranks needs what they share and room for a member's step."""
    passing = max(passing_bytes(t, on_gpu) for t in trunks)
    return ranks * (shared_bytes(trunks[0][0], on_gpu) + passing) + sum(map(members_bytes, trunks))


def fleet_bytes(fleet: Sequence[PlannedRun], ranks: int = 1) -> float:
    return worker_bytes(list(price.by_trunk(fleet).values()), ranks)


def at_once(cluster: ClusterConfig) -> int:
    """Fleets that train at the same time at most."""
    return 1 if cluster.kind == "inprocess" else cluster.workers


def peak_bytes(packed: Trunks, cluster: ClusterConfig) -> float:
    """Of this machine's own memory: all workers together, when the largest fleets meet."""
    def needed(fleet: Sequence[PlannedRun]) -> float:
        return cluster.ranks * host_bytes(fleet) if room_of(fleet, cluster).on_gpu else fleet_bytes(fleet, cluster.ranks)

    return sum(sorted(map(needed, packed), reverse=True)[:at_once(cluster)])


@dataclass(frozen=True)
class Room:
    """Where one fleet trains: in `ranks` processes, each of which may use `rank_bytes`, with `on_gpu` those of its GPU (infinite
    where its memory is not known)."""

    ranks: int
    rank_bytes: float
    on_gpu: bool = False

    @property
    def n_bytes(self) -> float:
        return self.ranks * self.rank_bytes


def room(cluster: ClusterConfig, request: Request) -> Room:
    """What its job asks for on a cluster, a worker's share of the machine elsewhere; equal shares for the ranks. Raises
    ValueError when it should train on a GPU and has none."""
    n_ranks = request.n_ranks if cluster.kind == "slurm" else cluster.ranks
    if devices.on_gpu(cluster, request):
        on_one = sharing_a_gpu(cluster)
        return Room(n_ranks, (devices.gpu_bytes(cluster, request) or math.inf) / on_one, on_gpu=True)
    if cluster.kind == "slurm":
        return Room(n_ranks, request.memory_bytes / request.ranks_on_a_node)
    return Room(n_ranks, limit_bytes(cluster) / (at_once(cluster) * cluster.ranks))


def sharing_a_gpu(cluster: ClusterConfig) -> int:
    """Processes that train on one GPU at the same time: workers of this machine may, ranks of one job may not."""
    if cluster.kind == "slurm":
        return 1
    return -(-at_once(cluster) * cluster.ranks // len(devices.gpus_here()))


def room_of(fleet: Sequence[PlannedRun], cluster: ClusterConfig) -> Room:
    return room(cluster, requests(cluster)(fleet[0]))


def limit_bytes(cluster: ClusterConfig) -> float:
    return available_bytes() if cluster.memory_gb is None else cluster.memory_gb * 1e9


def available_bytes() -> float:
    """What this machine can still give, within the limit of the control group where there is one."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = float(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    try:
        group = Path("/sys/fs/cgroup")
        used = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return min(free, float((group / "memory.max").read_text()) - float((group / "memory.current").read_text())
                   + float(used["active_file"]) + float(used["inactive_file"]))
    except (OSError, KeyError, ValueError):  # no control group, or one without a limit
        return free


def refuse_beyond_machine(packed: Trunks, cluster: ClusterConfig) -> None:
    """Raises ValueError when the fleets that may train at once need more than the workers of this machine may use."""
    needed, limit = peak_bytes(packed, cluster), limit_bytes(cluster)
    if needed <= limit:
        return
    for fleet in packed:
        on_gpu = devices.lm_on_gpu(fleet[0].execution, cluster, requests(cluster)(fleet[0]))
        refuse_lm(fleet[0], min(at_once(cluster), len(packed)) * cluster.ranks, limit, on_gpu)
    said = "cluster.memory_gb allows" if cluster.memory_gb is not None else "the machine has free"
    fewer = f"fewer workers (cluster.workers={at_once(cluster) - 1}), " if min(at_once(cluster), len(packed)) > 1 else ""
    raise ValueError(f"training needs about {needed / 1e9:.1f} GB of memory and {said} {limit / 1e9:.1f} GB: "
                     f"the biggest fleet is {describe(max(packed, key=fleet_bytes))}. Use {fewer}smaller sae.n_latents, fewer "
                     "horizons at once, or another cluster.memory_gb. Nothing was started.")


def describe(fleet: Sequence[PlannedRun], on_gpu: bool = False) -> str:
    trunks = list(price.by_trunk(fleet).values())
    largest = max(r.science["sae"]["n_latents"] for r in fleet)
    return (f"{price.counted(len(trunks), 'trunk')} with {sum(map(live_members, trunks))} live members up to "
            f"n_latents={largest}, {worker_bytes(trunks, on_gpu=on_gpu) / 1e9:.2f} GB{' of GPU memory' if on_gpu else ''}")


def summary(packed: Trunks, cluster: ClusterConfig) -> str:
    """One line for the plan."""
    biggest = max(packed, key=fleet_bytes)
    said = f"{price.counted(len(packed), 'fleet')}, the biggest {describe(biggest, room_of(biggest, cluster).on_gpu)}"
    if cluster.kind == "slurm":
        return f"memory: {said}"
    return f"memory: {peak_bytes(packed, cluster) / 1e9:.1f} of {limit_bytes(cluster) / 1e9:.1f} GB; {said}"
