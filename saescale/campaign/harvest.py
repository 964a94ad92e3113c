"""Filling the activation cache: which shards are missing, which hooks one forward serves, and the jobs that make them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saescale.activations import overlap, tokens
from saescale.activations.shards import missing_shards, shard_tokens
from saescale.campaign import lm_cost, memory, price
from saescale.campaign.fleets import grouped
from saescale.campaign.jobs import make_job
from saescale.campaign.plan import Plan, PlannedRun
from saescale.campaign.resources import requests
from saescale.identity import digest
from saescale.records.store import Store


@dataclass(frozen=True)
class Harvest:
    """Activation caches that one forward fills: same language model and tokens, one cache per hook.

    `hooks`: hook name -> cache key; `shards`: [split, number] that at least one of them lacks; `n_bytes`: of all that is missing.
    """

    run: PlannedRun
    hooks: Mapping[str, str]
    shards: Sequence[tuple[str, int]]
    n_tokens: int
    n_bytes: int


def read_together(run: PlannedRun) -> str:
    """What two runs must share for one forward to serve both: all but the hook."""
    science = run.science
    lm = {k: v for k, v in science["lm"].items() if k not in ("hook_name", "d_in")}
    return digest({"lm": lm, "data": {k: v for k, v in science["data"].items() if k != "data_seed"}})


def harvests(runs: Sequence[PlannedRun], store: Store) -> list[Harvest]:
    """What the cached runs lack, by language model and corpus. The held-out shards are those the evaluations read."""
    return [_harvest(group, store) for group in grouped([r for r in runs if price.is_cached(r)], read_together).values()]


def expected(runs: Sequence[PlannedRun], store: Store) -> list[Harvest]:
    """The same for a plan: of corpora not tokenised yet, what they will come to; their shards are not known."""
    found = []
    for group in grouped([r for r in runs if price.is_cached(r)], read_together).values():
        if tokens.is_prepared(store, group[0].science["data"]):
            found.append(_harvest(group, store))
            continue
        hooks = {r.science["lm"]["hook_name"]: r for r in group}
        n_tokens = tokens.promised(group[0].science["data"]) + max(max(r.science["eval"].values()) for r in group)
        found.append(Harvest(group[0], {name: r.execution["cache_key"] for name, r in hooks.items()}, (), n_tokens,
                             n_tokens * sum(map(bytes_per_token, hooks.values()))))
    return found


def _harvest(group: Sequence[PlannedRun], store: Store) -> Harvest:
    run = group[0]
    corpus = tokens.read(store.corpus_dir(run.execution["corpus_key"]), verify=False)
    held_out_tokens = max(max(r.science["eval"].values()) for r in group)
    lacking: dict[tuple[str, int], int] = {}
    hooks = {r.science["lm"]["hook_name"]: r for r in group}
    n_bytes = 0
    for r in hooks.values():
        folder = store.activations_dir(r.execution["cache_key"])
        mine = [("held_out", i) for i in missing_shards(folder, "held_out", corpus.held_out, held_out_tokens)]
        mine += [("train", i) for i in missing_shards(folder, "train", corpus.train)]
        for split, i in mine:
            lacking[split, i] = shard_tokens(getattr(corpus, split), i)
            n_bytes += lacking[split, i] * bytes_per_token(r)
    keys = {name: r.execution["cache_key"] for name, r in hooks.items()}
    return Harvest(run, keys, sorted(lacking), sum(lacking.values()), n_bytes)


def bytes_per_token(run: PlannedRun) -> int:
    return run.science["lm"]["d_in"] * price.ACTIVATION_BYTES[run.science["data"]["activation_dtype"]]


def harvest_jobs(runs: Sequence[PlannedRun], store: Store, workers: int, max_disk_gb: float | None = None,
                 **aside: Any) -> list[Path]:
    """One job per worker for each set of caches that lack shards; every job fills all their hooks. `max_disk_gb`: of all
    activations of the store, where the jobs stop."""
    if max_disk_gb is not None:
        aside["max_disk_gb"] = max_disk_gb
    jobs = []
    for h in harvests(runs, store):
        for rank in range(min(workers, len(h.shards))):
            jobs.append(make_job(store, {
                "stage": "harvest", "shards": [list(s) for s in h.shards[rank::workers]], "hooks": dict(h.hooks),
                "science": dict(h.run.science), "execution": dict(h.run.execution)}, **aside))
    return jobs


def refuse_too_large(found: Sequence[Harvest], plan: Plan) -> None:
    """Raise ValueError when the harvesting processes do not fit into the memory there is, or into what their job asks for."""
    for h in (h for h in found if h.shards):
        if plan.cluster.kind == "slurm":
            lm_cost.refuse_too_large(h.run, 1, memory.room_bytes(plan.cluster, requests(plan.cluster)(h.run)))
        else:
            processes = min(memory.at_once(plan.cluster) * plan.cluster.ranks, len(h.shards))
            lm_cost.refuse_too_large(h.run, processes, memory.limit_bytes(plan.cluster))


def describe(h: Harvest, processes: int) -> str:
    """One line: what the harvest reads, and what it needs of time, disk and memory."""
    lm = lm_cost.folder_of(h.run.execution)
    hooks = next(iter(h.hooks)) if len(h.hooks) == 1 else f"{len(h.hooks)} hooks in one forward"
    last = max(int(name.split(".")[1]) for name in h.hooks)
    seconds = lm_cost.harvest_seconds(h.run, last, h.n_tokens) / processes
    minutes = "" if seconds != seconds else f", about {price.spoken(seconds)} on {price.counted(processes, 'core')}"
    size = f"{lm_cost.n_parameters(lm) / 1e6:.1f}M parameters, {h.run.science['lm']['dtype']}"
    return (f"harvest of {lm.label} ({size}) at {hooks}: {h.n_tokens / 1e6:.2f}M tokens, {h.n_bytes / 1e9:.2f} GB of disk, "
            f"{lm_cost.harvest_bytes(h.run) / 1e9:.2f} GB of memory in each process{minutes}")


def lines(plan: Plan, runs: Sequence[PlannedRun], store: Store) -> list[str]:
    """For the plan: what harvesting for `runs` still needs, and whether the held-out text stands in the training text too."""
    found = expected(runs, store)
    said = [describe(h, plan.cluster.workers * plan.cluster.ranks) for h in found if h.n_bytes]
    folders = {store.corpus_dir(h.run.execution["corpus_key"]) for h in found if tokens.is_prepared(store, h.run.science["data"])}
    warnings = [overlap.warning(tokens.read(folder, verify=False).meta.get("overlap")) for folder in folders]
    return [*said, *(w for w in warnings if w)]


def refuse_full_disk(runs: Sequence[PlannedRun], store: Store) -> None:
    needed, free = sum(h.n_bytes for h in harvests(runs, store)), shutil.disk_usage(store.root).free
    if needed > free:
        raise ValueError(f"the harvest needs {needed / 1e9:.3g} GB of disk and {store.root} has {free / 1e9:.3g} GB free. "
                         "Make room, lower data.max_train_tokens, give another --store, or use activations=live. "
                         "Nothing was started.")
