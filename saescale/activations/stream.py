"""The training stream: a pure function of (data_seed, token position), so resuming needs no replay.

An epoch visits every forward batch once, in a seeded order. SEGMENT_BATCHES of them make a segment, whose activations
are shuffled together. Cached and live activations give the same batches, since both answer by forward batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from saescale.activations.live import Source

SEGMENT_BATCHES = 32
Load = Callable[[list[int]], list[Tensor]]


class Stream:
    def __init__(self, source: Source, data_seed: int, scale: float, load: Load | None = None,
                 repeats: np.ndarray | None = None) -> None:
        """`load` gives forward batches by index; None: from `source`, one after another. `repeats` int [token], in harvest order:
        how often each activation comes in an epoch; None: once."""
        self.source, self.data_seed, self.scale = source, data_seed, scale
        self.repeats, self.counts = repeats, source.counts
        if repeats is not None:
            self._starts = np.concatenate([[0], np.cumsum(source.counts)])
            self.counts = np.diff(np.concatenate([[0], np.cumsum(repeats)])[self._starts])
        self.load = load or (lambda indices: [source.batch(i) for i in indices])
        self.epoch_tokens = int(self.counts.sum())
        self._order: tuple[int, np.ndarray, np.ndarray] | None = None
        self._segment: tuple[tuple[int, int], Tensor] | None = None

    def read(self, position: int, n_tokens: int) -> Tensor:
        """float32 [n_tokens, d_in] at mean square norm d_in: tokens position .. position + n_tokens of the stream."""
        parts: list[Tensor] = []
        while n_tokens > 0:
            epoch, offset = divmod(position, self.epoch_tokens)
            _, ends = self._epoch(epoch)
            index = int(np.searchsorted(ends, offset, side="right"))
            rows = self._load(epoch, index)
            start = offset - (int(ends[index - 1]) if index else 0)
            part = rows[start:start + n_tokens]
            parts.append(part)
            position += len(part)
            n_tokens -= len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Order of the forward batches in this epoch and the end position of each segment."""
        if self._order is None or self._order[0] != epoch:
            order = _generator(self.data_seed, epoch, 0).permutation(len(self.counts))
            ends = np.cumsum(self.counts[order])
            last = np.minimum(np.arange(SEGMENT_BATCHES, len(order) + SEGMENT_BATCHES, SEGMENT_BATCHES), len(order)) - 1
            self._order = (epoch, order, ends[last])
        return self._order[1], self._order[2]

    def _load(self, epoch: int, index: int) -> Tensor:
        if self._segment is None or self._segment[0] != (epoch, index):
            self._segment = None  # free the last one first: a segment is the largest thing in memory
            order, _ = self._epoch(epoch)
            chosen = order[index * SEGMENT_BATCHES:(index + 1) * SEGMENT_BATCHES]
            rows = torch.cat(self.load([int(i) for i in chosen]))
            if self.repeats is not None:
                times = np.concatenate([self.repeats[self._starts[i]:self._starts[i + 1]] for i in chosen])
                rows = rows.repeat_interleave(torch.from_numpy(times), dim=0)
            shuffled = torch.from_numpy(_generator(self.data_seed, epoch, index + 1).permutation(len(rows)))
            self._segment = ((epoch, index), rows[shuffled].mul_(self.scale))
        return self._segment[1]


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
