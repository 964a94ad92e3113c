"""The record: what a finished run leaves. Training writes it last; everything after training reads only this."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saescale import identity
from saescale.records.store import Damaged, read_json, write_json

RESULT, STATUS, CONFIG, METRICS = "result.json", "status.json", "config.json", "metrics.jsonl"
FIRST_FIRED, FIRE_COUNTS = "first_fired.npy", "fire_counts.npy"
SCHEMA = 1
REQUIRED = ("schema", "run_id", "trunk_id", "fingerprint", "science", "metrics", "flops", "n_tokens")


class OtherRun(ValueError):
    """A run directory that holds another experiment than the one asked for."""


def write_result(run_dir: Path, result: Mapping[str, Any]) -> None:
    missing = [k for k in REQUIRED if k not in result]
    assert not missing, f"record without {missing}"
    write_json(run_dir / RESULT, dict(result))


def read_result(run_dir: Path, science: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of this very run, or None when there is none yet.

    Raises Damaged when the file is torn or lacks a key, OtherRun when the directory belongs to another experiment.
    """
    result = read_json(run_dir / RESULT)
    if result is None:
        return None
    missing = [k for k in REQUIRED if not isinstance(result, dict) or k not in result]
    if missing:
        raise Damaged(f"{run_dir / RESULT} is damaged: it lacks {', '.join(missing)}. Move it away and run the command again.")
    check_same_run(run_dir, science, result["science"], result["fingerprint"])
    return result


def check_same_run(run_dir: Path, science: Mapping[str, Any], found: Mapping[str, Any], found_print: str) -> None:
    if not isinstance(found, Mapping):
        raise Damaged(f"{run_dir} is damaged: what should be a science block is {found!r:.60}. Move that directory away.")
    if found == science and len(found_print) == 64 and run_dir.name.endswith(f"-{found_print[:10]}"):
        return  # the very same block under the name it hashes to; status asks this of thousands
    if identity.fingerprint(science) == found_print == identity.fingerprint(found):
        return
    keys = identity.differing_keys(science, found) or ["the recorded fingerprint does not belong to the recorded science"]
    raise OtherRun(f"{run_dir} holds another run: {'; '.join(keys)}. Nothing was overwritten. "
                   "Move that directory away or use another --store.")


def claim(run_dir: Path, science: Mapping[str, Any], execution: Mapping[str, Any]) -> None:
    """Write config.json for this run; a directory that already belongs to it learns the new execution block.

    Raises OtherRun when the directory belongs to another experiment, Damaged when its config.json is none.
    """
    found = read_json(run_dir / CONFIG)
    if found is not None:
        if not isinstance(found, dict):
            raise Damaged(f"{run_dir / CONFIG} is damaged: it is no run's configuration. Move that directory away.")
        check_same_run(run_dir, science, found.get("science"), found.get("fingerprint", ""))
    wanted = {"schema": SCHEMA, "fingerprint": identity.fingerprint(science), "science": identity.canonical(science),
              "execution": dict(execution)}
    if found != wanted:
        write_json(run_dir / CONFIG, wanted)
