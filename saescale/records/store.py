"""The store: every path of `runs/`, and the only way anything is written there (aside, fsync, rename)."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Damaged(ValueError):
    """A file of the store that cannot be read as what it should be."""


def write_bytes(path: Path, data: bytes) -> None:
    """Atomic, as write_whole."""
    write_whole(path, lambda aside: aside.write_bytes(data))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Atomic: `write` makes a file aside in the same folder, then fsync and rename. A crash leaves the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")  # not mkstemp, whose files only the owner may read
    try:
        write(aside)
        with aside.open("rb+") as f:
            os.fsync(f.fileno())
        os.replace(aside, path)
    except BaseException as e:
        aside.unlink(missing_ok=True)
        if isinstance(e, OSError) and e.filename is None:  # a full disk does not say of which file
            e.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value, or None when the file is absent. Raises Damaged when it is there and cannot be read."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as e:
        raise Damaged(f"{path} is damaged ({e}): it is not whole JSON. Move it away and run the command again.") from e


def trouble_of_weights(path: Path) -> str | None:
    """None for a whole safetensors file, else what is wrong with it, in words: its header, read alone, says how long it is."""
    if not path.is_file():
        return "it is missing"
    size = path.stat().st_size
    try:
        with path.open("rb") as f:
            begin = 8 + int.from_bytes(f.read(8), "little")
            header = json.loads(f.read(begin - 8)) if begin <= size else None
        whole = begin + max((t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"), default=0)
    except (ValueError, TypeError, AttributeError, LookupError):
        return "it has no header of a safetensors file"
    return None if size == whole else f"it has {size:,} bytes, and {whole:,} by its header"


def append_line(path: Path, value: Any) -> None:
    """One JSON line, flushed, so that a killed process keeps what it logged. Goes on after a torn line on a line of its own."""
    line = json.dumps(value, allow_nan=False) + "\n"
    with path.open("a+b") as f:
        if f.tell():
            f.seek(-1, os.SEEK_END)
            line = line if f.read(1) == b"\n" else "\n" + line
        f.write(line.encode())


def read_lines(path: Path) -> list[Any]:
    """The whole lines of a JSON-lines file; a torn line, which a kill or a full disk leaves, is dropped."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().split("\n")[:-1]:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


@dataclass(frozen=True)
class Store:
    root: Path

    def sweep_dir(self, sweep: str) -> Path:
        return self.root / sweep

    def known_runs(self) -> set[str]:
        """The runs that have a directory, by one listing."""
        try:
            return set(os.listdir(self.root / "by-id"))
        except FileNotFoundError:
            return set()

    def run_dir(self, run_id: str) -> Path:
        return self.root / "by-id" / run_id

    def trunk_dir(self, trunk_id: str) -> Path:
        return self.root / "trunks" / trunk_id

    def job_dir(self, job_id: str) -> Path:
        return self.root / "jobs" / job_id

    def activations_dir(self, key: str) -> Path:
        return self.root / "activations" / key

    def corpus_dir(self, key: str) -> Path:
        return self.root / "corpora" / key

    def require_writable(self) -> None:
        """Refuse before any work when the root cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as e:
            raise ValueError(f"the store {self.root} cannot be written ({e.strerror}). "
                             "Give a folder you may write to with --store.") from e
