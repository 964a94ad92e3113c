"""The attempts of a job as they lie on disk: when each began, how each of its processes ended, and which of them tells why.

An attempt of one task leaves exit.json. Where the scheduler started a task per rank, each leaves its own: exit.json of the first,
exit.1.json, exit.2.json ... of the others.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saescale.records.store import Damaged, read_json

PLAIN_ENDS = (0, 3, 4)  # done, stopped with a sentence, asked to stop: what a rank that was taken along ends with


@dataclass(frozen=True)
class Ending:
    """How an attempt ended, told by the task that tells most: its `code` (None: it left none) and its `rank` of `n_tasks`; what
    any was `asked` for; `ended` when all have; the ranks that are `silent`, which left nothing."""

    code: int | None
    rank: int
    n_tasks: int
    asked: str | None
    ended: float | None
    silent: tuple[int, ...]


def attempts(job: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The attempts of a job, oldest first, each with its start.json ({} where it is missing)."""
    folders = sorted((job / "attempts").glob("*"), key=lambda p: int(p.name) if p.name.isdigit() else -1)
    return [(folder, read_or_empty(folder / "start.json")) for folder in folders]


def exit_name(rank: int) -> str:
    return f"exit.{rank}.json" if rank else "exit.json"


def exits(attempt: Path) -> dict[int, dict[str, Any]]:
    """rank -> what its task wrote at its end; {} for one that wrote nothing."""
    n_tasks = read_or_empty(attempt / "start.json").get("n_tasks", 1)
    return {rank: read_or_empty(attempt / exit_name(rank)) for rank in range(n_tasks)}


def ending(attempt: Path) -> Ending:
    """Who was killed comes first, then who ended in an error of its own, who left nothing, whom a SIGTERM ended (srun ends so the
    others of a task that was killed), and who was first to stop."""
    found = exits(attempt)

    def tells(rank: int) -> tuple[int, float]:
        code = found[rank].get("exit_code")
        if code is None:
            order = 2
        elif code < 0:
            order = 3 if code == -signal.SIGTERM else 0
        else:
            order = 1 if code not in PLAIN_ENDS else 5 if code == 0 else 4
        return order, found[rank].get("ended", 0.0)

    first = min(found, key=tells)
    asked = {e["asked"] for e in found.values() if e.get("asked")}
    ends = [e.get("ended") for e in found.values()]
    return Ending(found[first].get("exit_code"), first, len(found), max(asked, default=None, key=("stop", "requeue").index),
                  max(ends) if None not in ends else None, tuple(r for r, e in found.items() if not e))


def attempt_seconds(attempt: Path) -> float:
    """How long it lasted; an attempt whose end nobody saw, until its last sign of life."""
    start = read_or_empty(attempt / "start.json")
    if "started" not in start:
        return 0.0
    ended = ending(attempt).ended
    last = ended or max((p.stat().st_mtime for p in (attempt, *attempt.glob("*"))), default=start["started"])
    if ended is None and attempt == attempts(attempt.parents[1])[-1][0]:
        last = max(last, read_or_empty(attempt.parents[1] / "status.json").get("heartbeat", 0))
    return max(0.0, last - start["started"])


def read_or_empty(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except Damaged:
        return {}
    return found if isinstance(found, dict) else {}
