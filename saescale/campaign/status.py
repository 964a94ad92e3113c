"""What a run is. Disk says what happened; one pure function decides, and every verb calls it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saescale.campaign.plan import PlannedRun
from saescale.records.lock import owner
from saescale.records.record import STATUS, read_result
from saescale.records.store import Damaged, Store, read_json

STATES = ("done", "running", "stopped", "failed", "damaged", "new")


@dataclass(frozen=True)
class RunState:
    state: str
    reason: str = ""
    progress: Mapping[str, Any] | None = None


def state(run: PlannedRun, store: Store) -> RunState:
    """done: a whole record of this very run. running: its trunk is locked by a living process. failed: the run itself
    failed (diverged, say) and would again. stopped: begun, not finished, `launch` goes on. damaged: see the reason.

    Raises OtherRun when the directory belongs to another experiment.
    """
    run_dir = store.run_dir(run.run_id)
    try:
        if read_result(run_dir, run.science) is not None:
            return RunState("done")
        status = read_json(run_dir / STATUS)
        if not isinstance(status, dict | None):
            raise Damaged(f"{run_dir / STATUS} is damaged: it is no run's status. Move it away and run the command again.")
    except Damaged as e:
        return RunState("damaged", str(e))
    holder = owner(store.trunk_dir(run.trunk_id) / "lock")
    if status is None:
        return RunState("new")
    if status.get("state") == "failed":
        return RunState("failed", status.get("reason", ""), status)
    if holder is not None:
        return RunState("running", f"{holder}", status)
    return RunState("stopped", status.get("reason", ""), status)


def states(runs: tuple[PlannedRun, ...], store: Store) -> dict[str, RunState]:
    return {r.run_id: state(r, store) for r in runs}
