"""Filling the activation cache: which shards are missing, which hooks one forward serves, and the jobs that make them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saescale.activations import overlap, tokens
from saescale.activations.shards import cache_spec, missing_shards, shard_tokens
from saescale.campaign import devices, lm_cost, memory, placement, price
from saescale.campaign.fleets import grouped
from saescale.campaign.jobs import make_job
from saescale.campaign.plan import Plan, PlannedRun
from saescale.campaign.resources import requests
from saescale.config import ClusterConfig
from saescale.identity import digest
from saescale.records.store import Store


@dataclass(frozen=True)
class Caches:
    """Activation caches that one forward fills: same language model and tokens, one cache per hook.

    `hooks`: hook name -> cache key; `shards`: [split, number] that at least one of them lacks; `n_bytes`: of all that is missing.
    """

    run: PlannedRun
    hooks: Mapping[str, str]
    shards: list[list]
    n_tokens: int
    n_bytes: int

    @property
    def last_layer(self) -> int:
        """Of the hooks: nothing above it is computed."""
        return max(int(name.split(".")[1]) for name in self.hooks)


@dataclass(frozen=True)
class Harvest:
    """What one job harvests: `shards` ([split, number]) of the caches of `hooks`, in so many `seconds`."""

    run: PlannedRun
    hooks: Mapping[str, str]
    shards: list[list]
    seconds: float


def read_together(run: PlannedRun) -> str:
    """What two runs must share for one forward to serve both: all that names their caches but the hook."""
    spec = cache_spec(run.science)
    return digest({**spec, "lm": {k: v for k, v in spec["lm"].items() if k not in ("hook_name", "d_in")}})


def lacking(runs: Sequence[PlannedRun], store: Store) -> list[Caches]:
    """What the cached runs lack, by language model and corpus. The held-out shards are those the evaluations read; of a corpus
    that is not tokenised yet, what it will come to, its shards not being known."""
    found = []
    for group in grouped([r for r in runs if price.is_cached(r)], read_together).values():
        if tokens.is_prepared(store, group[0].science["data"]):
            found.append(_lacking(group, store))
            continue
        hooks = {r.science["lm"]["hook_name"]: r for r in group}
        n_tokens = tokens.promised(group[0].science["data"]) + max(max(r.science["eval"].values()) for r in group)
        found.append(Caches(group[0], {name: r.execution["cache_key"] for name, r in hooks.items()}, [], n_tokens,
                            n_tokens * sum(map(bytes_per_token, hooks.values()))))
    return found


def missing(runs: Sequence[PlannedRun], store: Store) -> list[tuple[PlannedRun, list[list], int]]:
    """(a run, the shards it lacks as [split, number], their bytes) of every activation cache these runs read, hook by hook."""
    alone = grouped([r for r in runs if price.is_cached(r)], lambda r: r.execution["cache_key"]).values()
    return [(c.run, c.shards, c.n_bytes) for group in alone for c in lacking(group, store)]


def shares_forwards(runs: Sequence[PlannedRun], store: Store) -> bool:
    """Whether some of what is missing is read at several hooks: jobs of its own then harvest it, one forward for all."""
    return any(c.shards and len(c.hooks) > 1 for c in lacking(runs, store))


def harvests(runs: Sequence[PlannedRun], store: Store, workers: int) -> list[Harvest]:
    """One job per worker for each set of caches that lack shards; every job fills all their hooks."""
    found = []
    for c in lacking(runs, store):
        tokens_each = c.n_tokens / len(c.shards) if c.shards else 0.0
        for rank in range(min(workers, len(c.shards))):
            shards = c.shards[rank::workers]
            seconds = lm_cost.harvest_seconds(c.run, c.last_layer, tokens_each * len(shards))
            found.append(Harvest(c.run, c.hooks, shards, price.START_S + seconds))
    return found


def _lacking(group: Sequence[PlannedRun], store: Store) -> Caches:
    run = group[0]
    corpus = tokens.read(store.corpus_dir(run.execution["corpus_key"]), verify=False)
    held_out_tokens = max(max(r.science["eval"].values()) for r in group)
    n_tokens: dict[tuple[str, int], int] = {}
    hooks = {r.science["lm"]["hook_name"]: r for r in group}
    n_bytes = 0
    for r in hooks.values():
        folder = store.activations_dir(r.execution["cache_key"])
        mine = [("held_out", i) for i in missing_shards(folder, "held_out", corpus.held_out, held_out_tokens)]
        mine += [("train", i) for i in missing_shards(folder, "train", corpus.train)]
        for split, i in mine:
            n_tokens[split, i] = shard_tokens(getattr(corpus, split), i)
            n_bytes += n_tokens[split, i] * bytes_per_token(r)
    keys = {name: r.execution["cache_key"] for name, r in hooks.items()}
    return Caches(run, keys, [list(s) for s in n_tokens], sum(n_tokens.values()), n_bytes)


def bytes_per_token(run: PlannedRun) -> int:
    return run.science["lm"]["d_in"] * price.ACTIVATION_BYTES[run.science["data"]["activation_dtype"]]


def harvest_jobs(wanted: Sequence[Harvest], store: Store, max_disk_gb: float | None = None, **aside: Any) -> list[Path]:
    """`max_disk_gb`: of all activations of the store, where the jobs stop."""
    if max_disk_gb is not None:
        aside["max_disk_gb"] = max_disk_gb
    return [make_job(store, {"stage": "harvest", "shards": h.shards, "hooks": dict(h.hooks), "science": dict(h.run.science),
                             "execution": dict(h.run.execution)}, **aside) for h in wanted]


def refuse_too_large(found: Sequence[Caches], plan: Plan) -> None:
    """Raise ValueError when the harvesting processes do not fit into the memory there is, or into what their job asks for."""
    cluster = plan.cluster
    for h in (h for h in found if h.n_bytes):
        on_gpu = runs_lm_on_gpu(h.run, cluster)
        if cluster.kind == "slurm":
            assert cluster.job is not None
            asked = cluster.job.of_one_process()  # what harvest jobs ask for (groups.py)
            lm_cost.refuse_too_large(h.run, 1, asked.memory_bytes, on_gpu, asked.memory)
        else:
            processes = memory.at_once(cluster) * cluster.ranks
            lm_cost.refuse_too_large(h.run, min(processes, len(h.shards) or processes), memory.limit_bytes(cluster), on_gpu)


def runs_lm_on_gpu(run: PlannedRun, cluster: ClusterConfig) -> bool:
    """Whether the language model's weights lie on a GPU: where the SAEs train, unless lm.device says otherwise."""
    return devices.lm_on_gpu(run.execution, cluster, requests(cluster)(run))


