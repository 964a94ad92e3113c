"""What of a store can go without losing anything that cannot be made again: listed, sized, and removed only when confirmed.

Records, weights, metrics, attempts and the ends of trunks are never among it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saescale import identity
from saescale.activations.shards import cache_key
from saescale.activations.tokens import corpus_key
from saescale.campaign import submissions
from saescale.campaign.attempts import read_or_empty
from saescale.campaign.queue import Queue
from saescale.records import record
from saescale.records.lock import owner
from saescale.records.store import Store
from saescale.sources import is_synthetic

ASIDE_S = 86400.0  # a file written aside is renamed within moments; a day later its writer is gone


@dataclass(frozen=True)
class Leaving:
    """One thing that can go."""

    kind: str
    path: Path
    n_bytes: int
    why: str


def leavings(store: Store, now: Queue) -> list[Leaving]:
    """Everything that can go, the largest first. With an unknown queue nothing a queued job may need is listed."""
    configs = {p.parent.name: read_or_empty(p) for p in store.root.glob(f"by-id/*/{record.CONFIG}")}
    found = [*checkpoints(store, configs), *caches(store, configs), *code(store, now), *aside(store)]
    return sorted(found, key=lambda f: -f.n_bytes)


def checkpoints(store: Store, configs: dict[str, dict]) -> list[Leaving]:
    """Rolling checkpoints of trunks that nobody trains and whose every run is recorded."""
    wanted: dict[str, list[str]] = {}
    for run, config in configs.items():
        if "science" in config:
            wanted.setdefault(identity.trunk_id(config["science"]), []).append(run)
    found = []
    for folder in sorted(store.root.glob("trunks/*")):
        runs = wanted.get(folder.name, [])
        rolling = [p for p in folder.glob("checkpoints/step-*")]
        done = bool(runs) and all((store.run_dir(r) / record.RESULT).exists() for r in runs)
        if rolling and done and owner(folder / "lock") is None:
            found += [Leaving("checkpoint", p, size(p), f"all {len(runs)} runs of its trunk are recorded") for p in rolling]
    return found


def caches(store: Store, configs: dict[str, dict]) -> list[Leaving]:
    """Activations and corpora that no run of the store names, nobody fills, and no plan waits for."""
    used = {key: {(c.get("execution") or {}).get(key) for c in configs.values()} for key in ("cache_key", "corpus_key")}
    for cache, corpus in harvested(store):
        used["cache_key"].add(cache)
        used["corpus_key"].add(corpus)
    found = []
    for kind, key in (("activations", "cache_key"), ("corpora", "corpus_key")):
        for folder in sorted(store.root.glob(f"{kind}/*")):
            claims = [p for p in folder.glob("claims/*") if not p.name.startswith(".")]  # without the guards of locks, which stay
            is_filled = any(owner(p) for p in (folder / "lock", *claims))
            if folder.name not in used[key] and not is_filled:
                found.append(Leaving(kind, folder, size(folder), "no run of this store reads it"))
    return found


def harvested(store: Store) -> set[tuple[str, str]]:
    """(cache, corpus) of the runs that saved plans still want: `harvest` fills a cache before `launch` makes a run of it."""
    found: dict[str, tuple[str, str]] = {}
    for path in store.root.glob("*/plan.json"):
        for run in read_or_empty(path).get("runs", ()):
            science = run["science"]
            text = f"{science['lm']} {science['data']}"
            if text not in found and not is_synthetic(science) and not (store.run_dir(run["run_id"]) / record.RESULT).exists():
                found[text] = cache_key(science), corpus_key(science["data"])
    return {keys for keys in found.values() if store.activations_dir(keys[0]).exists()}


def code(store: Store, now: Queue) -> list[Leaving]:
    """Snapshots of code and scripts of submissions that are over."""
    known = submissions.read(store)
    if now.unknown and any(s.over is None for s in known):
        return []
    live = {e.name for e in now.elements.values()}
    busy = [s for s in known if s.name in live or s.is_open]
    keep = {s.said.get("code") for s in busy}
    snapshots = [p for p in sorted(store.root.glob("code/*")) if str(p) not in keep]
    found = [Leaving("code", p, size(p), "no queued job runs it") for p in snapshots]
    done = {s.token for s in known if s not in busy and all_recorded(store, s)}
    return found + [Leaving("scripts", p, size(p), "all runs of its jobs are recorded")
                    for p in sorted(store.root.glob("*/slurm/*")) if p.name in done]


def all_recorded(store: Store, submission: submissions.Submission) -> bool:
    """What Slurm wrote beside the scripts explains runs that are not done: it stays until they are."""
    return all((store.run_dir(r) / record.RESULT).exists() for runs in submission.jobs.values() for r in runs)


def aside(store: Store) -> list[Leaving]:
    """Files a killed process had written aside."""
    old = time.time() - ASIDE_S
    hidden = [p for folder in ("by-id/*", "trunks/*/checkpoints") for p in store.root.glob(f"{folder}/.*")]
    return [Leaving("aside", p, size(p), "written aside by a process that is gone") for p in hidden
            if p.is_file() and not p.name.endswith(".guard") and p.stat().st_mtime < old]


def size(path: Path) -> int:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and not p.is_symlink())
    return path.stat().st_size


def remove(found: Sequence[Leaving]) -> None:
    for f in found:
        if f.path.is_dir():
            shutil.rmtree(f.path)
        else:
            f.path.unlink(missing_ok=True)
