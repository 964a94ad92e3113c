"""What concepts to ask about: the lists of names in `conf/concepts/`, chosen by a sweep, read without torch.

A file is a plain list of names (one category, called as the file), or a mapping:

    categories: {animals: [cat, dog]}   names by category
    prompt: "The {name}"                a short text that ends with the name
    spaced: true                        count `<space>Name<space>` as well; false for code
    closed: [london_boroughs]           categories that list all their members
    ambiguous: [lead, Turkey]           names that often mean something else: scored, and flagged
    every_word: {category: words, per_bin: 100}   instead of categories: all words of the text in the range of frequencies
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saescale.campaign import folders
from saescale.config import unknown_key

DEFAULTS: dict[str, Any] = {"prompt": "The {name}", "spaced": True, "closed": [], "ambiguous": [], "categories": {},
                            "every_word": None}
PER_BIN = 100
SETTINGS = {"grid", "inventories", "scoring_tokens", "min_tokens", "prevalence", "frequencies"}
PREVALENCES = ("fixed", "text")  # which of the two scores the law is fitted to; both are in the table


def check_settings(where: str, given: Mapping[str, Any], grids: Sequence[str]) -> None:
    """What a sweep file says under `concepts`: the grid, and if it likes inventories, tokens of the text, tokens of a name, the
    frequencies of words that are asked about."""
    if not given:
        return
    inventories = given.get("inventories", ["words"])
    numbers = [given[k] for k in ("scoring_tokens", "min_tokens") if k in given]
    if (not set(given) <= SETTINGS or given.get("grid") not in grids or not isinstance(inventories, list) or not inventories
            or given.get("prevalence", "fixed") not in PREVALENCES or not all(type(n) is int and n > 0 for n in numbers)
            or not _is_range(given.get("frequencies", [0.1, 0.2]))):
        raise ValueError(f"{where}: concepts={dict(given)!r} must be {{grid: NAME, inventories: [NAME, ...], scoring_tokens: N, "
                         f"min_tokens: N, prevalence: fixed or text, frequencies: [LOW, HIGH]}}, all but the grid optional, with "
                         f"the grid's NAME one of: {', '.join(grids)}, inventories of conf/concepts/, N a whole number, and "
                         "LOW below HIGH, both shares of tokens.")


def _is_range(given: Any) -> bool:
    return (isinstance(given, list) and len(given) == 2 and all(type(f) in (int, float) for f in given)
            and 0 <= given[0] < given[1] <= 1)


def chosen(wanted: Sequence[str]) -> list[dict[str, Any]]:
    """One mapping with all keys of DEFAULTS and `name` per entry of `wanted`: `NAME`, or `NAME.CATEGORY` for one category.

    Raises ValueError for a file or category that is not there, a list that is no list, and a name twice in one category.
    """
    twice = [entry for entry, n in Counter(wanted).items() if n > 1]
    if twice:
        raise ValueError(f"concepts.inventories names {twice[0]} twice. Name it once.")
    inventories = [_one(str(entry)) for entry in wanted]
    categories = Counter(c for inventory in inventories for c in _categories(inventory))
    same = [c for c, n in categories.items() if n > 1]
    if same:
        raise ValueError(f"the category {same[0]!r} is in two of the inventories {', '.join(wanted)}. Choose one of them, as "
                         "INVENTORY.CATEGORY, or rename it in conf/concepts/.")
    return inventories


def _one(entry: str) -> dict[str, Any]:
    name, _, category = entry.partition(".")
    inventory = read(name)
    if not category:
        return inventory
    if category not in inventory["categories"]:
        raise ValueError(f"the inventory {name!r} has no category {category!r}. It has: "
                         f"{', '.join(_categories(inventory)) or 'none'}.")
    return inventory | {"categories": {category: inventory["categories"][category]},
                        "closed": [c for c in inventory["closed"] if c == category]}


def _categories(inventory: Mapping[str, Any]) -> list[str]:
    every = inventory["every_word"]
    return [*inventory["categories"], *([every["category"]] if every else [])]


def found() -> dict[str, Path]:
    """Name -> the file that stands for it, the project's own before the installed one."""
    return {path.stem: file for path, file in folders.files("conf").items() if path.parts[:-1] == ("concepts",)}


def read(name: str) -> dict[str, Any]:
    """The inventory conf/concepts/<name>.yaml. Raises ValueError with one sentence for whatever is wrong with it."""
    import yaml

    known = found()
    if name not in known:
        raise ValueError(f"there is no inventory {name!r}. Choose from: {', '.join(known)}, or add conf/concepts/{name}.yaml, "
                         "a list of names.")
    where = f"conf/concepts/{name}.yaml"
    try:
        raw = yaml.safe_load(known[name].read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ValueError(f"{where} cannot be read: {' '.join(str(e).split())}") from e
    raw = {"categories": {name: raw}} if isinstance(raw, list) else raw
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where} is neither a list of names nor a mapping with categories: NAME: [names].")
    for key in raw:
        if key not in DEFAULTS:
            raise ValueError(f"{where}: {unknown_key(str(key), sorted(DEFAULTS))}")
    return _checked(where, {"name": name, **DEFAULTS, **raw})


def _checked(where: str, inventory: dict[str, Any]) -> dict[str, Any]:
    every, categories = inventory["every_word"], inventory["categories"]
    if every is not None:
        if categories or not isinstance(every, Mapping) or not isinstance(every.get("category"), str):
            raise ValueError(
                f"{where}: every_word={every!r} must be {{category: NAME, per_bin: N}}, and no categories beside it.")
        inventory["every_word"] = {"category": every["category"], "per_bin": int(every.get("per_bin", PER_BIN))}
    elif not isinstance(categories, Mapping) or not categories:
        raise ValueError(f"{where} has no categories. Write categories: {{NAME: [names]}}, or a plain list of names.")
    for category, names in categories.items():
        _check_names(f"{where}: {category}", names)
    _check_names(f"{where}: ambiguous", inventory["ambiguous"])
    unknown = set(inventory["closed"]) - set(categories)
    if unknown:
        raise ValueError(f"{where}: closed={sorted(unknown)} names no category of it. It has: {', '.join(categories)}.")
    if not isinstance(inventory["spaced"], bool):
        raise ValueError(f"{where}: spaced={inventory['spaced']!r} must be true or false.")
    if not isinstance(inventory["prompt"], str) or not inventory["prompt"].endswith("{name}"):
        raise ValueError(f"{where}: prompt={inventory['prompt']!r} must end with {{name}}: activations are read at its end.")
    return inventory


def _check_names(where: str, names: Any) -> None:
    if not isinstance(names, list):
        raise ValueError(f"{where} is not a list of names. Write {where.split(': ')[-1]}: [name, name].")
    odd = [n for n in names if not isinstance(n, str) or not n.strip() or n != n.strip()]
    if odd:
        raise ValueError(f"{where} has the entry {odd[0]!r}, which is not a name. YAML reads words such as no, on and numbers as "
                         "something else: put it in quotes.")
    twice = [n for n, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{where} names {', '.join(twice[:5])} twice. Leave one of each.")
