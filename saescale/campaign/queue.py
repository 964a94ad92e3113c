"""What the scheduler says, and only that: is a job queued or running, what are its limits, what did the accounting note.

An answer that does not come is None, never "no": unknown is not failed.
"""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

PATIENCE_S = 60
ASKED_AT_ONCE = 1000  # ids in one argument, which may hold 128 KiB
# Everything else squeue may show, also names of later versions, counts as alive.
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
         "TIMEOUT"}
PENDING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}


@dataclass(frozen=True)
class Element:
    """A job or one element of an array. `id` is `<array>_<task>`, or the job's number when it is no array."""

    id: str
    name: str
    state: str
    reason: str

    @property
    def is_pending(self) -> bool:
        return self.state in PENDING

    @property
    def failed_to_start(self) -> bool:
        """Held by Slurm itself after a node failed to start it: nobody wished that, and without a release it waits for ever."""
        return self.is_pending and "launch failed" in self.reason.lower()


@dataclass(frozen=True)
class Queue:
    """This user's jobs that have not ended, by id; or, when squeue did not answer, why not."""

    elements: Mapping[str, Element]
    unknown: str | None = None

    def named(self, name: str) -> list[Element]:
        return [e for e in self.elements.values() if e.name == name]


@dataclass(frozen=True)
class Limits:
    """Elements per array and jobs in the queue that may be had; None: no limit known."""

    array: int | None
    submit: int | None


def ask(*command: str, with_errors: bool = False) -> tuple[str | None, str]:
    """(standard output, ""), or (None, one sentence) when the command is missing, fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S)
    except FileNotFoundError:
        return None, f"{command[0]} is not installed here"
    except (OSError, subprocess.TimeoutExpired) as e:
        return None, f"{command[0]} did not answer ({type(e).__name__})"
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        return None, f"{command[0]} said: {said}"
    return done.stdout + (done.stderr if with_errors else ""), ""


def queue() -> Queue:
    out, why = ask("squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--states=all",
                   "--format=%A|%F|%K|%T|%j|%r")
    if out is None:
        return Queue({}, why)
    found = {}
    for line in out.splitlines():
        parts = line.strip().split("|", 5)
        if len(parts) == 6:
            job, array, task, state, name, reason = parts
            if state not in ENDED:
                key = f"{array}_{task}" if task.isdigit() else job
                found[key] = Element(key, name, state, reason)
    return Queue(found)


def limits(account: str | None = None) -> Limits:
    """MaxArraySize of the controller, and the smallest limit on submitted jobs that the accounting holds for this user."""
    out, _ = ask("scontrol", "show", "config")
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", out or "", re.MULTILINE)
    return Limits(int(found[1]) if found else None, _max_submit(account))


def refuse_unknown_partition(wanted: Iterable[str | None]) -> None:
    """Raises ValueError for a partition the controller does not list; nothing when it does not answer."""
    out, _ = ask("sinfo", "--noheader", "--format=%R")
    known = sorted(set((out or "").split()))
    for name in wanted:
        if known and name is not None and not set(name.split(",")) <= set(known):
            raise ValueError(f"cluster.job.partition={name} is not known here. Choose one of: {', '.join(known)}, or null for "
                             "the default. Nothing was submitted.")


def _max_submit(account: str | None) -> int | None:
    if shutil.which("sacctmgr") is None:
        return None
    where = [f"user={getpass.getuser()}", *([f"account={account}"] if account else [])]
    out, _ = ask("sacctmgr", "--noheader", "--parsable2", "show", "assoc", *where, "format=MaxSubmit,GrpSubmit")
    numbers = [int(n) for n in re.findall(r"\d+", out or "")]
    return min(numbers, default=None)


def accounting(ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """What sacct noted of each job: State, ExitCode, Reason, Elapsed; empty where it does not answer. The last try counts."""
    fields = ("JobID", "State", "ExitCode", "DerivedExitCode", "Elapsed", "Timelimit", "NodeList", "Reason", "End")
    if not ids or shutil.which("sacct") is None:
        return {}
    said = ""
    for i in range(0, len(ids), ASKED_AT_ONCE):
        said += ask("sacct", "--noheader", "--parsable2", "--duplicates", f"--jobs={','.join(ids[i:i + ASKED_AT_ONCE])}",
                    f"--format={','.join(fields)}")[0] or ""
    rows: dict[str, dict[str, str]] = {}
    for line in said.splitlines():
        row = dict(zip(fields, line.split("|"), strict=False))
        name, _, step = row.get("JobID", "").partition(".")
        if not step:
            rows[name] = row
        elif name in rows and row.get("State", "").startswith("OUT_OF_ME"):
            rows[name] |= {"State": "OUT_OF_MEMORY"}
    return rows


def named_in_accounting(name: str) -> str | None:
    """The number of the array or job that was submitted under this name, as far as the accounting knows."""
    if shutil.which("sacct") is None:
        return None
    out, _ = ask("sacct", "--noheader", "--parsable2", "--allocations", f"--name={name}", "--starttime=now-7days",
                 "--format=JobID")
    found = re.match(r"(\d+)", out or "")
    return found[1] if found else None


def release(ids: Sequence[str]) -> str | None:
    """Let held jobs go; None, or what scontrol said."""
    if not ids:
        return None
    _, why = ask("scontrol", "release", *ids)
    return why or None


def cancel(ids: Sequence[str]) -> str | None:
    """Cancel exactly these; None, or what scancel said."""
    if not ids:
        return None
    _, why = ask("scancel", *ids)
    return why or None
