"""Settings of the cells of a sweep: the composed groups, over them what the sweep says, over that what varies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from saescale import config as conf
from saescale.identity import canonical, flatten

if TYPE_CHECKING:
    from saescale.campaign.sweep import Sweep

SLURM_ONLY = ("cluster.job.", "cluster.slurm.", "cluster.rules")


class Base:
    """What the cells with one choice of groups have in common: the composed groups, the sweep's `set` and `by_kind` over them.

    The groups that a cell does not touch are built once for all of them.
    """

    def __init__(self, composed: dict[str, Any], sweep: Sweep) -> None:
        on_slurm = composed["cluster"]["kind"] == "slurm"  # what jobs ask for is ignored where the sweep trains on this machine
        self.tree, self.built, self.known = _copied(composed), {}, {}
        shared = {k: v for k, v in sweep.shared.items() if on_slurm or not k.startswith(SLURM_ONLY)}
        for key, value in {**shared, **sweep.by_kind.get(self.tree["sae"]["kind"], {})}.items():
            _put(self.tree, key, value, self.tree)

    def config(self, scalars: Mapping[str, Any]) -> conf.Config:
        touched = {key.partition(".")[0] for key in scalars}
        tree = {name: _copied(part) if name in touched else self._once(name, part) for name, part in self.tree.items()}
        for key, value in scalars.items():
            _put(tree, key, value, self.tree)
        return conf.from_mapping(tree, self.known)

    def _once(self, name: str, part: Any) -> Any:
        if name not in self.built:
            self.built[name] = conf.group(name, part)
        return self.built[name]


def _put(tree: dict[str, Any], key: str, value: Any, known: Mapping[str, Any]) -> None:
    *path, last = key.split(".")
    node: Any = tree
    for part in path:
        node = node.get(part) if isinstance(node, Mapping) else None
    if not isinstance(node, dict) or last not in node:
        raise ValueError(conf.unknown_key(key, list(flatten(known))))
    try:
        node[last] = canonical(value)
    except ValueError as e:
        raise ValueError(f"{key}: {e}") from e


def _copied(tree: Any) -> Any:
    return {k: _copied(v) for k, v in tree.items()} if type(tree) is dict else tree
