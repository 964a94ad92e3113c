"""Reading JSON and writing files so that a reader never sees half of one."""

import json
import os
import tempfile
from pathlib import Path


def read_json(path: Path) -> dict:
    """The JSON object in `path`.

    Errors: `ValueError` when the bytes are not one JSON object; `OSError` when the file cannot be read.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is not valid JSON (truncated?): {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds a {type(value).__name__}, not a JSON object")
    return value


def write_aside(path: Path, content: str | bytes) -> Path:
    """Write beside `path`, flush to disk, rename over it; gives `path`. The folder is made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    return path
