"""The launcher's end of the mirror: start it, say when training is over, wait for it within reason, and pass on what it noted."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from saescale.records.store import Damaged, Store, read_json

PATIENCE_S = 40.0  # silence after which a mirror is given up: above what one call to wandb may take (client.INIT_S, FINISH_S)
POLL_S = 0.1


@dataclass(frozen=True)
class Asked:
    """What a mirror is to do. `kind`: offline or wandb. `runs` None: all of the plan. `sync`: the server or nothing."""

    sweep: str
    kind: str
    project: str | None = None
    entity: str | None = None
    runs: Sequence[str] | None = None
    token: str = "launch"
    sync: bool = False
    revive: bool = False


def require_wandb() -> None:
    """Raises ValueError when wandb is not installed. Asks the installation, not the import: a run's folder may be named wandb."""
    try:
        version("wandb")
    except PackageNotFoundError:
        raise ValueError("tracking needs wandb, which is not installed: pip install 'saescale[wandb]', or use track=off. "
                         "Nothing was started.") from None


def require_workspaces() -> None:
    """Raises ValueError when wandb-workspaces is not installed."""
    try:
        version("wandb-workspaces")
    except PackageNotFoundError:
        raise ValueError("a dashboard needs wandb-workspaces, which is not installed: "
                         "pip install 'saescale[dashboard]'.") from None


class Follower:
    """A mirror at work."""

    def __init__(self, store: Store, asked: Asked) -> None:
        folder = store.sweep_dir(asked.sweep) / "track"
        folder.mkdir(parents=True, exist_ok=True)
        self.asked, self.folder = asked, folder
        self.path = folder / f"mirror-{asked.token}.json"
        self.path.unlink(missing_ok=True)
        with (folder / f"mirror-{asked.token}.log").open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "saescale.track.mirror"], stdin=subprocess.PIPE, stdout=log,
                                            stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)
        self._say(json.dumps({**vars(asked), "store": str(store.root)}) + "\n")

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
        except OSError:
            return  # it has ended; finish() says so

    def status(self) -> dict[str, Any]:
        try:
            return read_json(self.path) or {}
        except Damaged:
            return {}

    def finish(self, show: Callable[[dict[str, Any]], None] = lambda _: None, longest_s: float = math.inf) -> dict[str, Any]:
        """Say that training is over and wait while the mirror is heard; gives its last status, with a note if it ended badly."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        heard, last = time.monotonic(), None
        until = heard + longest_s
        try:
            while self.process.poll() is None and time.monotonic() < min(heard + PATIENCE_S, until):
                time.sleep(POLL_S)
                now = self.status()
                if now != last:
                    heard, last = time.monotonic(), now
                    show(now)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
        said = self.status()
        if said.get("phase") != "ended":
            note = (f"the mirror to wandb did not end well (see {self.path.with_suffix('.log')}); nothing is lost: "
                    "`saescale sync` sends what is missing.")
            return {"where": "off", "done": 0, "total": 0, **said, "failures": 1, "notes": [*said.get("notes", ()), note]}
        return said


@contextmanager
def following(store: Store, asked: Asked | None, notes: list[str], longest_s: Callable[[], float] = lambda: math.inf,
              ) -> Iterator[None]:
    """Mirror while the block trains; what there is to say of it is appended to `notes`. With None nothing is mirrored.

    A mirror that cannot even start is a note: training goes on without it. `longest_s()`: how long its end may be waited for.
    """
    follower = None
    try:
        follower = Follower(store, asked) if asked is not None else None
    except OSError as e:
        notes.append(f"tracking is off: the mirror to wandb could not start ({e.strerror}).")
    try:
        yield
    finally:
        if follower is not None:
            notes.extend(said_of(follower, follower.finish(longest_s=longest_s())))


def said_of(follower: Follower, status: dict[str, Any]) -> list[str]:
    if not status["done"]:
        return list(status["notes"])
    at = f"offline in {follower.folder / 'wandb'}" if status["where"] == "offline" else f"at {status['where']}"
    return [*status["notes"], f"{status['done']} of {status['total']} runs are whole in wandb, {at}."]
