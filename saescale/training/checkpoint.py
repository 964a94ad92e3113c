"""Checkpoints of a trunk and its live branches: safetensors and JSON, written aside, checksummed, the last two kept.

trunks/<trunk_id>/checkpoints/step-<s>.safetensors holds tensors named <member>/<tensor>; member `trunk` or a run_id.
The .json beside it, written after it, says step, members and SHA-256. `end-<s>` is the trunk's end: it is never deleted,
so that a larger budget added later continues it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from saescale.records.store import Damaged, read_json, write_json, write_whole
from saescale.sae.ranks import ALONE, Ranks
from saescale.sae.shards import Part
from saescale.training.parts import save_parts

TRUNK = "trunk"
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """By member. `steps`: where it stands; `states`: its tensors, or to be written by several ranks, this one's parts of them;
    `seconds`: spent training it so far. `kernels` and kind of `device`: of all."""

    step: int
    steps: Mapping[str, int]
    states: Mapping[str, Mapping[str, Tensor | Part]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    kernels: str = "cpu"
    device: str = "cpu"


def write(folder: Path, trunk_id: str, checkpoint: Checkpoint, is_end: bool, ranks: Ranks = ALONE) -> None:
    """By all ranks that train the trunk, each its part: the file is the same however many they are."""
    name = f"{'end' if is_end else 'step'}-{checkpoint.step:010d}"
    tensors = {f"{member}/{k}": t for member, state in checkpoint.states.items() for k, t in state.items()}
    data = folder / f"{name}.safetensors"
    if ranks.size > 1 or checkpoint.device != "cpu":
        save_parts({name: t if isinstance(t, Part) else Part.whole(t) for name, t in tensors.items()}, data, ranks)
    else:
        write_whole(data, lambda aside: _save(tensors, aside))
    if not ranks.first:
        return
    write_json(folder / f"{name}.json", {"trunk_id": trunk_id, "step": checkpoint.step, "members": dict(checkpoint.steps),
                                         "seconds": dict(checkpoint.seconds), "kernels": checkpoint.kernels,
                                         "device": checkpoint.device,
                                         "sha256": _sha256(data)})
    if not is_end:
        _drop_older(folder)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """From where the tensors lie to the file, without a copy of them in memory. Raises OSError for a full disk."""
    try:
        save_file(dict(tensors), path)
    except SafetensorError as e:  # it hides the system's error in its words
        found = re.search(r"os error (\d+)", str(e))
        if found is None:
            raise
        raise OSError(int(found.group(1)), os.strerror(int(found.group(1)))) from e


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _drop_older(folder: Path) -> None:
    newest_first = sorted(folder.glob("step-*.json"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
    for old in newest_first[KEPT:]:
        old.with_suffix(".safetensors").unlink(missing_ok=True)
        old.unlink(missing_ok=True)


def clear_rolling(folder: Path) -> None:
    """Once every branch is recorded only the trunk's end is worth its disk."""
    for said in folder.glob("step-*.json"):
        said.with_suffix(".safetensors").unlink(missing_ok=True)
        said.unlink(missing_ok=True)


def restore(folder: Path, trunk_id: str, forks: Mapping[str, int]) -> tuple[Checkpoint | None, list[str]]:
    """The latest whole checkpoint from which every run of `forks` (run_id -> fork step) can still be reached.

    Returns it (None: start from the beginning) and a sentence for every damaged one passed over. Raises ValueError for a
    checkpoint of another trunk.
    """
    notes: list[str] = []
    for aside in folder.glob(".*"):  # written aside by a killed process; the trunk is locked, so nobody is writing
        aside.unlink(missing_ok=True)
    for said in sorted(folder.glob("*.json"), key=lambda p: p.stem.split("-")[1], reverse=True):
        try:
            meta = read_json(said)
            if meta["trunk_id"] != trunk_id:
                raise ValueError(f"{said} is a checkpoint of {meta['trunk_id']}, not of {trunk_id}. Move it away.")
            if not _reaches(meta, forks):
                continue
            return _load(said.with_suffix(".safetensors"), meta), notes
        except (Damaged, OSError, KeyError, TypeError) as e:
            notes.append(f"checkpoint {said.stem} of {trunk_id} is damaged and was passed over ({e})")
    return None, notes


def _reaches(meta: Mapping[str, Any], forks: Mapping[str, int]) -> bool:
    trunk_step = meta["members"].get(TRUNK)
    return all(run in meta["members"] or (trunk_step is not None and fork >= trunk_step) for run, fork in forks.items())


def _load(path: Path, meta: Mapping[str, Any]) -> Checkpoint:
    if _sha256(path) != meta["sha256"]:
        raise Damaged(f"{path.name} does not match its checksum")
    states: dict[str, dict[str, Tensor]] = {member: {} for member in meta["members"]}
    for name, tensor in load_file(path).items():
        member, _, key = name.partition("/")
        states[member][key] = tensor
    return Checkpoint(meta["step"], meta["members"], states, meta.get("seconds", {}), meta.get("kernels", "cpu"),
                      meta.get("device", "cpu"))
