"""Fleets: trunks that read the same stream, dealt over the workers, each small enough for a worker's share of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from saescale.campaign import memory, placement, price
from saescale.campaign.plan import PlannedRun
from saescale.campaign.resources import requests
from saescale.config import ClusterConfig
from saescale.identity import digest


def fleet_key(run: PlannedRun) -> str:
    """Runs with one key read the same activation batches and the same held-out set, so they may train side by side."""
    s = run.science
    return _named(repr((s["lm"], s["data"], s.get("activations"), s["eval"], s["train"]["batch_tokens"])))


@cache
def _named(text: str) -> str:
    return digest(text)[:10]


@dataclass
class Bin:
    """A fleet being packed: its runs, their estimated seconds, and the bytes they keep and the most that one passes through."""

    runs: list[PlannedRun] = field(default_factory=list)
    seconds: float = 0.0
    members: float = 0.0
    passing: float = 0.0


def fleets(runs: Sequence[PlannedRun], cluster: ClusterConfig) -> list[list[PlannedRun]]:
    """The trunks of each stream, the longest first, to the least loaded fleet that has room for their live members.

    There are as many fleets as workers, fewer where the ranks of one would have no trunk each, and more where memory asks for
    it; a trunk is never split. On a cluster this holds for each resource group: the runs of a fleet ask for the same.
    """
    request = requests(cluster)
    packed: list[list[PlannedRun]] = []
    for group in grouped(runs, lambda r: f"{fleet_key(r)} {request(r)}").values():
        room = memory.room(cluster, request(group[0]))
        trunks = sorted(price.by_trunk(group).values(), key=lambda g: (-price.trunk_seconds(g), g[0].trunk_id))
        shared = room.ranks * memory.shared_bytes(trunks[0][0], room.on_gpu)
        n_dealt = sum(placement.too_large(trunk, cluster, room) for trunk in trunks)
        bins = [Bin() for _ in range(min(cluster.workers, n_dealt + -(-(len(trunks) - n_dealt) // room.ranks)))]
        for trunk in trunks:
            members, passing = memory.members_bytes(trunk), room.ranks * memory.passing_bytes(trunk, room.on_gpu)
            fitting = [b for b in bins if not b.runs or shared + b.members + members + max(b.passing, passing) <= room.n_bytes]
            if not fitting:
                bins.append(Bin())
                fitting = bins[-1:]
            least = min(fitting, key=lambda b: b.seconds)
            least.runs += trunk
            least.seconds += price.trunk_seconds(trunk)
            least.members, least.passing = least.members + members, max(least.passing, passing)
        packed += [b.runs for b in bins if b.runs]
    return packed


def grouped(runs: Sequence[PlannedRun], key: Callable[[PlannedRun], str]) -> dict[str, list[PlannedRun]]:
    groups: dict[str, list[PlannedRun]] = {}
    for r in runs:
        groups.setdefault(key(r), []).append(r)
    return groups
