"""From documents to fixed arrays of token sequences, once per (corpus, tokenizer, n_ctx), without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saescale.activations import overlap, tokenise
from saescale.activations.corpora import Listed, Source
from saescale.activations.folder import LMFolder
from saescale.activations.text import Document, corpus_hash, load_documents
from saescale.activations.tokenise import SPLITS, Cutter, Parts, Rows, Tokeniser
from saescale.identity import digest, without_neutral
from saescale.records.lock import Lock
from saescale.records.store import Damaged, Store, read_json, write_json

Progress = Callable[[float, float, str], None]
WAIT_S = 600.0  # for another process that tokenises the same corpus


class FlatTokens(NamedTuple):
    """int32 [token] each: the token, its document, its sequence (the window the language model read it in)."""

    ids: np.ndarray
    documents: np.ndarray
    sequences: np.ndarray


@dataclass(frozen=True)
class TokenSplit:
    """One split of a corpus.

    sequences: int32 [n_sequences, n_ctx], BOS first where the model has one, padded at the end;
    lengths: int32 [n_sequences], tokens before the padding; documents: int32 [n_sequences], document of each sequence.
    The number of sequences is a multiple of batch_sequences: every forward batch has one shape. `excluded`: token ids that give
    no activation, and then `row_counts`, int32 [n_sequences], how many each sequence gives.
    """

    sequences: np.ndarray
    lengths: np.ndarray
    documents: np.ndarray
    batch_sequences: int
    excluded: tuple[int, ...] = ()
    row_counts: np.ndarray | None = None

    @property
    def n_batches(self) -> int:
        return len(self.sequences) // self.batch_sequences

    @property
    def batch_token_counts(self) -> np.ndarray:
        """int64 [n_batches]: activations each forward batch gives (position 0, padding and excluded tokens dropped)."""
        counts = self.lengths.astype(np.int64) - 1 if self.row_counts is None else self.row_counts.astype(np.int64)
        return counts.reshape(self.n_batches, -1).sum(1)

    @property
    def n_tokens(self) -> int:
        return int(self.batch_token_counts.sum())

    def batches_for(self, n_tokens: int) -> int:
        """Forward batches, from the first, that give at least `n_tokens` activations (all of them where there are fewer)."""
        return min(int(np.searchsorted(np.cumsum(self.batch_token_counts), n_tokens)) + 1, self.n_batches)

    def kept(self, batch: int) -> np.ndarray:
        """bool [batch_sequences, n_ctx]: the positions of a forward batch that give an activation."""
        return self._kept(slice(batch * self.batch_sequences, (batch + 1) * self.batch_sequences))

    def _kept(self, rows: slice) -> np.ndarray:
        return kept_positions(self.sequences[rows], self.lengths[rows], self.excluded)

    def batch(self, batch: int) -> np.ndarray:
        return self.sequences[batch * self.batch_sequences:(batch + 1) * self.batch_sequences]

    def flat(self, n_batches: int | None = None) -> FlatTokens:
        """Every activation of the first `n_batches` forward batches, in the order they are harvested."""
        n = (self.n_batches if n_batches is None else n_batches) * self.batch_sequences
        kept = self._kept(slice(0, n))
        rows = np.nonzero(kept)[0].astype(np.int32)
        return FlatTokens(self.sequences[:n][kept], self.documents[rows], rows)


def kept_positions(sequences: np.ndarray, lengths: np.ndarray, excluded: Sequence[int]) -> np.ndarray:
    """bool [row, n_ctx]: after the first position, before the padding, no excluded token."""
    positions = np.arange(sequences.shape[1])
    kept = (positions > 0) & (positions < lengths[:, None])
    return kept & ~np.isin(sequences, excluded) if excluded else kept


@dataclass(frozen=True)
class Corpus:
    meta: dict[str, Any]
    train: TokenSplit
    held_out: TokenSplit


def corpus_facts(corpus: str, path: str | None, lm: LMFolder, n_ctx: int) -> tuple[list[Document], dict[str, Any]]:
    check_context(lm, n_ctx)
    documents = load_documents(corpus, path)
    return documents, {"corpus_sha256": corpus_hash(documents), "tokenizer_sha256": lm.tokenizer_sha256}


def check_context(lm: LMFolder, n_ctx: int) -> None:
    if n_ctx > lm.n_ctx:
        raise ValueError(f"data.n_ctx={n_ctx} exceeds the {lm.n_ctx} positions of {lm.label}. Choose n_ctx <= {lm.n_ctx}.")


def corpus_key(data: Mapping[str, Any]) -> str:
    """Folder name of the tokenised corpus, from the `data` part of a science block."""
    parts = ("corpus_sha256", "tokenizer_sha256", "held_out_fraction", "n_ctx", "batch_sequences", "max_train_tokens")
    later = without_neutral("data", {k: data[k] for k in ("packing", "prepend_bos", "exclude_special_tokens") if k in data})
    return digest({k: data[k] for k in parts} | later)[:16]


def promised(data: Mapping[str, Any]) -> int:
    """Activations that a corpus not tokenised yet will give at least, if its text lasts for max_train_tokens: less one forward
    batch and one sequence, which may not fit."""
    return max(data["max_train_tokens"] - (data["batch_sequences"] + 1) * data["n_ctx"], 0)


def is_prepared(store: Store, data: Mapping[str, Any]) -> bool:
    return (store.corpus_dir(corpus_key(data)) / "meta.json").exists()


def prepare(store: Store, documents: Sequence[Document] | Source, lm: LMFolder, data: Mapping[str, Any],
            progress: Progress = lambda *_: None) -> Corpus:
    """Tokenise into the store, or read what is there. `data` is that part of a science block."""
    folder = store.corpus_dir(corpus_key(data))
    if not is_prepared(store, data):
        source = documents if isinstance(documents, Source) else Listed(documents)
        lock = Lock(folder / "lock")
        holder = lock.acquire(WAIT_S)
        if holder is not None:
            raise ValueError(f"this corpus is being tokenised by {holder}: run the command again when it is done.")
        try:
            if not is_prepared(store, data):  # it may have been finished while this process waited
                with lock.kept():  # putting billions of tokens into their order takes minutes
                    _tokenise(folder, source, lm, data, lambda *said: (lock.beat(), progress(*said)))
        finally:
            lock.release()
    return read(folder)


def read(folder: Path, verify: bool = True) -> Corpus:
    """The tokenised corpus. Raises Damaged when a byte differs from what was written, and has it tokenised anew next time."""
    meta = read_json(folder / "meta.json")
    if meta is None:
        raise ValueError(f"{folder} has no tokenised corpus. Run `saescale plan` on the sweep again.")
    for name, said in meta.get("files", {}).items():
        if verify and _sha256(folder / name, _stamp(folder / name)) != said["sha256"]:
            (folder / "meta.json").unlink(missing_ok=True)
            raise Damaged(f"{folder / name} is damaged: its bytes do not match the checksum of its tokenisation. "
                          "Run the command again: the corpus is tokenised anew.")
    excluded = tuple(meta.get("excluded", ()))

    def split(name: str) -> TokenSplit:
        def array(part: str) -> np.ndarray:
            return np.load(folder / f"{name}-{part}.npy", mmap_mode="r")

        return TokenSplit(array("sequences"), array("lengths"), array("documents"), meta["batch_sequences"], excluded,
                          array("counts") if excluded else None)

    return Corpus(meta, *map(split, SPLITS))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        return path.stat().st_size, path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


@cache
def _sha256(path: Path, stamp: tuple[int, int] | None) -> str | None:
    """Of a file's bytes, read once per process while its length and date stay; None where there is none."""
    if stamp is None:
        return None
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def special_ids(lm: LMFolder, data: Mapping[str, Any]) -> tuple[int, ...]:
    """Token ids that give no activation: BOS, EOS, padding and separators, where the data say so."""
    if not data.get("exclude_special_tokens", False):
        return ()
    return tuple(sorted({i for i in (lm.bos_token_id, lm.token_id("eos"), lm.token_id("pad")) if i is not None}))


