"""The process that mirrors a sweep's runs into wandb: `python -m saescale.track.mirror`, told what to do by one JSON line on its
standard input, and that training is over by the end of it (which a killed launcher brings about as well).

It only reads what training writes, at the lowest priority, in a process of its own: whatever happens to wandb, the server or this
process, training does not know. Nothing is remembered that the files do not say: after any end, the next mirror compares
metrics.jsonl with what is in wandb and sends the rest.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from saescale.records.store import Store, write_json
from saescale.track.client import Client, Deleted, IdTaken, LiveRun, NoKey, Unreachable
from saescale.track.tracked import Book, Ending, Tracked, ending, metrics_file, planned, rows

POLL_S = 1.0
MOST_OPEN = 64  # runs open at once; more wait until one ends
MOST_UNDELIVERED = 2  # each costs FINISH_S
OFFLINE = "offline"


class Mirror:
    """`asked`: store, sweep, token, kind (offline or wandb), project, entity, runs (null: all of the plan), sync (whether
    only the server will do), revive."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked, self.begun = asked, time.time()
        self.store = Store(Path(asked["store"]))
        self.folder = self.store.sweep_dir(asked["sweep"]) / "track"
        self.book = Book(self.folder)
        wanted = asked.get("runs")
        self.runs = [r for r in planned(self.store, asked["sweep"]) if wanted is None or r.run_id in wanted]
        self.online = asked["kind"] == "wandb"
        self.where = OFFLINE
        self.client: Client | None = None
        self.live: dict[str, LiveRun] = {}
        self.seen: dict[str, Any] = {}  # run_id -> stamp of its files when they were last read
        self.left: set[str] = set()  # runs nothing more is tried for
        self.notes: list[str] = []
        self.done = self.failures = self.undelivered = 0

    def start(self) -> None:
        """Choose where runs go: the server when it is wanted and answers, else the disk."""
        self.tell("beginning")
        place = self.book.place()
        try:
            self.client = Client(self.folder, self.asked.get("project") or place.get("project"),
                                 self.asked.get("entity") or place.get("entity"))
        except Exception as e:  # whatever an installation may do
            return self.give_up(f"wandb cannot be used ({type(e).__name__}: {e})")
        try:
            self.where = self.client.connect() if self.online else OFFLINE
            self.book.remember(self.client.project, self.client.entity)
        except Unreachable as e:
            if self.asked.get("sync"):
                return self.give_up(str(e))
            self.online = False
            self.book.remember(self.client.project, self.client.entity)
            self.note(f"{e}: tracked offline." if isinstance(e, NoKey) else f"{e}: tracked offline from here.")
        return None

    def give_up(self, reason: str) -> None:
        self.client = None
        self.note(f"{reason}. Nothing more was sent." if self.asked.get("sync") else f"{reason}: tracking is off.")

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            print(text, file=sys.stderr, flush=True)

    def tell(self, phase: str) -> None:
        """The mirror's status, for who waits for it: it is heard as long as this changes."""
        write_json(self.folder / f"mirror-{self.asked['token']}.json", {
            "phase": phase, "where": self.where if self.client else "off", "pid": os.getpid(), "done": self.done,
            "total": len(self.runs), "open": len(self.live), "sent": sum(r.sent for r in self.live.values()),
            "notes": self.notes, "failures": self.failures, "heartbeat": time.time()})

    def follow(self, over: threading.Event) -> None:
        """Mirror until training is over, then all that is left."""
        last = False
        while self.client is not None and not last:
            last = over.is_set()
            for run in self.runs:
                if self.client is not None and run.run_id not in self.left:
                    self.look(run, last)
            self.tell("ending" if last else "following")
            if not last:
                over.wait(POLL_S)

    def look(self, run: Tracked, last: bool) -> None:
        """Send what is new of one run; close it when it ended, or when nothing will follow."""
        stamp = self.stamp(run)
        if not last and self.seen.get(run.run_id) == stamp:
            return
        self.seen[run.run_id] = stamp
        stands = ending(self.store, run, 0.0 if last else self.begun)
        found = rows(self.store, run)
        state = stands.state or ("stopped" if last else "running")
        if not found and state in ("stopped", "running"):
            return
        live = self.live.get(run.run_id)
        if live is None and self.is_there(run, len(found), state):
            return
        if live is None and len(self.live) >= MOST_OPEN and state == "running":
            self.seen.pop(run.run_id)  # looked at again when another has ended
            return
        try:
            live = live or self.open(run)
            live.send(found)
            if state != "running":
                self.close(run, live, Ending(state, stands.summary), len(found))
        except Deleted:
            self.deleted(run)
        except Exception as e:  # of wandb's, of any kind: training goes on
            self.trouble(run, e)

    def stamp(self, run: Tracked) -> list[Any]:
        path, _ = metrics_file(self.store, run)
        return [_stamp(p) for p in (path, self.store.run_dir(run.run_id) / "result.json",
                                    self.store.run_dir(run.run_id) / "status.json" if run.run_id not in self.live else path)]

    def is_there(self, run: Tracked, n_rows: int, state: str) -> bool:
        """Whether wandb has all of it, or does not want it."""
        if self.book.is_deleted(run, self.where):
            if self.asked.get("revive"):
                self.book.revive(run)
                return False
            self.deleted(run)
            return True
        if state != "running" and self.book.has(run, self.where, n_rows, state):
            self.done += 1
            self.left.add(run.run_id)
            return True
        return False

    def open(self, run: Tracked) -> LiveRun:
        assert self.client is not None
        live = self.live[run.run_id] = self.client.open(run, self.book.wandb_id(run), self.online)
        step_back()  # wandb's own process may have begun just now
        return live

    def close(self, run: Tracked, live: LiveRun, stands: Ending, n_rows: int) -> None:
        """Finish a run, see that the server has every row, and write down that wandb has it."""
        assert self.client is not None
        live.close(str(stands.state), stands.summary)
        wandb_id = self.book.wandb_id(run)
        if live.online:
            there = self.client.rows_there(wandb_id)
            if there < n_rows:
                raise Unreachable(f"the server has {there} of the {n_rows} rows of {wandb_id}")
        self.live.pop(run.run_id)
        self.book.write(run, id=wandb_id, where=self.where if live.online else OFFLINE, rows=n_rows, ended=stands.state)
        self.client.sweep_up(wandb_id, None if live.online else live.folder)
        self.done += 1
        self.left.add(run.run_id)
        self.tell("following")

    def deleted(self, run: Tracked) -> None:
        self.book.write(run, id=self.book.wandb_id(run), where=self.where, deleted=True)
        self.left.add(run.run_id)
        self.failures += 1
        self.note("runs that were deleted on the server are left out: `saescale sync --revive` sends them under another id.")

    def trouble(self, run: Tracked, e: Exception) -> None:
        """Leave this run to a later sync. When a run cannot even begin, the next go to the disk, and then nowhere."""
        had_begun = self.live.pop(run.run_id, None) is not None
        self.left.add(run.run_id)
        self.failures += 1
        self.undelivered += had_begun
        text = str(e) if isinstance(e, Unreachable) else f"{type(e).__name__}: {e}"
        self.note(f"{text}. Its rows are in metrics.jsonl; `saescale sync` sends them.")
        if isinstance(e, IdTaken) or had_begun and self.undelivered < MOST_UNDELIVERED:
            return
        if self.online and not had_begun and not self.asked.get("sync"):
            self.online, self.where = False, OFFLINE
            self.note("the other runs are tracked offline from here.")
        else:
            self.give_up("wandb does not take what it is sent")

    def end(self) -> None:
        if self.client is not None:
            self.client.close()
        self.tell("ended")


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def step_back() -> None:
    """Lowest priority for this process and those it began. Each leads a session of its own, and where the kernel shares the
    processor by session (autogroup) it is the session's priority that counts."""
    begun = (pid for listed in Path("/proc/self/task").glob("*/children") for pid in listed.read_text().split())
    for pid in (os.getpid(), *begun):
        with suppress(OSError):  # another kernel, or that process has ended
            Path(f"/proc/{pid}/autogroup").write_text("19")


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):  # meant for who trains; this ends when its input does
        signal.signal(number, signal.SIG_IGN)
    os.nice(19)
    step_back()
    asked = json.loads(sys.stdin.readline())
    over = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    mirror = Mirror(asked)
    mirror.start()
    mirror.follow(over)
    mirror.end()
    sys.stderr.flush()
    os._exit(0)  # what wandb would still wait for at its exit is what was given up


if __name__ == "__main__":
    main()
