"""Runs as the store knows them, without their sweep: found by a part of their name."""

from __future__ import annotations

from pathlib import Path

from saescale import identity
from saescale.campaign.attempts import attempts
from saescale.campaign.plan import PlannedRun
from saescale.records import record
from saescale.records.store import Store, read_json


def find(store: Store, name: str) -> PlannedRun:
    """The one run whose id begins or ends with `name`. Raises ValueError when there is none or several."""
    known = sorted(p.name for p in (store.root / "by-id").glob("*")) if (store.root / "by-id").is_dir() else []
    fitting = [k for k in known if k == name] or [k for k in known if name and (k.startswith(name) or k.endswith(name))]
    if not fitting:
        raise ValueError(f"no run of {store.root} begins or ends with {name!r}. `saescale status SWEEP` lists them.")
    if len(fitting) > 1:
        raise ValueError(f"{len(fitting)} runs begin or end with {name!r}, such as {fitting[0]} and {fitting[1]}. "
                         "Give more of it.")
    return read(store, fitting[0])


def read(store: Store, run_id: str) -> PlannedRun:
    """The run of this very id. Raises ValueError when it was never launched."""
    config = read_json(store.run_dir(run_id) / record.CONFIG)
    if not isinstance(config, dict) or "science" not in config:
        raise ValueError(f"{store.run_dir(run_id)} has no config.json: it was never launched.")
    science = config["science"]
    return PlannedRun(run_id, identity.trunk_id(science), (), None, science, config.get("execution", {}))


def log_files(job: Path, attempt: int | None) -> list[tuple[Path, Path]]:
    """(attempt, file) of the logs of a job's attempts, or of one of them. Raises ValueError for an attempt there is not."""
    tried = [folder for folder, _ in attempts(job)]
    if attempt is not None:
        tried = [folder for folder in tried if folder.name == str(attempt)]
        if not tried:
            raise ValueError(f"{job.name} has no attempt {attempt}: there are {len(attempts(job))}, counted from 0.")
    return [(folder, path) for folder in tried for name in ("stdout", "stderr") for path in sorted(folder.glob(f"{name}*"))]
