"""Corpora that were tokenised before: arrays of token ids in .npy, .npz or .safetensors, by file, folder or glob.

A two-dimensional array holds one document per row; a flat one is a stream, cut into documents after each EOS of the model that
reads it, or, where there is none, into blocks. Which tokenizer made them nothing in the file says: ids beyond the model's
vocabulary are refused, and a safetensors file whose metadata holds `tokenizer_sha256` is checked against the model's.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from saescale.activations.corpora import LARGE_BYTES
from saescale.activations.files import file_sha256
from saescale.activations.folder import LMFolder
from saescale.activations.text import Document
from saescale.identity import digest

KINDS = (".npy", ".npz", ".safetensors")
NAMES = ("input_ids", "tokens", "ids")
BLOCK_TOKENS = 4096  # a stream without EOS is cut into documents of this length


class TokenArrays:
    in_order = False

    def __init__(self, path: str | None, lm: LMFolder) -> None:
        if path is None or path == "???":
            raise ValueError("data.path is missing: give an array of token ids, or a folder or glob of them.")
        here = Path(path).expanduser()
        names = [str(here)] if here.is_file() else [str(p) for p in here.rglob("*")] if here.is_dir() else glob.glob(str(here))
        self.files = sorted(Path(n) for n in names if Path(n).suffix in KINDS)
        if not self.files:
            raise ValueError(f"data.path={path!r} names no array of token ids. Give {', '.join(KINDS)}, or a folder or glob "
                             "of them.")
        self.lm = lm

    @property
    def large(self) -> bool:
        return sum(f.stat().st_size for f in self.files) > LARGE_BYTES

    def sha256(self) -> str:
        return digest({"token_arrays": [[f.name, file_sha256(f)] for f in self.files]})

    def reader(self, state: Any = None) -> ArraysReader:
        return ArraysReader(self, *(state or (0, 0)))


class ArraysReader:
    """Goes on at document `skip` of file `at`."""

    def __init__(self, corpus: TokenArrays, at: int, skip: int) -> None:
        self.corpus, self.at, self.skip = corpus, at, skip

    def __iter__(self) -> Iterator[Document]:
        eos, bos = self.corpus.lm.token_id("eos"), self.corpus.lm.bos_token_id
        while self.at < len(self.corpus.files):
            path = self.corpus.files[self.at]
            array = token_array(path, self.corpus.lm)
            bounds = row_bounds(array) if array.ndim == 2 else stream_bounds(array, eos)
            flat = array.reshape(-1)
            for i in range(self.skip, len(bounds) - 1):
                ids = np.asarray(flat[bounds[i]:bounds[i + 1]], dtype=np.int32)
                self.skip = i + 1
                if len(ids) and ids[0] == bos:  # every window gets its own
                    ids = ids[1:]
                if len(ids):
                    yield Document(f"{path.name}#{i}", "", hashlib.sha256(ids.tobytes()).hexdigest(), ids.tolist())
            self.at, self.skip = self.at + 1, 0

    def state(self) -> list[int]:
        return [self.at, self.skip]

    def fraction(self) -> float:
        return self.at / len(self.corpus.files)


def row_bounds(array: np.ndarray) -> np.ndarray:
    return np.arange(len(array) + 1) * array.shape[1]


def stream_bounds(array: np.ndarray, eos: int | None) -> np.ndarray:
    """Where the documents of a flat array begin, and its end."""
    ends = np.flatnonzero(array == eos) + 1 if eos is not None else np.empty(0, dtype=np.int64)
    if not len(ends):
        ends = np.arange(BLOCK_TOKENS, len(array), BLOCK_TOKENS)
    return np.unique(np.concatenate([[0], ends, [len(array)]]))


def token_array(path: Path, lm: LMFolder) -> np.ndarray:
    """The ids of one file, in one or two dimensions. Raises ValueError when they cannot be this model's."""
    array = loaded(path, lm)
    if array.ndim not in (1, 2) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{path} holds {array.dtype} of shape {array.shape}: token ids are whole numbers, one document per row "
                         "or one stream.")
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if not array.size:
        raise ValueError(f"{path} is empty. Give arrays that hold token ids.")
    if low < 0 or high >= lm.vocab_size:
        raise ValueError(f"{path} holds the token id {low if low < 0 else high} and {lm.label} knows 0 to {lm.vocab_size - 1}: "
                         "it was made with another tokenizer. Tokenise the texts with this model's.")
    return array


def loaded(path: Path, lm: LMFolder) -> np.ndarray:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="np") as f:
            made_by = (f.metadata() or {}).get("tokenizer_sha256")
            if made_by not in (None, lm.tokenizer_sha256):
                raise ValueError(f"{path} says it was made with the tokenizer {made_by[:12]}..., and that of {lm.label} is "
                                 f"{lm.tokenizer_sha256[:12]}...: tokenise the texts with this model's.")
            return f.get_tensor(chosen(list(f.keys()), path))
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as e:
        raise ValueError(f"{path} is not an array of numbers ({e}). Save token ids with numpy.save.") from e
    return found if isinstance(found, np.ndarray) else found[chosen(list(found), path)]


def chosen(names: list[str], path: Path) -> str:
    """The array to read: the only one, or the one that is named as token ids are."""
    known = [n for n in NAMES if n in names] or names
    if len(known) != 1 and len(names) != 1:
        raise ValueError(f"{path} holds several arrays: {', '.join(names)}. Name the token ids {NAMES[0]}.")
    return known[0]
