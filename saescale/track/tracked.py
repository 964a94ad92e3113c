"""What a run has to show a dashboard, read from its own files. Knows no wandb.

metrics.jsonl is the record and a mirror of it can be made again at any time: rows come back in the same order, with the same
steps, after a kill and after a resume. A branch that has not left its trunk yet shows the trunk's rows up to its fork, which
are the first rows of its own file later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saescale import identity
from saescale.records import record
from saescale.records.store import Damaged, Store, read_json, read_lines, write_json
from saescale.science import fork_step

LONGEST_ID = 64  # wandb takes no longer run id, and no longer tag
FORBIDDEN = "/\\#?%:"  # in a run id


@dataclass(frozen=True)
class Tracked:
    """One run of a sweep's plan, as plan.json has it."""

    sweep: str
    run_id: str
    trunk_id: str
    grids: tuple[str, ...]
    target_flops: float | None
    science: Mapping[str, Any]

    def wandb_id(self, take: int = 1) -> str:
        """`<sweep>-<run_id>`, or what tells it apart when that is too long; a later `take` is for a run deleted on the server."""
        whole = f"{self.sweep}-{self.run_id}" + (f"-{take}" if take > 1 else "")
        if len(whole) <= LONGEST_ID and not set(whole) & set(FORBIDDEN):
            return whole
        kept = "".join("_" if c in FORBIDDEN else c for c in whole)
        return f"{kept[:LONGEST_ID - 11]}-{identity.digest(whole)[:10]}"

    @property
    def tags(self) -> tuple[str, ...]:
        """Kind, layer, size, budget (when the run belongs to one)."""
        sae = self.science["sae"]
        budget = [f"C{identity.short_number(self.target_flops)}"] if self.target_flops else []
        return (sae["kind"], identity.hook_label(self.science["lm"]["hook_name"]), f"n{sae['n_latents']}", *budget)

    @property
    def config(self) -> dict[str, Any]:
        """The science block, and beside it what a dashboard groups by."""
        return {**self.science, "run_id": self.run_id, "trunk_id": self.trunk_id, "sweep": self.sweep, "grids": list(self.grids),
                "budget_flops": self.target_flops, "fingerprint": identity.fingerprint(self.science)}


@dataclass(frozen=True)
class Ending:
    """How a run stands: `state` done, failed or None (neither), and the numbers its page shows at the top."""

    state: str | None
    summary: Mapping[str, Any]


def planned(store: Store, sweep: str) -> list[Tracked]:
    """The runs of a sweep's plan. Raises ValueError when it has none."""
    plan = read_json(store.sweep_dir(sweep) / "plan.json")
    if plan is None:
        raise ValueError(f"{sweep} has no plan in {store.root}. Run `saescale launch {sweep.partition('+')[0]}` first.")
    return [Tracked(sweep, r["run_id"], r["trunk_id"], tuple(r["grids"]), r["target_flops"], r["science"]) for r in plan["runs"]]


def metrics_file(store: Store, run: Tracked) -> tuple[Path, bool]:
    """Where the run's rows are now, and whether that is its trunk's file."""
    own = store.run_dir(run.run_id) / record.METRICS
    return (own, False) if own.exists() else (store.trunk_dir(run.trunk_id) / record.METRICS, True)


def rows(store: Store, run: Tracked) -> list[dict[str, Any]]:
    """The run's rows so far, by step."""
    path, of_trunk = metrics_file(store, run)
    train = run.science["train"]
    last = fork_step(train["n_tokens"] // train["batch_tokens"], train["lr_decay_fraction"]) if of_trunk else None
    found = {r["step"]: r for r in read_lines(path) if isinstance(r, dict) and isinstance(r.get("step"), int)}
    return [found[step] for step in sorted(found) if last is None or step <= last]


def ending(store: Store, run: Tracked, failed_since: float = 0.0) -> Ending:
    """The record when there is one, else the reason of a failure; one before `failed_since` may be about to be tried again."""
    run_dir = store.run_dir(run.run_id)
    try:
        result = record.read_result(run_dir, run.science)
        status = read_json(run_dir / record.STATUS)
    except (Damaged, record.OtherRun):
        return Ending(None, {})
    if result is not None:
        return Ending("done", summary(result, run_dir))
    if isinstance(status, dict) and status.get("state") == "failed" and status.get("heartbeat", 0.0) >= failed_since:
        return Ending("failed", {"reason": status.get("reason", "")})
    return Ending(None, {})


def summary(result: Mapping[str, Any], run_dir: Path) -> dict[str, Any]:
    """The record's numbers under its own names; a missing one is left out. n_alive is over the run's whole held-out set."""
    found = {**result["metrics"], **result["flops"], "n_tokens": result["n_tokens"], "wall_s": result.get("wall_s"),
             "steps": result.get("steps"), "environment": result.get("environment")}
    if found["wall_s"]:
        found["tokens_per_s"] = result["n_tokens"] / found["wall_s"]
    try:
        first_fired = np.load(run_dir / record.FIRST_FIRED, allow_pickle=False)
        found["n_alive"] = int(np.count_nonzero(first_fired >= 0))
        found["alive_fraction"] = found["n_alive"] / first_fired.size
        found["alive_window_tokens"] = result["metrics"].get("n_held_out_tokens")
    except (OSError, ValueError):
        pass
    return {k: v for k, v in found.items() if v is not None}


class Book:
    """What of each run is known to be in wandb: `track/runs/<run_id>.json` of the sweep.

    {"id", "take", "where": "offline" or the server's project, "rows", "ended", "deleted"}; written when a run was closed well.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.place_file = folder / "runs", folder / "place.json"

    def place(self) -> dict[str, str | None]:
        """The project and entity this sweep went to; a later command goes there too unless it is told otherwise."""
        try:
            found = read_json(self.place_file)
        except Damaged:
            found = None
        return found if isinstance(found, dict) else {}

    def remember(self, project: str, entity: str | None) -> None:
        if self.place() != (place := {"project": project, "entity": entity}):
            write_json(self.place_file, place)

    def read(self, run: Tracked) -> dict[str, Any]:
        """What is known; nothing when nothing is, or the file cannot be read (the run is then sent again, without doubles)."""
        try:
            found = read_json(self.folder / f"{run.run_id}.json")
        except Damaged:
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, run: Tracked, **known: Any) -> None:
        write_json(self.folder / f"{run.run_id}.json", {**self.read(run), **known})

    def wandb_id(self, run: Tracked) -> str:
        return run.wandb_id(self.read(run).get("take", 1))

    def has(self, run: Tracked, where: str, n_rows: int, ended: str) -> bool:
        """Whether all of it is there already. What is on a server is not made offline again."""
        known = self.read(run)
        same = (known.get("rows"), known.get("ended")) == (n_rows, ended)
        return same and (known.get("where") == where or where == "offline")

    def is_deleted(self, run: Tracked, where: str) -> bool:
        known = self.read(run)
        return bool(known.get("deleted")) and known.get("where") == where

    def revive(self, run: Tracked) -> None:
        """Give a run that was deleted on the server another id."""
        self.write(run, deleted=False, take=self.read(run).get("take", 1) + 1, rows=None, ended=None)
