"""From documents to rows of token ids in their fixed order, part by part, so that a long reading goes on where it was killed.

Rows are what the language model reads: documents cut into windows of n_ctx (`cut`), or joined into one stream of tokens that is
cut (`pack_*`). Both are opened by BOS where that is wanted and the model has one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saescale.activations.corpora import Source
from saescale.activations.text import Document, is_held_out
from saescale.records.store import Damaged, read_json, write_json, write_whole

SPLITS = ("train", "held_out")
ORDER_SEED = 20_240_521  # fixed: which sequences share a forward batch is part of the corpus, not of a run
CHUNK_CHARACTERS = 4_000_000  # encoded at once
PART_TOKENS = 8_000_000  # kept on disk at once by a corpus that is read once
BLOCK_ROWS = 65_536  # put into their order at once
SEPARATORS = {"pack_eos": "eos", "pack_bos": "bos", "pack_bare": None}
PACKINGS = ("cut", *SEPARATORS)


class Rows(NamedTuple):
    """int32: ids [row, n_ctx] padded at the end, tokens before the padding [row], document of the first token [row]."""

    ids: np.ndarray
    lengths: np.ndarray
    documents: np.ndarray


@dataclass
class Cutter:
    """Makes the rows of one split. `carry`: what a packed stream has left over; `owner`: the document it begins in."""

    n_ctx: int
    bos: int | None
    packing: str
    separator: int | None
    carry: list[int] = field(default_factory=list)
    owner: int = 0

    @property
    def head(self) -> list[int]:
        return [] if self.bos is None else [self.bos]

    @property
    def width(self) -> int:
        return self.n_ctx - len(self.head)

    def rows(self, pieces: Iterable[tuple[int, list[int]]]) -> Rows:
        """The rows of (document, token ids) pieces."""
        made = self._cut(pieces) if self.packing == "cut" else self._packed(pieces)
        made = [(doc, ids) for doc, ids in made if len(ids) >= 2]
        ids = np.full((len(made), self.n_ctx), self.bos or 0, dtype=np.int32)
        for row, (_, tokens) in enumerate(made):
            ids[row, : len(tokens)] = tokens
        return Rows(ids, np.array([len(tokens) for _, tokens in made], dtype=np.int32),
                    np.array([doc for doc, _ in made], dtype=np.int32))

    def _cut(self, pieces: Iterable[tuple[int, list[int]]]) -> list[tuple[int, list[int]]]:
        return [(doc, self.head + ids[i:i + self.width]) for doc, ids in pieces for i in range(0, len(ids), self.width)]

    def _packed(self, pieces: Iterable[tuple[int, list[int]]]) -> list[tuple[int, list[int]]]:
        made, separator = [], [] if self.separator is None else [self.separator]
        for doc, ids in pieces:
            if not ids:
                continue
            if not self.carry:
                self.owner = doc
            self.carry += [*ids, *separator]
            whole = len(self.carry) // self.width * self.width
            for i in range(0, whole, self.width):
                made.append((self.owner, self.head + self.carry[i:i + self.width]))
                self.owner = doc
            self.carry = self.carry[whole:]
        return made


def encoder(tokenizer_file: Path) -> Any:
    """Document texts -> lists of token ids, without special tokens put around them."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    except Exception as e:  # the library raises nothing narrower
        raise ValueError(f"{tokenizer_file} is no tokenizer ({e}). Save the model's there with "
                         "AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER).") from e
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]


def chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents in handfuls of some CHUNK_CHARACTERS."""
    held, size = [], 0
    for document in documents:
        held.append(document)
        size += len(document.text) if document.ids is None else len(document.ids)
        if size >= CHUNK_CHARACTERS:
            yield held
            held, size = [], 0
    if held:
        yield held


class Tokeniser:
    """Feeds documents, in order, to one Cutter per split. Its state says where it stands."""

    def __init__(self, encode: Any, held_out_fraction: float, cutters: Mapping[str, Cutter]) -> None:
        self.encode, self.fraction, self.cutters = encode, held_out_fraction, cutters
        self.n_documents = 0
        self.split_documents = dict.fromkeys(SPLITS, 0)

    def rows(self, documents: list[Document]) -> dict[str, Rows]:
        texts = [d.text for d in documents if d.ids is None]
        encoded = iter(self.encode(texts) if texts else [])
        pieces: dict[str, list] = {split: [] for split in SPLITS}
        for i, d in enumerate(documents, self.n_documents):
            split = "held_out" if is_held_out(d.key, self.fraction) else "train"
            pieces[split].append((i, next(encoded) if d.ids is None else list(d.ids)))
            self.split_documents[split] += 1
        self.n_documents += len(documents)
        return {split: self.cutters[split].rows(pieces[split]) for split in SPLITS}

    def state(self) -> dict[str, Any]:
        return {"n_documents": self.n_documents, "split_documents": dict(self.split_documents),
                "carry": {s: [c.carry, c.owner] for s, c in self.cutters.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.n_documents, self.split_documents = state["n_documents"], dict(state["split_documents"])
        for split, (carry, owner) in state["carry"].items():
            self.cutters[split].carry, self.cutters[split].owner = list(carry), owner


class Parts:
    """Rows made so far, on disk: <folder>/<n>-<split>-<array>.npy and <n>.json, which is written last and says where to go on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last: dict[str, Any] | None = None
        self.kept: dict[str, list[Rows]] = {split: [] for split in SPLITS}
        self.n = 0
        while self._is_whole(self.n):
            self.last = read_json(folder / f"{self.n}.json")
            self._open(self.n)
            self.n += 1

    def _is_whole(self, n: int) -> bool:
        try:
            said = read_json(self.folder / f"{n}.json")
            return said is not None and all((self.folder / f).stat().st_size == size for f, size in said["bytes"].items())
        except (Damaged, FileNotFoundError):
            return False

    def _open(self, n: int) -> None:
        for split in SPLITS:
            paths = (self.folder / f"{n}-{split}-{part}.npy" for part in Rows._fields)
            self.kept[split].append(Rows(*(np.load(path, mmap_mode="r") for path in paths)))

    def add(self, rows: Mapping[str, list[Rows]], state: dict[str, Any]) -> None:
        sizes = {}
        for split in SPLITS:
            for part, array in joined(rows[split])._asdict().items():
                path = self.folder / f"{self.n}-{split}-{part}.npy"
                write_whole(path, lambda aside, array=array: save_array(aside, array))
                sizes[path.name] = path.stat().st_size
        write_json(self.folder / f"{self.n}.json", {**state, "bytes": sizes})
        self._open(self.n)
        self.n += 1

    def clear(self) -> None:
        import shutil

        shutil.rmtree(self.folder, ignore_errors=True)


