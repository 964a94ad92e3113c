"""The activation cache: harvested once into content-addressed shards, memory-mapped by every run after.

activations/<key>/<split>-<shard>.bin holds the rows of SHARD_BATCHES forward batches in the activation dtype; the .json
beside it, written after it, says its length and SHA-256. A shard whose .json is there and whose length is right is whole; any
other is harvested again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saescale.activations.live import LiveSource
from saescale.activations.shards import SHARD_BATCHES, has_its_length, shards
from saescale.activations.tokens import TokenSplit
from saescale.records.lock import Lock
from saescale.records.store import Damaged, read_json, write_bytes, write_json

CLAIMS = "claims"  # folder of the locks of shards being harvested
CLAIM_POLL_S = 0.2
SCALE_BATCHES = 64  # forward batches behind the one input scalar and the sample for the pre-bias


def harvest(folder: Path, split: str, source: LiveSource, wanted: list[int]) -> Iterator[int]:
    """Harvest the shards `wanted`, yielding the activations written after each forward batch."""
    for shard in wanted:
        for aside in folder.glob(f".{split}-{shard:05d}.*"):  # left by a killed process
            aside.unlink(missing_ok=True)
        parts = []
        for index in shards(source.tokens)[shard]:
            rows = source.stored(index).contiguous()
            parts.append(rows.view(torch.uint8).numpy().tobytes())
            yield len(rows)
        data = b"".join(parts)
        write_bytes(folder / f"{split}-{shard:05d}.bin", data)
        write_json(folder / f"{split}-{shard:05d}.json", {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})


def harvest_together(folder: Path, sources: Mapping[str, LiveSource],
                     wanted: Sequence[tuple[str, int]]) -> Iterator[tuple[int, str]]:
    """Harvest the shards `wanted` beside other processes that may want the same: each shard is made by whoever claims it.

    Yields (activations done, note) after each forward batch. A shard another process holds is come back to: it is there then, or
    its owner is gone and this process makes it.
    """
    waiting = list(wanted)
    while waiting:
        left = []
        for split, shard in waiting:
            path = folder / f"{split}-{shard:05d}.bin"
            claim = Lock(folder / CLAIMS / path.stem)
            if not has_its_length(path) and claim.acquire() is not None:
                left.append((split, shard))
                continue
            try:  # looked at again: it may have been finished just before the claim
                rows = iter(()) if has_its_length(path) else harvest(folder, split, sources[split], [shard])
                for n_rows in rows:
                    claim.beat()
                    yield n_rows, f"{split} shard {shard}"
            finally:
                claim.release()
        if len(left) == len(waiting):
            yield 0, f"waiting for {len(left)} shards that another launch harvests"
            time.sleep(CLAIM_POLL_S)
        waiting = left


class CacheSource:
    """The harvested activations of one split. Each shard's checksum is verified when it is first read."""

    def __init__(self, folder: Path, split: str, tokens: TokenSplit, data: dict[str, Any]) -> None:
        self.folder, self.split, self.tokens = folder, split, tokens
        self.dtype = getattr(torch, data["activation_dtype"])
        self.counts = tokens.batch_token_counts
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])
        self._maps: dict[int, Tensor] = {}

    def batch(self, index: int) -> Tensor:
        shard = index // SHARD_BATCHES
        first = self._starts[shard * SHARD_BATCHES]
        rows = slice(int(self._starts[index] - first), int(self._starts[index + 1] - first))
        return self._shard(shard)[rows].to(torch.float32, copy=True)  # callers may scale it in place; the map is read-only

    def _shard(self, shard: int) -> Tensor:
        if shard not in self._maps:
            path = self.folder / f"{self.split}-{shard:05d}.bin"
            raw = np.memmap(path, dtype=np.uint8, mode="r") if has_its_length(path) else None
            if raw is None or hashlib.sha256(raw).hexdigest() != read_json(path.with_suffix(".json"))["sha256"]:
                path.with_suffix(".json").unlink(missing_ok=True)
                raise Damaged(f"{path} is damaged: its bytes do not match the checksum of its harvest. "
                              "Launch again: this shard alone is harvested anew.")
            in_shard = range(shard * SHARD_BATCHES, min((shard + 1) * SHARD_BATCHES, len(self.counts)))
            n_rows = int(self.counts[in_shard.start:in_shard.stop].sum())
            with torch.no_grad():
                self._maps[shard] = _as_tensor(raw).view(self.dtype).view(n_rows, -1)
        return self._maps[shard]


def _as_tensor(raw: np.memmap) -> Tensor:
    import warnings

    with warnings.catch_warnings():  # the map is read-only and nothing here writes to it
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(raw)


def input_scale(source: Any, d_in: int, progress: Callable[[], None] = lambda: None) -> float:
    """The one scalar that brings the mean square norm of the inputs to d_in, over the first SCALE_BATCHES batches."""
    total, rows = 0.0, 0
    for index in range(min(SCALE_BATCHES, len(source.counts))):
        x = source.batch(index)
        total += float(x.double().square().sum())
        rows += len(x)
        progress()
    return (d_in * rows / total) ** 0.5


def sample(source: Any, n_tokens: int) -> Tensor:
    """float32 [at most n_tokens, d_in], unscaled: the first activations in harvest order, for initialising biases."""
    rows, index = [], 0
    while sum(map(len, rows)) < n_tokens and index < len(source.counts):
        rows.append(source.batch(index))
        index += 1
    return torch.cat(rows)[:n_tokens]
