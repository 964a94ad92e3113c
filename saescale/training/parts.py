"""One safetensors file written by several processes at once: the first the header, each the ranges it holds.

Nothing is gathered: an SAE that does not fit into one process need not fit into it to be saved. From a GPU one tensor is copied
to the host at a time.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from saescale.sae.ranks import Ranks
from saescale.sae.shards import Part

NAMES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}  # as the format spells them
ALIGNMENT = 8


def save_parts(parts: Mapping[str, Part], path: Path, ranks: Ranks) -> None:
    """Called by all ranks with parts of the same tensors; the ranks see one file system. Written aside, fsynced, renamed."""
    header, starts = layout(parts)
    aside = path.with_name(f".{path.name}.parts")
    if ranks.first:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(header)
    ranks.totals(0)  # the file is there
    with aside.open("rb+") as f:
        for name, part in parts.items():
            for first, values in part.ranges:
                f.seek(starts[name] + first * part.dtype.itemsize)
                f.write(memoryview(values.cpu().contiguous().numpy()).cast("B"))
        f.flush()
        os.fsync(f.fileno())
    ranks.totals(0)  # every range is there
    if ranks.first:
        os.replace(aside, path)


def layout(parts: Mapping[str, Part]) -> tuple[bytes, dict[str, int]]:
    """The header of the file, and where in it each tensor begins. The largest element types come first, as the format wants."""
    described, starts, at = {}, {}, 0
    for name, part in sorted(parts.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        size = math.prod(part.shape) * part.dtype.itemsize
        described[name] = {"dtype": NAMES[part.dtype], "shape": list(part.shape), "data_offsets": [at, at + size]}
        starts[name], at = at, at + size
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    return header, {name: start + len(header) for name, start in starts.items()}
