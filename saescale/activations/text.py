"""Documents: where the text comes from, which documents are held out, which are left out as near-duplicates.

Knows no torch and no tokenizer, so planning and training the bundled LM read exactly the same documents.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Not code a person wrote to be read: tests, generated tables, and what the build writes about the machine.
SKIPPED_FOLDERS = frozenset({
    "test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__",
    "encodings", "pydoc_data", "lib-dynload",
})
SKIPPED_PREFIXES = ("config-", "_sysconfigdata", "_sysconfig_vars", "turtledemo")
NEAR_DUPLICATE_SHARE = 0.5


@dataclass(frozen=True)
class Document:
    """`text`, or where it was tokenised before, `ids`. `split_key`: what decides its split instead of its name."""

    name: str
    text: str
    split_key: str | None = None
    ids: Sequence[int] | None = None

    @property
    def key(self) -> str:
        return self.name if self.split_key is None else self.split_key


def is_held_out(name: str, fraction: float) -> bool:
    """Whether document `name` belongs to the held-out split.

    The split of the standard library and of text_files hashes the document's NAME, not its text: another patch level of Python
    changes a few lines of many modules, and a module the bundled LM has seen must not move into the held-out set.
    """
    digest = hashlib.sha256(f"saescale-split:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def corpus_hash(documents: Iterable[Document]) -> str:
    """SHA-256 over names and texts, in order."""
    h = hashlib.sha256()
    for d in documents:
        for part in (d.name, d.text):
            raw = part.encode()
            h.update(len(raw).to_bytes(8, "big"))
            h.update(raw)
    return h.hexdigest()


def drop_near_duplicates(documents: Iterable[Document]) -> Iterator[Document]:
    """Leave out a document when at least half of its non-trivial lines stand in one earlier document.

    `_pydecimal` against `decimal`, generated `lib2to3` grammars and the like would otherwise put held-out text
    into the training set.
    """
    owners: dict[str, list[int]] = {}
    for index, document in enumerate(documents):
        lines = {s for line in document.text.splitlines() if len(s := line.strip()) > 15}
        shared: dict[int, int] = {}
        for line in lines:
            for owner in owners.get(line, ()):
                shared[owner] = shared.get(owner, 0) + 1
        if lines and max(shared.values(), default=0) >= NEAR_DUPLICATE_SHARE * len(lines):
            continue
        for line in lines:
            owners.setdefault(line, []).append(index)
        yield document


def python_stdlib() -> list[Document]:
    """The source of the running Python's standard library, one document per module, about 11 MB.

    Sorted by name; tests, encoding tables, topic dumps, build settings, files that are not UTF-8, empty files and
    near-duplicates are left out.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in sorted(_source_files(root)):
        parts = path.relative_to(root).parts
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if len(text) >= 200:
            found.append(Document("/".join(parts), text))
    return list(drop_near_duplicates(found))


def _source_files(root: Path) -> Iterator[Path]:
    """Without a look into the folders that are left out: installed packages are often twenty times the library."""
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if f not in SKIPPED_FOLDERS and not f.startswith(SKIPPED_PREFIXES)]
        yield from (Path(folder, f) for f in files if f.endswith(".py") and not f.startswith(SKIPPED_PREFIXES))


def text_files(path: str | None) -> list[Document]:
    """Every .txt and .py file below the folder `path`, one document each, sorted by name, near-duplicates left out."""
    if path in (None, "???"):
        raise ValueError("data.path is missing: give a folder of .txt or .py files, one document each, with "
                         "data.path=/path/to/folder.")
    if not Path(path).is_dir():
        raise ValueError(f"data.path={path!r} is not a folder. Give a folder of .txt or .py files, one document each.")
    root = Path(path)
    files = sorted(f for f in root.rglob("*") if f.suffix in (".txt", ".py") and f.is_file())
    if not files:
        raise ValueError(f"data.path={path!r} holds no .txt or .py files. Give a folder with one document "
                         "per file; data=files reads .jsonl, .parquet, .gz and .zst too.")
    documents = [Document(str(f.relative_to(root)), f.read_text(encoding="utf-8", errors="replace")) for f in files]
    return list(drop_near_duplicates(documents))


CORPORA = ("python_stdlib", "text_files")


def load_documents(corpus: str, path: str | None = None) -> list[Document]:
    if corpus == "python_stdlib":
        return python_stdlib()
    if corpus == "text_files":
        return text_files(path)
    raise ValueError(f"data.corpus={corpus!r} is not known. Choose one of: {', '.join(CORPORA)}.")
