"""The text behind activations: which token stands at which of them, and the words around one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saescale.activations.folder import LMFolder
from saescale.activations.tokens import FlatTokens, TokenSplit
from saescale.activations.words import decoded_pieces

SPLITS = ("held_out", "train")


def open_tokenizer(path: str) -> Any:
    """The Hugging Face tokenizer of a model folder. Raises ValueError when the folder is missing or not whole."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_file=str(LMFolder(Path(path)).path / "tokenizer.json"))


@dataclass(frozen=True)
class Text:
    """The tokens behind the first forward batches of a split, one per activation, and how each is spelled."""

    tokens: FlatTokens
    pieces: list[str]

    @classmethod
    def of(cls, split: TokenSplit, n_batches: int, tokenizer: Any) -> Text:
        return cls(split.flat(n_batches), decoded_pieces(tokenizer))

    def __len__(self) -> int:
        return len(self.tokens.ids)

    def window(self, position: int, before: int, after: int) -> range:
        """The activations around `position`, itself included, that the language model read in the same sequence."""
        sequence = self.tokens.sequences
        start, stop = max(position - before, 0), min(position + after + 1, len(self))
        inside = np.flatnonzero(sequence[start:stop] == sequence[position]) + start  # one run: sequences are in order
        return range(int(inside[0]), int(inside[-1]) + 1)

    def spelled(self, positions: range) -> list[str]:
        return [self.pieces[i] for i in self.tokens.ids[positions.start:positions.stop]]


@dataclass(frozen=True)
class Activity:
    """Where one latent fires in a stream of n_tokens activations: positions int64 [fire], rising, and values float32 [fire]."""

    positions: np.ndarray
    values: np.ndarray
    n_tokens: int

    def __post_init__(self) -> None:
        if self.positions.shape != self.values.shape:
            raise ValueError(f"{self.positions.shape} positions and {self.values.shape} values: give one value per position.")

    @property
    def highest(self) -> float:
        """The largest activation; 0 for a latent that never fires."""
        return float(self.values.max(initial=0.0))

    def over(self, positions: range) -> np.ndarray:
        """float32 [len(positions)]: the activation at each of consecutive positions, 0 where it does not fire."""
        first, last = np.searchsorted(self.positions, (positions.start, positions.stop))
        out = np.zeros(len(positions), dtype=np.float32)
        out[self.positions[first:last] - positions.start] = self.values[first:last]
        return out


def context(text: Text, activity: Activity, position: int, before: int = 24, after: int = 8) -> dict[str, Any]:
    """One place where a latent fires: its tokens, the activation at each, and which of them is meant (`peak`)."""
    around = text.window(position, before, after)
    return {"document": int(text.tokens.documents[position]), "position": int(position), "peak": position - around.start,
            "tokens": text.spelled(around), "acts": [round(float(a), 5) for a in activity.over(around)]}
