"""Counts of (key, level) events in one pass: memory follows the distinct keys, not the events."""

from __future__ import annotations

import numpy as np

COMPACT = 4_000_000  # events kept before they are counted


class Tally:
    """How many events of each key reached each level. Keys are any int64 of 0 or more, levels 1 .. n_levels."""

    def __init__(self, n_levels: int) -> None:
        self.n_levels = n_levels
        self._waiting: list[np.ndarray] = []
        self._n_waiting = 0
        self._cells = np.zeros(0, dtype=np.int64)  # key * n_levels + level - 1, ascending
        self._counts = np.zeros(0, dtype=np.int64)

    def add(self, key: np.ndarray, level: np.ndarray) -> None:
        self._waiting.append(key.astype(np.int64) * self.n_levels + level - 1)
        self._n_waiting += len(key)
        if self._n_waiting > COMPACT:
            self._compact()

    def _compact(self) -> None:
        cells, counts = np.unique(np.concatenate(self._waiting), return_counts=True) if self._waiting else (self._cells[:0],) * 2
        self._waiting, self._n_waiting = [], 0
        together = np.concatenate([self._cells, cells])
        self._cells, where = np.unique(together, return_inverse=True)
        self._counts = np.bincount(where, np.concatenate([self._counts, counts]), len(self._cells)).astype(np.int64)

    def table(self) -> Table:
        """The counts so far: of each key, the events that reached at least each level."""
        self._compact()
        key, where = np.unique(self._cells // self.n_levels, return_inverse=True)
        exact = np.zeros((len(key), self.n_levels), dtype=np.int64)
        exact[where, self._cells % self.n_levels] = self._counts
        return Table(key, exact[:, ::-1].cumsum(axis=1)[:, ::-1])


class Table:
    """key int64 [key], ascending; counts [key, level], events of at least that level."""

    def __init__(self, key: np.ndarray, counts: np.ndarray) -> None:
        self.key, self.counts = key, counts

    def __getitem__(self, wanted: np.ndarray) -> np.ndarray:
        """[wanted, level]; zeros for keys that never came."""
        at = np.searchsorted(self.key, wanted)
        found = at < len(self.key)
        found[found] = self.key[at[found]] == wanted[found]
        out = np.zeros((len(wanted), self.counts.shape[1]), dtype=self.counts.dtype)
        out[found] = self.counts[at[found]]
        return out

    def rows(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(range, row) of every row whose key lies in [low, high) of each range."""
        first, last = np.searchsorted(self.key, low), np.searchsorted(self.key, high)
        size = last - first
        which = np.repeat(np.arange(len(low)), size)
        return which, np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size) + np.repeat(first, size)

    @classmethod
    def summed(cls, key: np.ndarray, counts: np.ndarray) -> Table:
        """The sum of the rows that share a key."""
        distinct, where = np.unique(key, return_inverse=True)
        columns = [np.bincount(where, column, len(distinct)) for column in counts.T]
        return cls(distinct, np.stack(columns, axis=1).astype(counts.dtype) if len(key) else counts)
