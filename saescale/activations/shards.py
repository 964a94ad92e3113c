"""Where harvested activations lie and which shards are there: what planning and launching know of the cache, without torch.

activations/<key>/<split>-<shard>.bin holds the rows of SHARD_BATCHES forward batches; the .json beside it, written after
it, says its length and SHA-256. A shard whose .json is there and whose length is right is whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saescale.activations.tokens import TokenSplit
from saescale.identity import digest, without_neutral
from saescale.records.store import Damaged, read_json
from saescale.sources import is_synthetic

SHARD_BATCHES = 16
OF_THE_STREAM = frozenset({"data_seed", "oversample", "oversample_factor"})  # what is read how often, and in which order


def cache_spec(science: Mapping[str, Any]) -> dict[str, Any]:
    """What the harvested numbers depend on: the key's content."""
    drawn = {"activations": science["activations"]} if is_synthetic(science) else {}
    parts = {group: without_neutral(group, science[group]) for group in ("lm", "data")}
    return {"lm": parts["lm"], "data": {k: v for k, v in parts["data"].items() if k not in OF_THE_STREAM}} | drawn


def cache_key(science: Mapping[str, Any]) -> str:
    return digest(cache_spec(science))[:16]


def shards(tokens: TokenSplit) -> list[range]:
    """The forward batches of each shard."""
    return [range(i, min(i + SHARD_BATCHES, tokens.n_batches)) for i in range(0, tokens.n_batches, SHARD_BATCHES)]


def shard_tokens(tokens: TokenSplit, shard: int) -> int:
    """Activations of one shard."""
    return int(tokens.batch_token_counts[shard * SHARD_BATCHES:(shard + 1) * SHARD_BATCHES].sum())


def missing_shards(folder: Path, split: str, tokens: TokenSplit, n_tokens: int | None = None) -> list[int]:
    """Shards not there yet, of those that hold the first `n_tokens` activations (None: all of them)."""
    last = tokens.n_batches if n_tokens is None else tokens.batches_for(n_tokens)
    return [i for i, batches in enumerate(shards(tokens))
            if batches.start < last and not has_its_length(folder / f"{split}-{i:05d}.bin")]


def has_its_length(path: Path) -> bool:
    """Whether the shard at `path` is there with the length its .json says."""
    try:
        said = read_json(path.with_suffix(".json"))
        return said is not None and path.stat().st_size == said["bytes"]
    except (Damaged, FileNotFoundError, KeyError, TypeError):
        return False
