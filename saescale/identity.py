"""Who a run is: canonical JSON of its science block, hashed whole, with a schema version.

Two numbers that mean the same give the same text (1e15, 1.0e+15 and 1000000000000000); a value without one stable form
raises. A key added later with a neutral default is left out of the hash while it has that default, so old ids live on.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

SCHEMA = 1
# Dotted science key -> the value that means "as before this key existed".
NEUTRAL_DEFAULTS: dict[str, Any] = {
    "sae.target_l0": None, "sae.bandwidth": None, "lm.attention": "eager",
    "data.packing": "cut", "data.prepend_bos": True, "data.exclude_special_tokens": False,
    "data.oversample": [], "data.oversample_factor": 1,
    "activations.manifold_dim": 2, "activations.one_at_a_time": False,
}
SCALARS = frozenset({str, int, float, bool, type(None)})
# What a trunk does not depend on: runs that differ only here share initialisation, data order and trunk.
HORIZON_KEYS = frozenset({"train.n_tokens", "train.lr_decay_fraction"})


@lru_cache(4096, typed=True)
def canonical_number(value: float) -> int | float:
    """One form per number: whole numbers below 2**63 as int, everything else as float.

    A float stands for the shortest decimal that reads back as it, so 1e23 and 10**23 are one number.
    """
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    try:
        nearest = float(value)
    except OverflowError:
        nearest = math.inf
    if not math.isfinite(nearest):
        raise ValueError(f"{value!r:.40} cannot identify a run: only finite numbers can. Give a finite number or null.")
    shortest = Decimal(repr(nearest))
    if isinstance(value, int) and shortest != value:
        raise ValueError(f"{value} cannot identify a run: a number beyond 2**63 may have 17 digits at most. Round it.")
    return int(shortest) if shortest == shortest.to_integral_value() and abs(shortest) < 2**63 else nearest


def canonical(value: Any) -> Any:
    """`value` with numbers in one form; raises ValueError for a type that has no stable text."""
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return value
    if kind is dict and all(type(k) is str for k in value):  # the common case, without asking what a mapping is
        return {k: v if type(v := value[k]) is str or v is None else canonical(v) for k in sorted(value)}
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return canonical_number(value)
    if isinstance(value, (list, tuple)):
        return [canonical(v) for v in value]
    if isinstance(value, Mapping):
        if not all(isinstance(k, str) for k in value):
            raise ValueError(f"keys of a science block are strings, got {list(value)!r}.")
        return {k: canonical(value[k]) for k in sorted(value)}
    raise ValueError(f"a {type(value).__name__} cannot identify a run: use numbers, strings, lists, mappings or null.")


def flatten(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in block.items():
        if type(value) is dict or (type(value) not in SCALARS and isinstance(value, Mapping)):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def digest(block: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hex characters."""
    return _sha256(canonical(block))


def _sha256(canonical_block: Any) -> str:
    return hashlib.sha256(_json(canonical_block).encode()).hexdigest()


def _json(canonical_block: Any) -> str:
    return json.dumps(canonical_block, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


_json_of_scalar = lru_cache(16384, typed=True)(_json)


def _hashed_parts(flat: Mapping[str, Any]) -> dict[str, str]:
    """Key -> its part of the hashed text, for the keys that count, in their order: values recur over thousands of runs."""
    return {k: f"{_json_of_scalar(k)}:{_json_of_scalar(v) if type(v) in SCALARS else _json(v)}" for k, v in sorted(flat.items())
            if not (k in NEUTRAL_DEFAULTS and NEUTRAL_DEFAULTS[k] == v)}


def _hashed(parts: Mapping[str, str], without: frozenset[str] = frozenset()) -> str:
    """SHA-256 of {"schema": SCHEMA, "science": the parts} as canonical JSON."""
    text = ",".join(part for k, part in parts.items() if k not in without)
    return hashlib.sha256(f'{{"schema":{SCHEMA},"science":{{{text}}}}}'.encode()).hexdigest()


def without_neutral(group: str, block: Mapping[str, Any]) -> dict[str, Any]:
    """`block`, the part `group` of a science block, less the keys that have their neutral default: what older stores hashed."""
    return {k: v for k, v in block.items()
            if f"{group}.{k}" not in NEUTRAL_DEFAULTS or NEUTRAL_DEFAULTS[f"{group}.{k}"] != v}


def fingerprint(science: Mapping[str, Any]) -> str:
    """The hash of the whole science block: equal exactly when two runs are the same experiment."""
    return _hashed(_hashed_parts(canonical(flatten(science))))


def short_number(value: float) -> str:
    """A number for a readable prefix, never parsed back: 6.25e9 -> '6.25e9', 1024 -> '1024'."""
    text = f"{value:.3g}"
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if e else text


def names(science: Mapping[str, Any]) -> tuple[str, str]:
    """(run_id, trunk_id), both from one reading of the block: planning asks this of thousands.

    run_id is a readable prefix and 10 hex digits of the fingerprint, e.g. `L1-topk-n1024-k16-C2.5e10-s0-9f31c2abcd`;
    trunk_id has the same hash without the horizon and its decay (HORIZON_KEYS). Prefixes are for people; nothing is ever
    parsed from them.
    """
    return names_of_canonical(canonical(science))


def names_of_canonical(science: Mapping[str, Any]) -> tuple[str, str]:
    """The same of a block that canonical() gave."""
    parts = _hashed_parts(flatten(science))
    sae, train = science["sae"], science["train"]
    flops = 12 * science["lm"]["d_in"] * sae["n_latents"] * train["n_tokens"]
    target = sae.get("target_l0")
    penalty = f"t{short_number(target)}" if target else f"l{short_number(sae.get('sparsity_coeff') or 0)}"
    sparsity = f"k{sae['k']}" if sae.get("k") else penalty
    head = f"{hook_label(science['lm']['hook_name'])}-{sae['kind']}-n{sae['n_latents']}"
    return (f"{head}-{sparsity}-C{short_number(flops)}-s{train['seed']}-{_hashed(parts)[:10]}",
            f"{head}-s{train['seed']}-{_hashed(parts, HORIZON_KEYS)[:10]}")


def run_id(science: Mapping[str, Any]) -> str:
    return names(science)[0]


def trunk_id(science: Mapping[str, Any]) -> str:
    return names(science)[1]


def hook_label(hook_name: str | None) -> str:
    """`blocks.1.hook_resid_post` -> `L1`, `blocks.1.hook_mlp_out` -> `L1mlp_out`, no hook -> `synthetic`: never parsed."""
    if hook_name is None:
        return "synthetic"
    parts = hook_name.split(".")
    site = parts[-1].removeprefix("hook_")
    layer = f"L{parts[1]}" if len(parts) == 3 else ""
    return layer + ("" if site == "resid_post" else site)


def differing_keys(given: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """`key: given != found` for every dotted key that differs, for the message when a fingerprint does not match."""
    a, b = canonical(flatten(given)), canonical(flatten(found))
    return [f"{k}: {a.get(k, 'absent')!r} here, {b.get(k, 'absent')!r} on disk"
            for k in sorted(a.keys() | b.keys()) if a.get(k, "absent") != b.get(k, "absent")]