def cutters(lm: LMFolder, data: Mapping[str, Any]) -> dict[str, Cutter]:
    packing = data.get("packing", "cut")
    wanted = tokenise.SEPARATORS.get(packing)
    separator = lm.token_id(wanted) if wanted else None
    if wanted and separator is None:
        raise ValueError(f"data.packing={packing} puts the {wanted.upper()} token between documents, and {lm.label} has none. "
                         "Choose another data.packing: cut, pack_eos, pack_bos or pack_bare.")
    bos = lm.bos_token_id if data.get("prepend_bos", True) else None
    return {split: Cutter(data["n_ctx"], bos, packing, separator) for split in SPLITS}


def _tokenise(folder: Path, source: Source, lm: LMFolder, data: Mapping[str, Any], progress: Progress) -> None:
    """Read, cut, put into order, write; meta.json last."""
    tokeniser = Tokeniser(tokenise.encoder(lm.path / "tokenizer.json"), data["held_out_fraction"], cutters(lm, data))
    parts = Parts(folder / "parts") if source.large else None
    rows = tokenise.read_through(source, tokeniser, parts, data["max_train_tokens"], progress)
    meta = {"batch_sequences": data["batch_sequences"], "n_documents": tokeniser.n_documents, "n_ctx": data["n_ctx"], "files": {}}
    excluded = special_ids(lm, data)
    limits = {"train": data["max_train_tokens"], "held_out": None}
    for split in SPLITS:
        lengths = np.concatenate([r.lengths for r in rows[split]] or [np.empty(0, np.int32)])
        chosen = tokenise.order(lengths, limits[split], data["batch_sequences"])
        if len(chosen) == 0:
            raise ValueError(f"the {split} split of {data['corpus']} gives {len(lengths)} sequences of {data['n_ctx']} tokens, "
                             f"less than one forward batch of {data['batch_sequences']} sequences. Give more text, lower "
                             "data.batch_sequences or change data.held_out_fraction.")
        meta |= _write_split(folder, split, rows[split], chosen, excluded, meta["files"])
        meta[f"n_{split}_documents"] = tokeniser.split_documents[split]
    train, held_out = (np.load(folder / f"{s}-sequences.npy", mmap_mode="r") for s in SPLITS)
    meta["overlap"] = overlap.between(train, held_out, np.load(folder / "held_out-documents.npy"))
    write_json(folder / "meta.json", meta | ({"excluded": excluded} if excluded else {}))
    if parts is not None:
        parts.clear()


def _write_split(folder: Path, split: str, rows: list[Rows], chosen: np.ndarray, excluded: tuple[int, ...],
                 files: dict[str, Any]) -> dict[str, int]:
    for name, part in (("sequences", "ids"), ("lengths", "lengths"), ("documents", "documents")):
        files[f"{split}-{name}.npy"] = tokenise.write_array(folder / f"{split}-{name}.npy", rows, chosen, part)
    sequences, lengths = (np.load(folder / f"{split}-{name}.npy", mmap_mode="r") for name in ("sequences", "lengths"))
    if not excluded:
        return {f"n_{split}_tokens": int((lengths.astype(np.int64) - 1).sum())}
    counts = np.concatenate([kept_positions(sequences[i:i + 4096], lengths[i:i + 4096], excluded).sum(1, dtype=np.int32)
                             for i in range(0, len(lengths), 4096)])
    counted = [Rows(sequences[:0], counts, counts)]
    name = f"{split}-counts.npy"
    files[name] = tokenise.write_array(folder / name, counted, np.arange(len(counts)), "lengths")
    return {f"n_{split}_tokens": int(counts.sum(dtype=np.int64))}
