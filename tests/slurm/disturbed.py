"""What goes wrong on a cluster, thrown at a live sweep when there is something to hit; and who trained what meanwhile."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import one_host
from lab import Lab, queued

from saescale.records.store import Store, read_lines

PATIENCE_S = 90
PAUSES_S = (0.4, 1.6)


class Watch:
    """Sees, several times a second, which processes of the lab are alive. `last_seen`: process -> when it last was."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.last_seen, self.over = lab, {}, threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self.over.wait(0.2):
            now = time.time()
            self.last_seen |= dict.fromkeys(self.lab.processes(), now)

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def held(store: Store, watch: Watch) -> dict[str, list[tuple[float, float]]]:
    """trunk -> the spans it was held in, in the order they began: from the lock's history, the end of a process that released
    nothing being when it was last seen alive."""
    found = {}
    for path in store.root.glob("trunks/*/owners.jsonl"):
        lines = read_lines(path)
        released = {line["token"]: line["time"] for line in lines if line["event"] == "released"}
        taken = [line for line in lines if line["event"] == "taken"]
        found[path.parent.name] = sorted(
            (t["time"], released.get(t["token"], max(t["time"], watch.last_seen.get(t["pid"], 0)))) for t in taken)
    return found


@dataclass
class Disturbance:
    """Each disturbance waits until there is something it hits, strikes, and is noted with what it hit."""

    lab: Lab
    seed: int
    happened: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random, self.stopped, self.down, self.preempted_at = random.Random(self.seed), "", "", 0.0

    def strike(self, some: list[Callable], first: Sequence[Callable], last: Sequence[Callable]) -> None:
        """At random times: `first` in this order, the others in an order drawn from the seed, then `last`."""
        self.random.shuffle(some)
        for disturb in (*first, *some, *last):
            time.sleep(self.random.uniform(*PAUSES_S))
            disturb()

    def once(self, what: str, attempt: Callable[[], str]) -> None:
        """Try until it hit something; `attempt` says what, or nothing."""
        deadline = time.monotonic() + PATIENCE_S
        while not (hit := attempt()):
            assert time.monotonic() < deadline, f"nothing to hit with {what} after {self.happened}"
            time.sleep(0.1)
        self.happened.append((what, hit))

    def training(self) -> list[int]:
        """Processes that hold a trunk, but for those of the element that stands still to meet its time limit."""
        owners = [json.loads(text) for p in self.lab.store_root.glob("trunks/*/lock") if (text := read(p))]
        holding = {o["pid"] for o in owners} & set(self.lab.processes())
        return sorted(pid for pid in holding if not self.stopped or element_of(pid) != self.stopped)

    def kill(self) -> None:
        """kill -9 of a worker in training, or of the task that watches it."""
        def attempt() -> str:
            pids = self.training()
            if not pids:
                return ""
            pid = self.random.choice(pids)
            watcher = parent(pid)
            pid = self.random.choice([pid, watcher if watcher in self.lab.processes() else pid])
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return ""
            return str(pid)

        self.once("kill", attempt)

    def on_element(self, what: str, *command: str) -> None:
        """The command for one element whose worker trains."""
        def attempt() -> str:
            elements = self.elements_in_training()
            element = self.random.choice(sorted(elements)) if elements else ""
            done = element and one_host.answers(*(part.replace("ELEMENT", element) for part in command))
            return element if done else ""

        self.once(what, attempt)

    def elements_in_training(self) -> dict[str, int]:
        """element -> a process of it that trains."""
        return {element: pid for pid in self.training() if (element := element_of(pid))}

    def requeue(self) -> None:
        self.on_element("requeue", "scontrol", "requeue", "ELEMENT")

    def time_limit(self) -> None:
        """A minute for one element, whose worker stands still so that it cannot be done before."""
        def attempt() -> str:
            for element, pid in self.elements_in_training().items():
                os.kill(pid, signal.SIGSTOP)
                self.stopped = element
                if one_host.answers("scontrol", "update", f"jobid={element}", "TimeLimit=1"):
                    return element
            return ""

        self.once("time limit", attempt)

    def node_down(self) -> None:
        """A node on which something runs, not the element that stands still."""
        def attempt() -> str:
            rows = [row.split("|") for row in one_host.said("squeue", "-h", "-t", "RUNNING", "-o", "%F_%K|%N").split()]
            spared = {node for element, node in rows if element == self.stopped}
            self.down = self.random.choice(sorted({node for _, node in rows} - spared) or [""])
            if self.down:
                one_host.said("scontrol", "update", f"nodename={self.down}", "state=down", "reason=test")
            return self.down

        self.once("node down", attempt)

    def node_up(self) -> None:
        one_host.answers("scontrol", "update", f"nodename={self.down}", "state=resume")  # it may have come back by itself

    def preempt(self) -> None:
        """All nodes for a more important job, while something trains on them: that is sent USR2 and queues itself again."""
        self.once("preemption", lambda: " ".join(sorted(self.elements_in_training())))
        self.preempted_at = time.time()
        number = one_host.said("sbatch", "--parsable", "-p", "main", "-N", str(one_host.NODES), "--exclusive", "-t", "1", "-o",
                               "/dev/null", "--wrap", "sleep 3").strip()
        one_host.wait_for("the preemption", lambda: number not in queued("PENDING"), PATIENCE_S)

    def require_traces(self) -> None:
        """What was thrown left its marks in the accounting and in the attempts."""
        kinds = [what for what, _ in self.happened]
        assert kinds.count("kill") >= 10 and {"requeue", "node down", "preemption", "time limit"} <= set(kinds), self.happened
        rows = one_host.said("sacct", "-nXPD", "-S", "now-1hour", "-o", "JobID,State").splitlines()
        assert {row.split("|")[1] for row in rows} & {"NODE_FAIL", "REQUEUED"}, rows
        hits = dict(self.happened)
        assert f"{hits['time limit']}|TIMEOUT" in rows or self.saved_and_queued_again(hits["time limit"], 0.0), (hits, rows)
        assert any(f"{element}|PREEMPTED" in rows or self.saved_and_queued_again(element, self.preempted_at)
                   for element in hits["preemption"].split()), (hits, rows)

    def saved_and_queued_again(self, element: str, since: float) -> bool:
        """Whether an attempt of the element ended so after `since`."""
        ends = [json.loads(p.read_text()) for p in self.lab.store_root.glob("jobs/*/attempts/*/exit*.json")
                if (json.loads((p.parent / "start.json").read_text()).get("slurm") or {}).get("id") == element]
        return any(e.get("asked") == "requeue" and e["ended"] >= since for e in ends)


def element_of(pid: int) -> str:
    words = read(Path(f"/proc/{pid}/environ")).split("\0")
    said = dict(w.split("=", 1) for w in words if "=" in w)
    return f"{said['SLURM_ARRAY_JOB_ID']}_{said['SLURM_ARRAY_TASK_ID']}" if "SLURM_ARRAY_JOB_ID" in said else ""


def parent(pid: int) -> int:
    fields = read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[1]) if fields else 0


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
