"""Documents in local files: plain text, JSON lines and Parquet, compressed or not, by file, folder or glob."""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from saescale.activations.corpora import LARGE_BYTES
from saescale.activations.text import Document
from saescale.identity import digest

KINDS = (".txt", ".py", ".md", ".jsonl", ".parquet")
COMPRESSED = (".gz", ".zst")
PARQUET_ROWS = 1024
ZSTD_BYTES = 65_536  # decompressed at once


def ending(path: Path) -> str:
    """`.jsonl` of a.jsonl, a.jsonl.gz and a.jsonl.zst; empty where it is none of KINDS."""
    suffixes = [s for s in path.suffixes if s not in COMPRESSED]
    is_read = path.suffix not in COMPRESSED or suffixes != [".parquet"]
    return suffixes[-1] if suffixes and suffixes[-1] in KINDS and is_read else ""


class Files:
    """The files of `path` (a file, a folder with all below it, or a glob), sorted by name.

    A text file is one document, or, with `separator`, one between any two lines that are the separator. A line of .jsonl and a
    row of .parquet are one each, their text in `text_field`. The split follows the document's text, so that copies never fall on
    both sides; its identity is that of the files' bytes and names.
    """

    in_order = False

    def __init__(self, path: str | None, text_field: str = "text", separator: str | None = None) -> None:
        if path is None or path == "???":
            raise ValueError("data.path is missing: give a file, a folder or a glob such as 'data.path=/texts/*.jsonl.zst'.")
        self.text_field, self.separator = text_field, separator
        self.root, self.files = found(path)

    @property
    def large(self) -> bool:
        return sum(self.sizes) > LARGE_BYTES

    @cached_property
    def sizes(self) -> list[int]:
        return [f.stat().st_size for f in self.files]

    def sha256(self) -> str:
        parts = [[str(f.relative_to(self.root)), file_sha256(f)] for f in self.files]
        return digest({"files": parts, "text_field": self.text_field, "separator": self.separator})

    def reader(self, state: Any = None) -> FilesReader:
        return FilesReader(self, *(state or (0, 0)))


class FilesReader:
    """Goes on at document `skip` of file `at`."""

    def __init__(self, corpus: Files, at: int, skip: int) -> None:
        self.corpus, self.at, self.skip = corpus, at, skip
        self.n_characters, self.is_resumed = 0, (at, skip) != (0, 0)

    def __iter__(self) -> Iterator[Document]:
        corpus = self.corpus
        while self.at < len(corpus.files):
            path = corpus.files[self.at]
            name = str(path.relative_to(corpus.root))
            begun = self.skip
            for i, text in enumerate(texts(path, corpus.text_field, corpus.separator)):
                if i < begun:
                    continue
                self.skip = i + 1
                if text.strip():
                    self.n_characters += len(text)
                    yield Document(f"{name}#{i}", text, hashlib.sha256(text.encode()).hexdigest())
            self.at, self.skip = self.at + 1, 0
        if not self.n_characters and not self.is_resumed:
            raise ValueError(f"{corpus.root} holds no text: its {len(corpus.files)} files are empty. Give others with data.path.")

    def state(self) -> list[int]:
        return [self.at, self.skip]

    def fraction(self) -> float:
        return sum(self.corpus.sizes[:self.at]) / max(sum(self.corpus.sizes), 1)


def found(path: str) -> tuple[Path, list[Path]]:
    """(the folder their names count from, the files): sorted; raises ValueError where there are none."""
    here = Path(path).expanduser()
    if here.is_file():
        root, files = here.parent, [here]
        if not ending(here):
            raise ValueError(f"data.path={path!r} is of no known kind. Give {', '.join(KINDS)}, also with .gz or .zst.")
    elif here.is_dir():
        root, files = here, [f for f in here.rglob("*") if f.is_file() and ending(f)]
    else:
        files = [f for p in glob.glob(str(here), recursive=True) if (f := Path(p)).is_file() and ending(f)]
        fixed = str(here).split("*")[0].split("?")[0].split("[")[0]
        root = Path(fixed) if fixed.endswith("/") else Path(fixed).parent
    if not files:
        raise ValueError(f"data.path={path!r} names no file that can be read. Give a file, a folder or a glob of "
                         f"{', '.join(KINDS)}, also with .gz or .zst.")
    return root, sorted(files)


