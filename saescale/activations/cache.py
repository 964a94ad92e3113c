"""The activation cache: harvested once into content-addressed shards, memory-mapped by every run after.

activations/<key>/<split>-<shard>.bin holds the rows of SHARD_BATCHES forward batches in the activation dtype; the .json
beside it, written after it, says its length and SHA-256. A shard whose .json is there and whose length is right is whole; any
other is harvested again.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saescale.activations.live import LiveSource
from saescale.activations.shards import SHARD_BATCHES, cache_spec, has_its_length, shards
from saescale.activations.tokens import TokenSplit
from saescale.identity import differing_keys
from saescale.records.lock import Lock
from saescale.records.store import Damaged, read_json, write_json

CLAIMS = "claims"  # folder of the locks of shards being harvested
SPEC = "spec.json"  # in a cache's folder: what its numbers depend on
CLAIM_POLL_S = 0.2
UNWRITTEN = 2  # forward batches that may wait for the disk while the next is computed
SCALE_BATCHES = 64  # forward batches behind the one input scalar and the sample for the pre-bias


class Shard:
    """One shard being written: aside, so that a crash leaves none; its .json, after the rename, makes it whole."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.bin"
        for aside in folder.glob(f".{name}.*"):  # left by a killed process
            aside.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.aside = folder / f".{name}.bin.{uuid.uuid4().hex[:8]}"
        self.file = self.aside.open("wb")
        self.hash, self.n_bytes = hashlib.sha256(), 0

    def add(self, rows: Tensor) -> None:
        data = memoryview(rows.contiguous().view(torch.uint8).numpy()).cast("B")
        self.file.write(data)
        self.hash.update(data)
        self.n_bytes += len(data)

    def finish(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        os.replace(self.aside, self.path)
        write_json(self.path.with_suffix(".json"), {"bytes": self.n_bytes, "sha256": self.hash.hexdigest()})

    def drop(self) -> None:
        """Nothing is left of a shard that was not finished."""
        with suppress(OSError):
            self.file.close()
        self.aside.unlink(missing_ok=True)


def harvest(folders: Mapping[str, Path], split: str, source: LiveSource, wanted: Sequence[int]) -> Iterator[int]:
    """Harvest the shards `wanted` of every hook in `folders`, one forward for all hooks, yielding the activations of each
    forward batch as they go to the disk. A thread hashes and writes them while the next batch is computed."""
    for shard in wanted:
        open_shards = {hook: Shard(folder, f"{split}-{shard:05d}") for hook, folder in folders.items()}
        try:
            with ThreadPoolExecutor(1, "shards") as writer:
                unwritten: deque[Future[None]] = deque()
                for index in shards(source.tokens)[shard]:
                    unwritten.append(writer.submit(_write, open_shards, source.stored_at(index, list(folders))))
                    if len(unwritten) > UNWRITTEN:
                        unwritten.popleft().result()
                    yield int(source.counts[index])
                for writing in unwritten:
                    writing.result()
            for one in open_shards.values():
                one.finish()
        except OSError as e:
            e.filename = e.filename or str(next(iter(folders.values())))  # a full disk does not say of which file
            raise
        finally:
            for one in open_shards.values():
                one.drop()


def _write(open_shards: Mapping[str, Shard], stored: Mapping[str, Tensor]) -> None:
    for hook, rows in stored.items():
        open_shards[hook].add(rows)


def harvest_together(folders: Mapping[str, Path], sources: Mapping[str, LiveSource], wanted: Sequence[tuple[str, int]],
                     before_each: Callable[[], None] = lambda: None) -> Iterator[tuple[int, str]]:
    """Harvest the shards `wanted` beside other processes that may want the same: each shard of each hook is made by whoever
    claims it.

    Yields (activations done, note) after each forward batch. A shard another process holds is come back to: it is there then, or
    its owner is gone and this process makes it. `before_each` shard may raise to stop.
    """
    waiting = list(wanted)
    while waiting:
        left = []
        for split, shard in waiting:
            before_each()
            name = f"{split}-{shard:05d}"
            claims = {hook: Lock(folder / CLAIMS / name) for hook, folder in folders.items()
                      if not has_its_length(folder / f"{name}.bin")}
            mine = {hook: claim for hook, claim in claims.items() if claim.acquire() is None}
            if len(mine) < len(claims):
                left.append((split, shard))
            try:  # looked at again: it may have been finished just before the claim
                lacking = {hook: folders[hook] for hook in mine if not has_its_length(folders[hook] / f"{name}.bin")}
                for n_rows in harvest(lacking, split, sources[split], [shard]) if lacking else ():
                    for claim in mine.values():
                        claim.beat()
                    yield n_rows, f"{split} shard {shard}" + (f", {len(lacking)} hooks" if len(lacking) > 1 else "")
            finally:
                for claim in mine.values():
                    claim.release()
        if len(left) == len(waiting):
            yield 0, f"waiting for {len(left)} shards that another launch harvests"
            time.sleep(CLAIM_POLL_S)
        waiting = left


def check_spec(folder: Path, science: Mapping[str, Any]) -> None:
    """Write down what these activations depend on, or refuse a folder that was harvested from something else."""
    spec = cache_spec(science)
    found = read_json(folder / SPEC)
    if found is None:
        write_json(folder / SPEC, spec)
    elif differs := differing_keys(spec, found):
        tokenizer = "with another tokenizer, " if any("tokenizer_sha256" in d for d in differs) else ""
        raise Damaged(f"{folder} was harvested {tokenizer}from something else ({'; '.join(differs)[:300]}): it was moved or "
                      "renamed by hand. Move it away and launch again.")


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
