"""What a run is. Disk says what happened; one pure function decides, and every verb calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saescale.campaign.plan import PlannedRun
from saescale.campaign.queue import Queue
from saescale.campaign.queue import queue as ask_queue
from saescale.campaign.submissions import Flight, flight, read
from saescale.records.lock import owner
from saescale.records.record import STATUS, read_result
from saescale.records.store import Damaged, Store, read_json

STATES = ("done", "running", "queued", "unknown", "stopped", "failed", "damaged", "new")
NOWHERE = Flight()


@dataclass(frozen=True)
class RunState:
    state: str
    reason: str = ""
    progress: Mapping[str, Any] | None = None


def state(run: PlannedRun, store: Store, flight: Flight = NOWHERE) -> RunState:
    """done: a whole record of this very run. running: its trunk is locked by a living process, or the scheduler runs its job.
    queued: the scheduler has it. unknown: it was handed over and nobody can say. failed: the run itself failed (diverged, say)
    and would again. stopped: begun, not finished, `launch` goes on. damaged: see the reason.

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
    handed_over = flight.submitted.get(run.run_id)
    if status is not None and status.get("state") == "failed" and status.get("heartbeat", 0) >= (handed_over or 0):
        return RunState("failed", status.get("reason", ""), status)
    if status is not None and status.get("state") != "failed" and holder is not None:
        return RunState("running", f"{holder}", status)
    element = flight.elements.get(run.run_id)
    if element is not None:
        said = f"job {element.id} {element.state.lower()}" + (f" ({element.reason})" if element.reason != "None" else "")
        return RunState("queued" if element.is_pending else "running", said, status)
    if flight.unknown and handed_over is not None:
        return RunState("unknown", flight.unknown, status)
    if status is None:
        return RunState("new")
    if status.get("state") == "failed":
        return RunState("failed", status.get("reason", ""), status)
    return RunState("stopped", status.get("reason", ""), status)


def states(runs: Sequence[PlannedRun], store: Store, queue: Queue | None = None) -> dict[str, RunState]:
    """The state of every run. The scheduler is asked once, and only when a run that is not done was handed to it."""
    begun = store.known_runs()  # one listing; a run that has no directory needs no look of its own
    found = {r.run_id: state(r, store) if r.run_id in begun else RunState("new") for r in runs}
    submissions = read(store)
    open_runs = {run for s in submissions if s.over is None for runs_of in s.jobs.values() for run in runs_of}
    waiting = [r for r in runs if found[r.run_id].state not in ("done", "damaged") and r.run_id in open_runs]
    if waiting:
        now = flight(submissions, ask_queue() if queue is None else queue)
        found |= {r.run_id: state(r, store, now) for r in waiting}
    return found
