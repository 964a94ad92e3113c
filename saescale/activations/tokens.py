"""From documents to fixed arrays of token sequences, once per (corpus, tokenizer, n_ctx), without torch."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saescale.activations.folder import LMFolder
from saescale.activations.text import Document, corpus_hash, is_held_out, load_documents
from saescale.identity import digest
from saescale.records.store import Store, read_json, write_bytes, write_json

SPLITS = ("train", "held_out")
ORDER_SEED = 20_240_521  # fixed: which sequences share a forward batch is part of the corpus, not of a run


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
    The number of sequences is a multiple of batch_sequences: every forward batch has one shape.
    """

    sequences: np.ndarray
    lengths: np.ndarray
    documents: np.ndarray
    batch_sequences: int

    @property
    def n_batches(self) -> int:
        return len(self.sequences) // self.batch_sequences

    @property
    def batch_token_counts(self) -> np.ndarray:
        """int64 [n_batches]: activations each forward batch gives (position 0 and padding dropped)."""
        return (self.lengths.astype(np.int64) - 1).reshape(self.n_batches, -1).sum(1)

    @property
    def n_tokens(self) -> int:
        return int(self.batch_token_counts.sum())

    def batches_for(self, n_tokens: int) -> int:
        """Forward batches, from the first, that give at least `n_tokens` activations (all of them where there are fewer)."""
        return min(int(np.searchsorted(np.cumsum(self.batch_token_counts), n_tokens)) + 1, self.n_batches)

    def kept(self, batch: int) -> np.ndarray:
        """bool [batch_sequences, n_ctx]: the positions of a forward batch that give an activation."""
        rows = slice(batch * self.batch_sequences, (batch + 1) * self.batch_sequences)
        positions = np.arange(self.sequences.shape[1])
        return (positions > 0) & (positions < self.lengths[rows, None])

    def batch(self, batch: int) -> np.ndarray:
        return self.sequences[batch * self.batch_sequences:(batch + 1) * self.batch_sequences]

    def flat(self, n_batches: int | None = None) -> FlatTokens:
        """Every activation of the first `n_batches` forward batches, in the order they are harvested."""
        n = (self.n_batches if n_batches is None else n_batches) * self.batch_sequences
        positions = np.arange(self.sequences.shape[1])
        kept = (positions > 0) & (positions < self.lengths[:n, None])
        rows = np.nonzero(kept)[0].astype(np.int32)
        return FlatTokens(self.sequences[:n][kept], self.documents[rows], rows)


@dataclass(frozen=True)
class Corpus:
    meta: dict[str, Any]
    train: TokenSplit
    held_out: TokenSplit


def corpus_facts(corpus: str, path: str | None, lm: LMFolder, n_ctx: int) -> tuple[list[Document], dict[str, Any]]:
    if n_ctx > lm.n_ctx:
        raise ValueError(f"data.n_ctx={n_ctx} exceeds the {lm.n_ctx} positions of {lm.path.name}. Choose n_ctx <= {lm.n_ctx}.")
    documents = load_documents(corpus, path)
    return documents, {"corpus_sha256": corpus_hash(documents), "tokenizer_sha256": lm.tokenizer_sha256}


def corpus_key(data: dict[str, Any]) -> str:
    """Folder name of the tokenised corpus, from the `data` part of a science block."""
    parts = ("corpus_sha256", "tokenizer_sha256", "held_out_fraction", "n_ctx", "batch_sequences", "max_train_tokens")
    return digest({k: data[k] for k in parts})[:16]


def prepare(store: Store, documents: list[Document], lm: LMFolder, data: dict[str, Any]) -> Corpus:
    """Tokenise into the store, or read what is there. `data` is that part of a science block."""
    folder = store.corpus_dir(corpus_key(data))
    if not (folder / "meta.json").exists():
        _tokenise(folder, documents, lm, data)
    return read(folder)


def read(folder: Path) -> Corpus:
    meta = read_json(folder / "meta.json")
    if meta is None:
        raise ValueError(f"{folder} has no tokenised corpus. Run `saescale plan` on the sweep again.")
    splits = [TokenSplit(*(np.load(folder / f"{split}-{part}.npy", mmap_mode="r")
                           for part in ("sequences", "lengths", "documents")), meta["batch_sequences"]) for split in SPLITS]
    return Corpus(meta, *splits)


def _tokenise(folder: Path, documents: list[Document], lm: LMFolder, data: dict[str, Any]) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(lm.path / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encodings = tokenizer.encode_batch([d.text for d in documents], add_special_tokens=False)
    held_out = np.array([is_held_out(d.name, data["held_out_fraction"]) for d in documents])
    meta = {"batch_sequences": data["batch_sequences"], "n_documents": len(documents), "n_ctx": data["n_ctx"]}
    limits = {"train": data["max_train_tokens"], "held_out": None}
    for split, wanted in zip(SPLITS, (~held_out, held_out), strict=True):
        pieces = [(i, encodings[i].ids) for i in np.flatnonzero(wanted)]
        rows = _cut(pieces, data["n_ctx"], lm.bos_token_id)
        arrays = _arrays(_order(rows, limits[split], data["batch_sequences"]), data["n_ctx"], lm.bos_token_id or 0)
        if len(arrays["sequences"]) == 0:
            raise ValueError(f"the {split} split of {data['corpus']} gives less than one forward batch of "
                             f"{data['batch_sequences']} sequences. Lower data.batch_sequences or change held_out_fraction.")
        for part, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            write_bytes(folder / f"{split}-{part}.npy", buffer.getvalue())
        meta[f"n_{split}_tokens"] = int((arrays["lengths"] - 1).sum())
        meta[f"n_{split}_documents"] = int(wanted.sum())
    write_json(folder / "meta.json", meta)


def _cut(pieces: list[tuple[int, list[int]]], n_ctx: int, bos: int | None) -> list[tuple[int, list[int]]]:
    """(document, token ids) of every sequence: documents cut to at most n_ctx tokens, each piece opened by BOS."""
    head = [] if bos is None else [bos]
    width = n_ctx - len(head)
    rows = [(doc, head + ids[i:i + width]) for doc, ids in pieces for i in range(0, len(ids), width)]
    return [r for r in rows if len(r[1]) >= 2]


def _order(rows: list[tuple[int, list[int]]], max_tokens: int | None, batch_sequences: int) -> list[tuple[int, list[int]]]:
    """The sequences in one fixed shuffled order, down to whole forward batches, and to `max_tokens` where that is given."""
    shuffled = [rows[i] for i in np.random.Generator(np.random.PCG64(ORDER_SEED)).permutation(len(rows))]
    if max_tokens is not None:
        tokens = np.cumsum([len(ids) - 1 for _, ids in shuffled])
        shuffled = shuffled[: int(np.searchsorted(tokens, max_tokens, side="right"))]
    return shuffled[: len(shuffled) // batch_sequences * batch_sequences]


def _arrays(rows: list[tuple[int, list[int]]], n_ctx: int, padding: int) -> dict[str, np.ndarray]:
    sequences = np.full((len(rows), n_ctx), padding, dtype=np.int32)
    for row, (_, ids) in enumerate(rows):
        sequences[row, : len(ids)] = ids
    return {"sequences": sequences, "lengths": np.array([len(ids) for _, ids in rows], dtype=np.int32),
            "documents": np.array([doc for doc, _ in rows], dtype=np.int32)}