def read_through(source: Source, tokeniser: Tokeniser, parts: Parts | None, max_train_tokens: int | None,
                 progress: Callable[[float, float, str], None]) -> dict[str, list[Rows]]:
    """The rows of every split. A corpus read in its own order stops where `max_train_tokens` activations of the training split
    are reached; with `parts` it goes on behind the last whole part on disk."""
    rows: dict[str, list[Rows]] = {split: [] for split in SPLITS} if parts is None else parts.kept
    state = parts.last if parts else None
    if state is not None:
        tokeniser.restore(state)
    reader = source.reader(state and state["reader"])
    enough = max_train_tokens if source.in_order else None
    held: dict[str, list[Rows]] = {split: [] for split in SPLITS}
    done, of_part = n_activations(rows["train"]), 0
    for handful in chunks(reader) if enough is None or done < enough else ():
        for split, made in tokeniser.rows(handful).items():
            (rows if parts is None else held)[split].append(made)
            of_part += n_activations([made])
            done += n_activations([made]) if split == "train" else 0
        total = float(enough or 1.0)
        progress(min(done, total) if enough else reader.fraction(), total, f"{done / 1e6:.2f}M tokens")
        is_end = enough is not None and done >= enough
        if parts is not None and (is_end or of_part >= PART_TOKENS):
            parts.add(held, {**tokeniser.state(), "reader": reader.state()})
            held, of_part = {split: [] for split in SPLITS}, 0
        if is_end:
            break
    if parts is not None and any(held.values()):
        parts.add(held, {**tokeniser.state(), "reader": reader.state()})
    return rows


def joined(rows: list[Rows]) -> Rows:
    return Rows(*(np.concatenate(arrays) for arrays in zip(*rows, strict=True)))


def save_array(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as f:
        np.save(f, array, allow_pickle=False)


def n_activations(rows: Iterable[Rows]) -> int:
    return sum(int((r.lengths.astype(np.int64) - 1).sum()) for r in rows)


def order(lengths: np.ndarray, max_tokens: int | None, batch_sequences: int) -> np.ndarray:
    """The rows in one fixed shuffled order, down to whole forward batches, and to `max_tokens` activations where given."""
    shuffled = np.random.Generator(np.random.PCG64(ORDER_SEED)).permutation(len(lengths))
    if max_tokens is not None:
        tokens = np.cumsum(lengths[shuffled].astype(np.int64) - 1)
        shuffled = shuffled[: int(np.searchsorted(tokens, max_tokens, side="right"))]
    return shuffled[: len(shuffled) // batch_sequences * batch_sequences]


def gather(parts: list[Rows], chosen: np.ndarray, name: str) -> Iterator[np.ndarray]:
    """The chosen rows of one array, in blocks, from wherever they lie."""
    starts = np.cumsum([0, *(len(p.lengths) for p in parts)])
    arrays = [getattr(p, name) for p in parts]
    for begin in range(0, len(chosen), BLOCK_ROWS):
        wanted = chosen[begin:begin + BLOCK_ROWS]
        owners = np.searchsorted(starts, wanted, side="right") - 1
        block = np.empty((len(wanted), *arrays[0].shape[1:]), dtype=np.int32)
        for owner in np.unique(owners):
            mine = owners == owner
            block[mine] = arrays[owner][wanted[mine] - starts[owner]]
        yield block


def write_array(path: Path, parts: list[Rows], chosen: np.ndarray, name: str) -> dict[str, Any]:
    """Write one array of a split in its order; returns what meta.json says of the file: its length and SHA-256."""
    shape = (len(chosen), *getattr(parts[0], name).shape[1:])
    h = hashlib.sha256()

    def write(aside: Path) -> None:
        with aside.open("wb") as f:
            np.lib.format.write_array_header_1_0(f, {"descr": "<i4", "fortran_order": False, "shape": shape})
            for block in gather(parts, chosen, name):
                f.write(block.data)
        with aside.open("rb") as f:
            while data := f.read(1 << 24):
                h.update(data)

    write_whole(path, write)
    return {"bytes": path.stat().st_size, "sha256": h.hexdigest()}
