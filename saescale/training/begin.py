"""The beginnings of a job: which trunks are this process's to train, and where each of them stands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch

from saescale import identity
from saescale.records import record
from saescale.records.lock import Lock
from saescale.records.store import Store, read_json
from saescale.sae.device import kernels_for
from saescale.sae.kernels import resolve
from saescale.sae.ranks import ALONE
from saescale.training import checkpoint
from saescale.training.finish import Bench, fresh_trainable, mark
from saescale.training.fleet import Trunk
from saescale.training.schedule import Schedule

if TYPE_CHECKING:
    from saescale.training.train import Job


def open_trunks(job: Job, configs: dict[str, Any]) -> list[Trunk]:
    """The runs of the job that have no record yet, by trunk: of the trunks that live on this rank, or on all together (None)."""
    trunks: dict[str, Trunk] = {}
    homes = job.content.get("homes", {})
    for run_id, config in configs.items():
        science = config["science"]
        name = identity.trunk_id(science)
        home = homes.get(name, 0)
        if home in (None, job.ranks.rank) and record.read_result(job.store.run_dir(run_id), science) is None:
            trunk = trunks.setdefault(name, Trunk(name, science, {}, ranks=ALONE if home is not None else job.ranks))
            trunk.runs[run_id] = Schedule.of(science["train"])
    return list(trunks.values())


def trunk_lock(store: Store, trunk_id: str) -> Lock:
    return Lock(store.trunk_dir(trunk_id) / "lock", store.trunk_dir(trunk_id) / "owners.jsonl")


def take(job: Job, trunk: Trunk, lock: Lock | None, wait_s: float) -> bool:
    """Lock the trunk, waiting out the last moments of a dying job; leave it to whoever goes on training it.

    Of several ranks the first holds the lock and decides for all.
    """
    wanted = list(trunk.runs)
    if lock is not None:
        holder = lock.acquire(wait_s)
        if holder is not None:
            print(f"{trunk.trunk_id} is being trained by {holder}: left to it.", file=sys.stderr)
        wanted = [run for run in wanted if holder is None and not has_record(job, run)]  # finished while this job waited
    wanted = trunk.ranks.from_first(wanted)
    for run_id in [run for run in trunk.runs if run not in wanted]:
        trunk.drop(run_id)
    return bool(trunk.runs)


def has_record(job: Job, run_id: str) -> bool:
    run_dir = job.store.run_dir(run_id)
    return record.read_result(run_dir, read_json(run_dir / record.CONFIG)["science"]) is not None


def restore(job: Job, trunk: Trunk, bench: Bench) -> None:
    """Put the trunk and its branches where the latest usable checkpoint left them, or at the beginning."""
    folder = job.store.trunk_dir(trunk.trunk_id) / "checkpoints"
    forks = {run: schedule.fork_step for run, schedule in trunk.runs.items()}
    found, notes = checkpoint.restore(folder, trunk.trunk_id, forks)
    for note in notes if trunk.ranks.first else []:
        print(note, file=sys.stderr)
    if trunk.ranks.from_first(found and found.step) != (found and found.step):
        raise ValueError(f"the ranks of this job do not see the same checkpoints of {trunk.trunk_id} in {folder}: the store must "
                         "lie on a file system they share.")
    kernels = kernels_of(trunk, found, job.content["execution"]["kernels"], bench.device)
    if found is None:
        trunk.start(fresh_trainable(trunk, bench, kernels))
    else:
        trunk.resume(found, lambda: fresh_trainable(trunk, bench, kernels))
    for run_id in trunk.runs:
        mark(job, run_id, trunk)


def kernels_of(trunk: Trunk, found: checkpoint.Checkpoint | None, wanted: str, device: torch.device) -> str:
    """The kernels a trunk trains with: those it began with, since its bits depend on them; for a new one, or one that comes from
    another kind of device, those wanted."""
    if found is None:
        return kernels_for(wanted, device)
    if found.device != device.type:
        kernels = kernels_for(wanted, device)
        print(f"{trunk.trunk_id} was begun on {found.device} with the {found.kernels} kernels and goes on on {device.type} with "
              f"{kernels}: the same to rounding, not bit for bit.", file=sys.stderr)
        return kernels
    if device.type != "cpu":
        return resolve(found.kernels, device)
    if resolve("auto") == "cpu" != found.kernels:
        raise ValueError(f"{trunk.trunk_id} was begun with the {found.kernels} kernels, which are not installed here: "
                         "pip install 'saescale[fast]' and launch again to go on with it.")
    if wanted not in ("auto", found.kernels):
        print(f"{trunk.trunk_id} was begun with the {found.kernels} kernels and keeps them.", file=sys.stderr)
    return found.kernels
