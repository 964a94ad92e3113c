"""Fleets: trunks that read the same stream, dealt over the workers, each small enough for a worker's share of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from saescale.campaign import memory, price
from saescale.campaign.plan import PlannedRun
from saescale.config import ClusterConfig
from saescale.identity import digest


def fleet_key(run: PlannedRun) -> str:
    """Runs with one key read the same activation batches and the same held-out set, so they may train side by side."""
    s = run.science
    return digest({"lm": s["lm"], "data": s["data"], "activations": s.get("activations"), "eval": s["eval"],
                   "batch_tokens": s["train"]["batch_tokens"]})[:10]


def fleets(runs: Sequence[PlannedRun], cluster: ClusterConfig) -> list[list[PlannedRun]]:
    """The trunks of each stream, the longest first, to the least loaded fleet that has room for their live members.

    There are as many fleets as workers, and more where memory asks for it; a trunk is never split.
    """
    room = memory.limit_bytes(cluster) / memory.at_once(cluster)
    packed: list[list[PlannedRun]] = []
    for group in grouped(runs, fleet_key).values():
        trunks = sorted(price.by_trunk(group).values(), key=lambda g: (-price.trunk_seconds(g), g[0].trunk_id))
        bins: list[list[list[PlannedRun]]] = [[] for _ in range(min(cluster.workers, len(trunks)))]
        for trunk in trunks:
            fitting = [b for b in bins if not b or memory.worker_bytes([*b, trunk]) <= room]
            if not fitting:
                bins.append([])
                fitting = bins[-1:]
            min(fitting, key=lambda b: sum(map(price.trunk_seconds, b))).append(trunk)
        packed += [[run for trunk in b for run in trunk] for b in bins if b]
    return packed


def grouped(runs: Sequence[PlannedRun], key: Callable[[PlannedRun], str]) -> dict[str, list[PlannedRun]]:
    groups: dict[str, list[PlannedRun]] = {}
    for r in runs:
        groups.setdefault(key(r), []).append(r)
    return groups
