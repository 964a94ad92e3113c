"""Documents of a Hugging Face dataset, streamed: from the hub at one commit, or from a local folder (needs the extra `data`).

Reading goes on where it stopped (the position within shards is kept with every part of the tokenised rows), and a connection
that fails is tried again from there, ever more slowly.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from saescale.activations.files import file_sha256, text_of
from saescale.activations.text import Document
from saescale.identity import digest

TRIES = 6
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 300.0


class HubDataset:
    """`path`: a dataset of the hub (`owner/name`) or a local folder; `subset`: its configuration; `split`: of the dataset."""

    large = in_order = True

    def __init__(self, path: str | None, subset: str | None, split: str, revision: str | None, text_field: str) -> None:
        if path is None or path == "???":
            raise ValueError("data.path is missing: give a dataset of the hub, such as "
                             "data.path=Skylion007/openwebtext, or a folder.")
        self.path, self.subset, self.split, self.text_field = path, subset, split, text_field
        self.wanted = revision
        self.folder = Path(path).expanduser() if Path(path).expanduser().is_dir() else None

    @cached_property
    def revision(self) -> str:
        """The commit of a dataset of the hub, the hash of a folder's files."""
        if self.folder is not None:
            files = sorted(f for f in self.folder.rglob("*") if f.is_file())
            return digest([[str(f.relative_to(self.folder)), file_sha256(f)] for f in files])
        from saescale.activations.hub import commit_of

        return commit_of(self.path, self.wanted, "dataset")

    def sha256(self) -> str:
        where = None if self.folder is not None else self.path
        return digest({"dataset": where, "revision": self.revision, "subset": self.subset, "split": self.split,
                       "text_field": self.text_field})

    def reader(self, state: Any = None) -> DatasetReader:
        return DatasetReader(self, state)

    def open(self) -> Any:
        """The streamed dataset. Raises ValueError with what it does have."""
        try:
            import datasets
        except ModuleNotFoundError as e:
            raise ValueError("data=huggingface needs the datasets package: pip install 'saescale[data]'.") from e
        datasets.disable_progress_bars()
        named = {} if self.folder is not None else {"revision": self.revision}
        where = str(self.folder or self.path)
        try:
            opened = datasets.load_dataset(where, self.subset, split=self.split, streaming=True, **named)
        except (ValueError, FileNotFoundError) as e:
            raise ValueError(f"the dataset {where} cannot be opened with data.subset={self.subset} data.split={self.split}: "
                             f"{' '.join(str(e).split())[:300]}") from e
        except OSError as e:
            from saescale.activations.hub import explained

            raise explained(e, where, "dataset") from e
        columns = opened.column_names
        if columns is not None and self.text_field not in columns:
            text_of(dict.fromkeys(columns, ""), self.text_field, where)
        return opened


class DatasetReader:
    """`state` is the dataset's own: which shards are done and how far the current one is."""

    def __init__(self, corpus: HubDataset, state: Any) -> None:
        self.corpus = corpus
        self.n, self.inner = (0, None) if state is None else (state["n"], state["inner"])

    def __iter__(self) -> Iterator[Document]:
        tries = 0
        while True:
            try:
                dataset = self.corpus.open()
                if self.inner is not None:
                    dataset.load_state_dict(self.inner)
                else:
                    self.inner = dataset.state_dict()
                for row in self._rows(dataset):
                    text = text_of(row, self.corpus.text_field, f"{self.corpus.path}, row {self.n}")
                    self.n += 1
                    self.inner, tries = dataset.state_dict(), 0
                    if text.strip():
                        yield Document(f"row {self.n - 1}", text, hashlib.sha256(text.encode()).hexdigest())
                return
            except OSError as e:  # what connections raise, of every library below
                tries += 1
                if tries >= TRIES or not is_passing(e):
                    raise
                pause = pause_s(e, tries)
                print(f"{self.corpus.path}: {type(e).__name__} at row {self.n}; trying again in {pause:.0f} s.", file=sys.stderr)
                time.sleep(pause)

    def _rows(self, dataset: Any) -> Iterator[dict[str, Any]]:
        try:
            yield from dataset
        except OSError:
            raise
        except ValueError as e:  # of the format's reader, which names no row
            raise ValueError(f"{self.corpus.path} cannot be read from row {self.n} on: {' '.join(str(e).split())[:300]}. Mend "
                             "the dataset, or name another with data.path.") from e

    def state(self) -> dict[str, Any]:
        return {"n": self.n, "inner": self.inner}

    def fraction(self) -> float:
        return 0.0  # how long a stream is nobody says


def is_passing(e: OSError) -> bool:
    """Whether trying again may help: a connection, a time-out, too many requests, a fault of the server."""
    status = getattr(getattr(e, "response", None), "status_code", None)
    if status is not None:
        return status == 429 or status >= 500
    return isinstance(e, (ConnectionError, TimeoutError)) or "Connection" in type(e).__name__ or "Timeout" in type(e).__name__


def pause_s(e: OSError, tries: int) -> float:
    """As the server asks (Retry-After), else twice as long each time."""
    headers = getattr(getattr(e, "response", None), "headers", None) or {}
    asked = str(headers.get("Retry-After", ""))
    return min(float(asked) if asked.isdigit() else FIRST_PAUSE_S * 2 ** (tries - 1), LONGEST_PAUSE_S)
