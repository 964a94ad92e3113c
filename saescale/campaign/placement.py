"""Which rank of a job trains which trunk: whole trunks on one rank each, and what does not fit one rank dealt over all.

The latents of a dealt (sharded) trunk are divided evenly; every rank then steps it, and what they exchange at each step is
counted here. Arithmetic only: training is told the outcome in job.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saescale.campaign import devices, memory, price
from saescale.campaign.plan import PlannedRun
from saescale.campaign.resources import requests
from saescale.config import ClusterConfig
from saescale.kinds import KINDS
from saescale.science import default_k_aux

KEY_BYTES = {False: 8, True: 16}  # of a candidate of a selection by token, over the batch (sae/shards.py)
WHOLE_BYTES = 8  # a parameter: the whole SAE before the first step, of which each rank keeps its share (sae/model.py)


@dataclass(frozen=True)
class Placement:
    """`homes`: trunk_id -> its rank, None for those dealt over all. By rank: `rank_bytes` of memory and `rank_seconds` of
    training, estimated."""

    homes: Mapping[str, int | None]
    rank_bytes: Sequence[float]
    rank_seconds: Sequence[float]

    @property
    def seconds(self) -> float:
        """Of the whole job: its ranks keep one pace, so the one with the most to do counts."""
        return price.START_S + max(self.rank_seconds)


def place(fleet: Sequence[PlannedRun], cluster: ClusterConfig) -> Placement:
    """Deals the trunks too large for one rank, then gives the others, the longest first, to the rank with the least to do among
    those with room.

    Too large: its live members and the process that trains them need more than an equal share of the memory, or they alone more
    than cluster.shard_above_gb. A trunk for which no rank has room left is dealt too. Raises ValueError for one that is dealt and
    has fewer latents than there are ranks.
    """
    room = memory.room_of(fleet, cluster)
    ranks = room.ranks
    trunks = sorted(price.by_trunk(fleet).values(), key=lambda g: (-price.trunk_seconds(g), g[0].trunk_id))
    homes: dict[str, int | None] = {}
    shared = memory.shared_bytes(fleet[0], room.on_gpu)
    seconds, members, passing = [0.0] * ranks, [0.0] * ranks, [0.0] * ranks
    for trunk in sorted(trunks, key=lambda t: not too_large(t, cluster, room)):
        own, step = memory.members_bytes(trunk), memory.passing_bytes(trunk, room.on_gpu)
        fitting = [r for r in range(ranks) if shared + members[r] + own + max(passing[r], step) <= room.rank_bytes]
        if ranks > 1 and (too_large(trunk, cluster, room) or not fitting):
            refuse_too_few_latents(trunk[0], ranks)
            at, divided = range(ranks), ranks
            if room.on_gpu:  # the whole SAE is made, brought together and measured on the host
                step = step / ranks
            else:  # the first rank measures the whole SAE, which takes as much as a whole step
                passing[0] = max(passing[0], step)
                step = max(step / ranks, WHOLE_BYTES * memory.n_params(trunk[0]))
        else:
            at, divided = [min(fitting or range(ranks), key=lambda r: seconds[r])], 1
        homes[trunk[0].trunk_id] = at[0] if divided == 1 else None
        for r in at:
            seconds[r] += price.trunk_seconds(trunk) / divided
            members[r], passing[r] = members[r] + own / divided, max(passing[r], step)
    return Placement(homes, [shared + m + p for m, p in zip(members, passing, strict=True)], seconds)


def refuse_too_few_latents(run: PlannedRun, ranks: int) -> None:
    n = run.science["sae"]["n_latents"]
    if n < ranks:
        raise ValueError(f"{run.run_id} would be dealt over {ranks} ranks and has sae.n_latents={n}: a rank holds at least one "
                         "latent. Ask for fewer ranks (cluster.job.nodes, .gpus, .ranks_per_node), or for more memory.")


def too_large(trunk: Sequence[PlannedRun], cluster: ClusterConfig, room: memory.Room) -> bool:
    if room.ranks == 1:
        return False
    if cluster.shard_above_gb is not None:
        return memory.members_bytes(trunk) > cluster.shard_above_gb * 1e9
    return memory.worker_bytes([trunk], on_gpu=room.on_gpu) > room.rank_bytes


def refuse_too_large(packed: Sequence[Sequence[PlannedRun]], cluster: ClusterConfig) -> None:
    """Raises ValueError when a fleet does not fit: into its GPUs, the nodes its job
    asks for, or with the others into this machine."""
    for fleet in packed:
        refuse_beyond_gpus(fleet, cluster)
    if cluster.kind != "slurm":
        memory.refuse_beyond_machine(packed, cluster)
        return
    request = requests(cluster)
    for fleet in packed:
        needed, asked = host_of(fleet, cluster), request(fleet[0])
        on_a_node = asked.ranks_on_a_node
        most = max(sum(needed[i:i + on_a_node]) for i in range(0, len(needed), on_a_node))
        if most > asked.memory_bytes:
            on_gpu = devices.lm_on_gpu(fleet[0].execution, cluster, asked)
            memory.refuse_lm(fleet[0], on_a_node, asked.memory_bytes, on_gpu, asked.memory)
            raise ValueError(f"training needs about {most / 1e9:.1f} GB of memory{' on one node' if asked.nodes > 1 else ''} and "
                             f"its job asks for {asked.memory}: the fleet is {memory.describe(fleet)}. Raise "
                             "cluster.job.memory, or add a rule for its runs to cluster.rules. Nothing was started.")


def host_of(fleet: Sequence[PlannedRun], cluster: ClusterConfig) -> Sequence[float]:
    """By rank: what a fleet needs of the nodes' own memory."""
    room = memory.room_of(fleet, cluster)
    return [memory.host_bytes(fleet)] * room.ranks if room.on_gpu else place(fleet, cluster).rank_bytes


