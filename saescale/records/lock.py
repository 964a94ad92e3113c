"""The lock of a trunk: at most one process trains it. A lock whose owner is gone is taken over."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from saescale.records.store import append_line

STALE_S = 120.0  # silence after which an owner on another host counts as gone


@dataclass(frozen=True)
class Owner:
    host: str
    pid: int
    started: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def process_start(pid: int) -> str | None:
    """Start time of a process of this host (so that a reused pid is not mistaken for the owner), None when it is gone.

    A zombie counts as gone. Without /proc the answer is 'unknown' for a live pid.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (FileNotFoundError, ProcessLookupError):  # the second when it ends between open and read
        if Path("/proc/self").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


def owner(path: Path) -> Owner | None:
    """Who holds the lock now; None when it is free or its owner is gone."""
    try:
        raw = path.read_text()
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    try:
        found = Owner(**json.loads(raw))
    except (ValueError, TypeError):
        return None if age > 5 else Owner("unknown", 0, "", "")  # being written, or torn by a full disk
    if found.host == socket.gethostname():
        return found if process_start(found.pid) == found.started else None
    return found if age < STALE_S else None


class LostLock(ValueError):
    """Another process took this lock over while its owner was silent."""


class Lock:
    """`acquire` before training a trunk, `beat` while training (or be `kept`), `release` after.

    `history`: a file that keeps a line for each time the lock was taken and released, {event, time, host, pid, token}.
    """

    def __init__(self, path: Path, history: Path | None = None) -> None:
        self.path, self.history = path, history
        pid = os.getpid()
        self.me = Owner(socket.gethostname(), pid, process_start(pid) or "unknown", uuid.uuid4().hex)

    def acquire(self, wait_s: float = 0.0) -> Owner | None:
        """None when taken; else who holds it after `wait_s`. Waiting bridges the last moments of a dying job.

        Whether an owner on another host is gone only its silence tells: who waits at all waits for that, until it has been
        silent for STALE_S or is heard again.
        """
        begun, heard = time.monotonic(), self._heartbeat()
        while (holder := self._try()) is not None:
            silent = holder.host != self.me.host and self._heartbeat() == heard
            if time.monotonic() - begun >= (max(wait_s, STALE_S + 5) if wait_s and silent else wait_s):
                break
            time.sleep(0.2)
        if holder is None:
            self._note("taken")
        return holder

    def _note(self, event: str) -> None:
        if self.history is not None:
            append_line(self.history, {"event": event, "time": time.time(), "host": self.me.host, "pid": self.me.pid,
                                       "token": self.me.token})

    def _heartbeat(self) -> int | None:
        try:
            return self.path.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def _try(self) -> Owner | None:
        """Take the lock, or say who holds it. A guard file serialises rivals for a lock whose owner is gone."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f".{self.path.name}.guard").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            holder = owner(self.path)
            if holder is None:
                self.path.write_text(json.dumps(self.me.__dict__))
            return holder

    def beat(self) -> None:
        """Say that the owner lives. Raises LostLock when this process was silent so long that another took over."""
        if not self._is_mine():
            raise LostLock(f"{self.path} was taken over while this process was silent: stopping here. "
                           "Whoever holds it goes on; launch again when it is done.")
        os.utime(self.path)

    @contextlib.contextmanager
    def kept(self, every_s: float = STALE_S / 4) -> Iterator[None]:
        """While open, a thread beats: for work that cannot say in between that it lives. It falls silent with its process."""
        over = threading.Event()

        def keep() -> None:
            while not over.wait(every_s):
                with contextlib.suppress(OSError):
                    try:
                        self.beat()
                    except LostLock:  # the next beat of the owner itself tells
                        return

        keeper = threading.Thread(target=keep, daemon=True)
        keeper.start()
        try:
            yield
        finally:
            over.set()
            keeper.join()

    def release(self) -> None:
        if self._is_mine():
            with contextlib.suppress(OSError):  # a full disk must not keep the lock
                self._note("released")
            self.path.unlink(missing_ok=True)

    def _is_mine(self) -> bool:
        try:
            return json.loads(self.path.read_text())["token"] == self.me.token
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return False