def file_sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def opened(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".zst":
        return io.BufferedReader(ZstdFile(path))
    return path.open("rb")


class ZstdFile(io.RawIOBase):
    """The bytes of a .zst file. Raises EOFError where it is damaged or ends within a frame: to zstandard's own reader that is an
    end like any."""

    def __init__(self, path: Path) -> None:
        if find_spec("zstandard") is None:
            raise ValueError(f"{path} needs the zstandard package: pip install 'saescale[data]'.")
        self.file, self.rest = path.open("rb"), memoryview(b"")
        self.blocks = self._blocks()

    def _blocks(self) -> Iterator[bytes]:
        import zstandard

        frame = None
        while data := self.file.read(ZSTD_BYTES):
            while data:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                try:
                    yield frame.decompress(data)
                except zstandard.ZstdError as e:
                    raise EOFError(e) from e
                data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
        if frame is not None:
            raise EOFError("it ends within a frame")

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        while not self.rest and (block := next(self.blocks, None)) is not None:
            self.rest = memoryview(block)
        n = min(len(into), len(self.rest))
        into[:n], self.rest = self.rest[:n], self.rest[n:]
        return n

    def close(self) -> None:
        self.file.close()
        super().close()


def texts(path: Path, text_field: str, separator: str | None) -> Iterator[str]:
    """The documents of one file, in order. Raises ValueError naming file and place where it is not what it should be."""
    kind = ending(path)
    try:
        if kind == ".parquet":
            yield from parquet_texts(path, text_field)
        elif kind == ".jsonl":
            for number, line in lines(path):
                if line.strip():
                    yield json_text(line, text_field, f"{path}, line {number}")
        elif separator is None:
            yield "".join(line for _, line in lines(path))
        else:
            yield from between_separators(path, separator)
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise ValueError(f"{path} is cut off or damaged ({e}). Fetch it again, or leave it out of data.path.") from e


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line with its end)."""
    with opened(path) as f:
        for number, raw in enumerate(f, 1):
            try:
                yield number, raw.decode()
            except UnicodeDecodeError as e:
                raise ValueError(f"{path}, line {number}: byte 0x{raw[e.start]:02x} is not UTF-8. Convert the file, e.g. "
                                 "`iconv -f latin1 -t utf-8`, or leave it out of data.path.") from e


def between_separators(path: Path, separator: str) -> Iterator[str]:
    held: list[str] = []
    for _, line in lines(path):
        if line.strip() == separator:
            yield "".join(held)
            held = []
        else:
            held.append(line)
    yield "".join(held)


def json_text(line: str, text_field: str, where: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as e:
        raise ValueError(f"{where} is not JSON ({e}). Give one JSON object per line.") from e
    return text_of(row, text_field, where)


def text_of(row: Any, text_field: str, where: str) -> str:
    """The text of one row. Raises ValueError listing the fields there are, and for text that no file of UTF-8 could hold."""
    if not isinstance(row, dict) or not isinstance(row.get(text_field), str):
        fields = sorted(k for k, v in row.items() if isinstance(v, str)) if isinstance(row, dict) else []
        raise ValueError(f"{where} has no text in the field {text_field!r}. Set data.text_field to one of its fields of text: "
                         f"{', '.join(fields) or 'it has none'}.")
    text = row[text_field]
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise ValueError(f"{where} has half a character in the field {text_field!r}: \\u{ord(text[e.start]):04x}, a surrogate "
                         "without its pair. Mend or leave out that row.") from e
    return text


def parquet_texts(path: Path, text_field: str) -> Iterator[str]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as e:
        raise ValueError(f"{path} needs the pyarrow package: pip install 'saescale[data]'.") from e
    try:
        file = parquet.ParquetFile(path)
        names = [field.name for field in file.schema_arrow if pyarrow.types.is_string(field.type)
                 or pyarrow.types.is_large_string(field.type)]
        if text_field not in names:
            text_of(dict.fromkeys(names, ""), text_field, str(path))
        for batch in file.iter_batches(PARQUET_ROWS, columns=[text_field]):
            yield from (text or "" for text in batch.column(0).to_pylist())
    except pyarrow.ArrowInvalid as e:
        raise ValueError(f"{path} is not a whole Parquet file ({e}). Fetch it again, or leave it out of data.path.") from e
