"""Live activations: the language model's forward in the loop, rounded exactly as the cache rounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from saescale.activations.lm import LanguageModel
from saescale.activations.tokens import TokenSplit


class Source(Protocol):
    """Activations by forward batch: a pure function of the batch's index."""

    counts: np.ndarray  # int64 [n_batches], activations each forward batch gives

    def batch(self, index: int) -> Tensor:
        """float32 [counts[index], d_in], unscaled, rounded to the activation dtype."""
        ...


class LiveSource:
    """Forward batches through the language model."""

    def __init__(self, lm: LanguageModel, tokens: TokenSplit, activation_dtype: str) -> None:
        self.lm, self.tokens, self.dtype = lm, tokens, getattr(torch, activation_dtype)
        self.counts = tokens.batch_token_counts

    def stored_at(self, index: int, hook_names: Sequence[str]) -> dict[str, Tensor]:
        """[counts[index], d_in] in the activation dtype at each hook, one forward for all: what the cache keeps.

        Raises ValueError when a value is not finite.
        """
        ids = torch.from_numpy(np.array(self.tokens.batch(index))).long()
        kept = torch.from_numpy(self.tokens.kept(index))
        found = {}
        for name, values in self.lm.at(ids, hook_names).items():
            rows = values[kept.to(values.device)].float().to(self.dtype).cpu()
            if not (rows.sum(dtype=torch.float32).isfinite() or torch.isfinite(rows).all()):  # the sum is ten times faster
                raise ValueError(f"activations of forward batch {index} are not finite in {self.dtype} at {name}: "
                                 "set data.activation_dtype=bfloat16 or float32, or look at the language model.")
            found[name] = rows
        return found

    def stored(self, index: int) -> Tensor:
        return self.stored_at(index, [self.lm.hook_name])[self.lm.hook_name]

    def batch(self, index: int) -> Tensor:
        return self.stored(index).float()
