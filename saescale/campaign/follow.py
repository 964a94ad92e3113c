"""The sweep file that would test a prediction: its budget, sizes around the predicted best, everything else as before."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saescale.campaign.sweep import Sweep
from saescale.flops import tokens_for

STEPS = (-1.0, -0.5, 0.0, 0.5, 1.0)  # in powers of 2 of the size: five sizes, an octave to either side
MULTIPLE = 16


def write_follow_up(path: Path, like: Sweep, flops: float, n_latents: float, d_in: int) -> Path:
    """Write a sweep of one budget around `n_latents`, on the model, data and settings of `like`; gives `path`.

    Errors: `ValueError` when the file exists, or its name is not a sweep's.
    """
    if path.suffix != ".yaml" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", path.stem):
        raise ValueError(f"{path} cannot be a sweep file: give a name of letters, digits, - and _ ending in .yaml, "
                         "such as sweeps/next.yaml.")
    if path.exists():
        raise ValueError(f"{path} exists and is not overwritten: choose another name, or remove it first.")
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent}: give a name in sweeps/.")
    path.write_text(_text(like, flops, sizes(n_latents), d_in), encoding="utf-8")
    return path


def sizes(n_latents: float) -> list[int]:
    """Half an octave apart, each once; rounded to a multiple of 16, or of less where that would merge them."""
    multiple = max(1, min(MULTIPLE, int(n_latents / MULTIPLE)))
    return sorted({max(multiple, multiple * round(n_latents * 2**step / multiple)) for step in STEPS})


def _text(like: Sweep, flops: float, around: Sequence[int], d_in: int) -> str:
    shared = {key: value for key, value in like.shared.items() if key not in ("train.n_tokens", "budget.flops", "sae.n_latents")}
    groups = dict(like.groups)
    for override in like.overrides:  # those of one value belong to the question; axes are replaced by the grid
        if len(override.values) == 1 and override.key not in ("seed", "sae.n_latents", "budget.flops", "train.n_tokens"):
            (groups if "." not in override.key else shared)[override.key] = override.values[0]
    most = "data.max_train_tokens"
    if most in shared:  # the smallest size needs the most tokens
        shared[most] = max(int(shared[most]), int(1.1 * tokens_for(flops, d_in, min(around))))
    lines = [f"# Tests what the laws of the sweep {like.name} predict at {flops:.3g} FLOPs: written by `saescale predict`.",
             f"question: {_plain(f'Is the best dictionary at {flops:.3g} FLOPs where the laws of {like.name} say?')}", "",
             f"base: [{', '.join(f'{group}={choice}' for group, choice in groups.items())}]", ""]
    lines += _block("set", shared) + _nested("by_kind", like.by_kind)
    lines += ["grids:", "  predicted:", f"    sae.n_latents: {_plain(list(around))}", f"    budget.flops: {_plain(float(flops))}",
              "    seed: [0, 1]", ""]
    return "\n".join(lines)


def _block(name: str, values: Mapping[str, Any], indent: str = "") -> list[str]:
    if not values:
        return []
    lines = [f"{indent}{name}:", *(f"{indent}  {key}: {_plain(value)}" for key, value in values.items())]
    return lines if indent else [*lines, ""]


def _nested(name: str, values: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"{name}:", *(line for key, part in values.items() for line in _block(key, part, "  ")), ""] if values else []


def _plain(value: Any) -> str:
    """YAML of a plain value. JSON is YAML, but for floats: 1e+17 is a text to some readers, 1.0e+17 is a number to all."""
    if isinstance(value, float):
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value)) if value == value else "null"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_plain(part) for part in value)}]"
    return json.dumps(value)