def refuse_what_does_not_fit(found: Sequence[Caches], packed: Sequence[Sequence[PlannedRun]], plan: Plan) -> None:
    """Raise ValueError when harvesting what is `found` lacking, or training, needs more memory than there is or is asked for."""
    refuse_too_large(found, plan)
    placement.refuse_too_large(packed, plan.cluster)


def refusal(found: Sequence[Caches], packed: Sequence[Sequence[PlannedRun]], plan: Plan) -> str | None:
    """What a launch of these runs would refuse them with, for a plan to say."""
    try:
        refuse_what_does_not_fit(found, packed, plan)
    except ValueError as e:
        return str(e)
    return None


def describe(h: Caches, processes: int) -> str:
    """One line: what the harvest reads, and what it needs of time, disk and memory."""
    lm = lm_cost.folder_of(h.run.execution)
    hooks = next(iter(h.hooks)) if len(h.hooks) == 1 else f"{len(h.hooks)} hooks in one forward"
    seconds = lm_cost.harvest_seconds(h.run, h.last_layer, h.n_tokens) / processes
    minutes = f", about {price.spoken(seconds)} on {price.counted(processes, 'core')}"
    size = f"{lm_cost.n_parameters(lm) / 1e6:.1f}M parameters, {h.run.science['lm']['dtype']}"
    return (f"harvest of {lm.label} ({size}) at {hooks}: {h.n_tokens / 1e6:.2f}M tokens, {h.n_bytes / 1e9:.2f} GB of disk, "
            f"{lm_cost.harvest_bytes(h.run) / 1e9:.2f} GB of memory in each process{minutes}")


def lines(plan: Plan, found: Sequence[Caches], store: Store) -> list[str]:
    """For the plan: what harvesting what is `found` lacking needs, and whether held-out text stands in the training text too."""
    said = [describe(h, plan.cluster.workers * plan.cluster.ranks) for h in found if h.n_bytes]
    folders = {store.corpus_dir(h.run.execution["corpus_key"]) for h in found if tokens.is_prepared(store, h.run.science["data"])}
    warnings = [overlap.warning(tokens.read(folder, verify=False).meta.get("overlap")) for folder in folders]
    return [*said, *(w for w in warnings if w)]


def refuse_full_disk(runs: Sequence[PlannedRun], store: Store) -> None:
    needed, free = sum(c.n_bytes for c in lacking(runs, store)), shutil.disk_usage(store.root).free
    if needed > free:
        raise ValueError(f"the harvest needs {needed / 1e9:.3g} GB of disk and {store.root} has {free / 1e9:.3g} GB free. "
                         "Make room, lower data.max_train_tokens, give another --store, or use activations=live. "
                         "Nothing was started.")
