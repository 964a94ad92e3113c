"""Which rank of a job trains which trunk: whole trunks on one rank each, and what does not fit one rank dealt over all.

The latents of a dealt (sharded) trunk are divided evenly; every rank then steps it, and what they exchange at each step is
counted here. Arithmetic only: training is told the outcome in job.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saescale.campaign import memory, price
from saescale.campaign.plan import PlannedRun
from saescale.config import ClusterConfig
from saescale.kinds import KINDS
from saescale.science import default_k_aux

KEY_BYTES = {False: 8, True: 16}  # of a candidate of a selection by token, over the batch (sae/shards.py)
WHOLE_BYTES = 8  # a parameter: the whole SAE before the first step, of which each rank keeps its share (sae/model.py)


@dataclass(frozen=True)
class Placement:
    """`homes`: trunk_id -> its rank, None for those dealt over all. `rank_bytes`: memory by rank."""

    homes: Mapping[str, int | None]
    rank_bytes: Sequence[float]


def place(fleet: Sequence[PlannedRun], cluster: ClusterConfig) -> Placement:
    """Deals the trunks too large for one rank, then gives the others, the longest first, to the rank with the least to do among
    those with room.

    Too large: its live members and the process that trains them need more than an equal share of the memory, or they alone more
    than cluster.shard_above_gb. A trunk for which no rank has room left is dealt too.
    """
    ranks, room = cluster.ranks, memory.rank_room_bytes(cluster)
    trunks = sorted(price.by_trunk(fleet).values(), key=lambda g: (-price.trunk_seconds(g), g[0].trunk_id))
    homes: dict[str, int | None] = {}
    shared = memory.shared_bytes(fleet[0])
    seconds, members, passing = [0.0] * ranks, [0.0] * ranks, [0.0] * ranks
    for trunk in sorted(trunks, key=lambda t: not too_large(t, cluster)):
        own, step = memory.members_bytes(trunk), memory.passing_bytes(trunk)
        fitting = [r for r in range(ranks) if shared + members[r] + own + max(passing[r], step) <= room]
        if ranks > 1 and (too_large(trunk, cluster) or not fitting):
            at, divided = range(ranks), ranks
            passing[0] = max(passing[0], step)  # the first rank measures the whole SAE, which takes as much as a whole step
            step = max(step / ranks, WHOLE_BYTES * memory.n_params(trunk[0]))
        else:
            at, divided = [min(fitting or range(ranks), key=lambda r: seconds[r])], 1
        homes[trunk[0].trunk_id] = at[0] if divided == 1 else None
        for r in at:
            seconds[r] += price.trunk_seconds(trunk) / divided
            members[r], passing[r] = members[r] + own / divided, max(passing[r], step)
    return Placement(homes, [shared + m + p for m, p in zip(members, passing, strict=True)])


def too_large(trunk: Sequence[PlannedRun], cluster: ClusterConfig) -> bool:
    if cluster.ranks == 1:
        return False
    if cluster.shard_above_gb is not None:
        return memory.members_bytes(trunk) > cluster.shard_above_gb * 1e9
    return memory.worker_bytes([trunk]) > memory.rank_room_bytes(cluster)


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
    """Lines for the plan: memory by rank, and for every sharded size what a step sends. None for one rank."""
    if cluster.ranks == 1:
        return []
    placements = [place(fleet, cluster) for fleet in packed]
    whole = sum(home is not None for p in placements for home in p.homes.values())
    most = max(max(p.rank_bytes) for p in placements)
    lines = [f"ranks: {cluster.ranks} per worker, up to {most / 1e9:.2f} of {memory.rank_room_bytes(cluster) / 1e9:.2f} GB each; "
             f"{price.counted(whole, 'trunk')} on one rank each"]
    for (kind, n_latents), run in sharded(packed, placements).items():
        lines.append(f"sharded over {cluster.ranks} ranks: {kind} n_latents={n_latents}, each rank sends "
                     f"{sent_bytes(run, cluster.ranks) / 1e6:.3g} MB per step")
    return lines


def sharded(packed: Sequence[Sequence[PlannedRun]], placements: Sequence[Placement]) -> dict[tuple, PlannedRun]:
    """One run for every kind and size that is dealt over ranks."""
    return {(r.science["sae"]["kind"], r.science["sae"]["n_latents"]): r
            for fleet, p in zip(packed, placements, strict=True) for r in fleet if p.homes[r.trunk_id] is None}


def described(packed: Sequence[Sequence[PlannedRun]], cluster: ClusterConfig) -> dict[str, object]:
    """The same for programs."""
    placements = [place(fleet, cluster) for fleet in packed]
    runs = sharded(packed, placements).values()
    return {"n_ranks": cluster.ranks, "rank_gb": [[b / 1e9 for b in p.rank_bytes] for p in placements],
            "homes": {trunk: home for p in placements for trunk, home in p.homes.items()},
            "sent_bytes_per_step": {f"{r.science['sae']['kind']}-n{r.science['sae']['n_latents']}": sent_bytes(r, cluster.ranks)
                                    for r in runs}}