def refuse_beyond_gpus(fleet: Sequence[PlannedRun], cluster: ClusterConfig) -> None:
    """Raises ValueError when a fleet trains on GPUs and one of its ranks needs more than a GPU has, dealt over all or not."""
    room = memory.room_of(fleet, cluster)
    if not room.on_gpu or math.isinf(room.rank_bytes):
        return
    needed = max(place(fleet, cluster).rank_bytes)
    if needed > room.rank_bytes:
        dealt = f", dealt over {room.ranks} GPUs" if room.ranks > 1 else ""
        more = "cluster.job.gpus" if cluster.kind == "slurm" else "cluster.ranks, or fewer cluster.workers"
        name = devices.name_of(cluster, requests(cluster)(fleet[0]))
        raise ValueError(f"training needs about {needed / 1e9:.1f} GB of memory on a GPU{dealt}, and a process has "
                         f"{room.rank_bytes / 1e9:.1f} GB of {name}: the fleet is {memory.describe(fleet, on_gpu=True)}. "
                         f"Ask for more GPUs ({more}), use smaller sae.n_latents or train.batch_tokens, or correct "
                         "cluster.gpu_memory_gb. Nothing was started.")


def trains_on(packed: Sequence[Sequence[PlannedRun]], cluster: ClusterConfig) -> str:
    """One line for the plan: the device, and what is known of it."""
    asked = {requests(cluster)(fleet[0]) for fleet in packed}
    found = {devices.name_of(cluster, r): devices.gpu_bytes(cluster, r) for r in asked if devices.on_gpu(cluster, r)}
    if not found:
        return "device: cpu"
    said = ", ".join(f"{name} ({f'{n / 1e9:.1f} GB' if n else 'memory not known, so not checked: set cluster.gpu_memory_gb'})"
                     for name, n in sorted(found.items()))
    cpus = " and cpu" if any(not devices.on_gpu(cluster, r) for r in asked) else ""
    return f"device: cuda, {said}{cpus}; estimated seconds are of one core until `saescale probe` has measured it"


def sent_bytes(run: PlannedRun, ranks: int) -> float:
    """What each rank sends in one step of a sharded run, by ring algorithms: 2 (R - 1) / R of a tensor that is summed, R - 1
    times a rank's own part of one that is gathered. Single numbers are left out."""
    science, sae = run.science, run.science["sae"]
    facts, tokens, d_in = KINDS[sae["kind"]], science["train"]["batch_tokens"], science["lm"]["d_in"]
    aux = facts.keeps_k and sae["aux_coeff"] > 0
    summed = 4 * d_in * (tokens * (facts.reconstructions + aux) + 1)
    offered = tokens * sae["k"] * KEY_BYTES[facts.selects_over_batch] if facts.keeps_k else 0
    if aux:
        offered += tokens * (sae["k_aux"] or default_k_aux(d_in, sae["n_latents"])) * KEY_BYTES[False]
    return (ranks - 1) * (2 * summed / ranks + offered)


def summary(packed: Sequence[Sequence[PlannedRun]], cluster: ClusterConfig) -> list[str]:
    """Lines for the plan: memory by rank, and for every sharded size what a step sends. None where every job is one process."""
    together = [(fleet, memory.room_of(fleet, cluster)) for fleet in packed]
    lines = []
    for ranks in sorted({room.ranks for _, room in together} - {1}):
        fleets = [fleet for fleet, room in together if room.ranks == ranks]
        room_gb = max(room.rank_bytes for _, room in together if room.ranks == ranks) / 1e9
        placements = [place(fleet, cluster) for fleet in fleets]
        whole = sum(home is not None for p in placements for home in p.homes.values())
        most = max(max(p.rank_bytes) for p in placements)
        limit = "" if math.isinf(room_gb) else f" of {room_gb:.2f}"
        lines.append(f"ranks: {ranks} per {'job' if cluster.kind == 'slurm' else 'worker'}, up to {most / 1e9:.2f}"
                     f"{limit} GB each; {price.counted(whole, 'trunk')} on one rank each")
        for (kind, n_latents), run in sharded(fleets, placements).items():
            lines.append(f"sharded over {ranks} ranks: {kind} n_latents={n_latents}, each rank sends "
                         f"{sent_bytes(run, ranks) / 1e6:.3g} MB per step")
    return lines


def sharded(packed: Sequence[Sequence[PlannedRun]], placements: Sequence[Placement]) -> dict[tuple, PlannedRun]:
    """One run for every kind and size that is dealt over ranks."""
    return {(r.science["sae"]["kind"], r.science["sae"]["n_latents"]): r
            for fleet, p in zip(packed, placements, strict=True) for r in fleet if p.homes[r.trunk_id] is None}


def described(packed: Sequence[Sequence[PlannedRun]], cluster: ClusterConfig) -> dict[str, object]:
    """The same for programs: a list entry per fleet."""
    placements = [place(fleet, cluster) for fleet in packed]
    n_ranks = [len(p.rank_bytes) for p in placements]
    sent = {f"{kind}-n{n_latents}": sent_bytes(run, ranks) for fleet, p, ranks in zip(packed, placements, n_ranks, strict=True)
            for (kind, n_latents), run in sharded([fleet], [p]).items()}
    return {"n_ranks": n_ranks, "rank_gb": [[b / 1e9 for b in p.rank_bytes] for p in placements],
            "homes": {trunk: home for p in placements for trunk, home in p.homes.items()}, "sent_bytes_per_step": sent}
