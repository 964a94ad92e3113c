"""A job is a directory: everything its worker needs is in it or beside it in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saescale.identity import digest
from saescale.records.store import Store, write_json


def make_job(store: Store, content: dict[str, Any], **aside: Any) -> Path:
    """`aside` goes into job.json and does not name the job."""
    folder = store.job_dir(f"{content['stage']}-{digest(content)[:10]}")
    write_json(folder / "job.json", content | aside)
    return folder
