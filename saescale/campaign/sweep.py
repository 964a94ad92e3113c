"""From a sweep file and overrides to one Config per grid cell."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saescale import config as conf
from saescale.campaign import compose, folders
from saescale.campaign.inventories import check_settings
from saescale.campaign.settings import Base
from saescale.identity import digest
from saescale.sources import EXECUTION_SOURCES

HORIZONS = ("budget.flops", "train.n_tokens")
EXECUTION_GROUPS = ("cluster", "track")
EXECUTION_KEYS = ("lm.device",)
SWEEP_KEYS = {"question", "base", "set", "by_kind", "grids", "around", "concepts", "caps"}
AROUND_KEYS = {"n_latents", "flops", "power", "factor"}


@dataclass(frozen=True)
class Override:
    """One override of the command line: `key` and the values it takes (several: an axis)."""

    key: str
    values: tuple[Any, ...]

    @property
    def is_execution(self) -> bool:
        if self.key == "activations":
            return set(self.values) <= set(EXECUTION_SOURCES)
        if self.key in EXECUTION_KEYS:
            return True
        return self.key.split(".")[0] in EXECUTION_GROUPS


@dataclass(frozen=True)
class Sweep:
    """A named question: what every run shares, and the grids of what varies."""

    name: str
    question: str
    groups: Mapping[str, str]
    shared: Mapping[str, Any]
    by_kind: Mapping[str, Mapping[str, Any]]
    grids: Mapping[str, Mapping[str, Sequence[Any]]]
    around: Mapping[str, float]
    concepts: Mapping[str, Any]
    overrides: tuple[Override, ...] = field(default=())
    caps: Mapping[str, float] = field(default_factory=dict)
    said: tuple[str, ...] = field(default=())  # the overrides as they were typed

    @property
    def folder_name(self) -> str:
        """Folder of this sweep in the store: overrides that change the science get one of their own."""
        science = {o.key: list(o.values) for o in self.overrides if not o.is_execution}
        return f"{self.name}+{digest(science)[:6]}" if science else self.name


@dataclass(frozen=True)
class Cell:
    grid: str
    varied: Mapping[str, Any]
    config: conf.Config


def load(name: str, overrides: Sequence[str] = ()) -> Sweep:
    """Read `sweeps/<name>.yaml`, the project's own before the installed one, and put the overrides over it."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    files = {path.stem: file for path, file in folders.files("sweeps").items() if len(path.parts) == 1}
    known = sorted(files)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"{name!r} is not a sweep name: give the name of a file in sweeps/ without folder or ending, "
                         f"one of: {', '.join(known)}.")
    if name not in known:
        raise ValueError(f"there is no sweep {name!r}. Choose one of: {', '.join(known)}, or add sweeps/{name}.yaml.")
    try:
        raw = OmegaConf.to_container(OmegaConf.load(files[name]), resolve=True)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as e:
        raise ValueError(f"sweeps/{name}.yaml cannot be read: {' '.join(str(e).split())}") from e
    return dataclasses.replace(_sweep(name, raw, _parse_overrides(overrides)), said=tuple(overrides))


def _sweep(name: str, raw: Any, overrides: tuple[Override, ...]) -> Sweep:
    _check_shape(name, raw)
    _refuse_two_horizons(overrides)
    groups = dict(_parse_group(item, name) for item in raw.get("base") or [])
    grids = {}
    for grid, axes in raw["grids"].items():
        given = {k: v if isinstance(v, list) else [v] for k, v in axes.items()}
        if sum(k in HORIZONS for k in given) == 2:
            raise ValueError(f"two horizons given in grid {grid!r} of sweeps/{name}.yaml: budget.flops and train.n_tokens. "
                             "Give one of them.")
        grids[grid] = _with_overrides(given, overrides)
    _refuse_idle_horizon(name, grids, overrides)
    return Sweep(name, raw.get("question") or "", groups, raw.get("set") or {}, raw.get("by_kind") or {}, grids,
                 _around(name, raw.get("around") or {}), raw.get("concepts") or {}, overrides, _caps(name, raw.get("caps") or {}))


def _around(name: str, given: Mapping[str, Any]) -> dict[str, float]:
    """Where the optimum of a budget is expected: n_latents * (C / flops) ** power; sizes within `factor` of it are trained."""
    if given and (set(given) != AROUND_KEYS or not all(isinstance(v, (int, float)) and v > 0 for v in given.values())):
        raise ValueError(f"sweeps/{name}.yaml: around needs the positive numbers {', '.join(sorted(AROUND_KEYS))}, "
                         f"got {dict(given)}.")
    return {k: float(v) for k, v in given.items()}


def _caps(name: str, given: Mapping[str, Any]) -> dict[str, float]:
    """What a sweep may cost: launch refuses to pass it."""
    if not isinstance(given, Mapping) or not all(k == "gpu_hours" and isinstance(v, (int, float)) and v >= 0
                                                 for k, v in given.items()):
        raise ValueError(f"sweeps/{name}.yaml: caps={given} must be {{gpu_hours: HOURS}}.")
    return {k: float(v) for k, v in given.items()}


def _check_shape(name: str, raw: Any) -> None:
    """The parts of a sweep file that are lists are lists, those that are mappings are mappings, and names in it exist."""
    where = f"sweeps/{name}.yaml"
    if not isinstance(raw, Mapping) or not isinstance(raw.get("grids"), Mapping) or not raw["grids"]:
        raise ValueError(f"{where} has no grids: list what varies under grids: NAME: KEY: [values].")
    for key in raw:
        if key not in SWEEP_KEYS:
            raise ValueError(f"{where}: {conf.unknown_key(str(key), sorted(SWEEP_KEYS))}")
    if not isinstance(raw.get("question") or "", str):
        raise ValueError(f"{where}: question={raw['question']!r} is not a text. Write question: One sentence?")
    if not isinstance(raw.get("base") or [], list):
        raise ValueError(f"{where}: base={raw['base']!r} is not a list. Write base: [GROUP=CHOICE, ...].")
    by_kind, concepts = raw.get("by_kind") or {}, raw.get("concepts") or {}
    parts = {"set": raw.get("set") or {}, "by_kind": by_kind, "around": raw.get("around") or {}, "concepts": concepts}
    parts |= {f"grids.{k}": v for k, v in raw["grids"].items()}
    parts |= {f"by_kind.{k}": v for k, v in by_kind.items()} if isinstance(by_kind, Mapping) else {}
    for part, given in parts.items():
        if not isinstance(given, Mapping) or not all(isinstance(k, str) for k in given):
            raise ValueError(f"{where}: {part} is not a mapping of settings. Write {part}: {{KEY: value}}, "
                             "with keys such as sae.n_latents.")
        _refuse_nested(where, part, given)
    for kind in by_kind:
        if kind not in conf.KINDS:
            raise ValueError(f"{where}: by_kind.{kind} is not an SAE kind. Choose one of: {', '.join(conf.KINDS)}.")
    check_settings(where, concepts, list(map(str, raw["grids"])))


def _refuse_nested(where: str, part: str, given: Mapping[str, Any]) -> None:
    """Settings are flat keys: `sae: {k: 4}` is not sae.k, and which group is meant is said by base or an axis."""
    if part != "set" and not part.startswith(("grids.", "by_kind.")):
        return
    for key in given.keys() & {*compose.group_choices(), "budget"}:
        for inner in given[key] if isinstance(given[key], list) else [given[key]]:
            if isinstance(inner, Mapping):
                flat = ", ".join(f"{key}.{k}: {v}" for k, v in inner.items()) or f"{key}.KEY: VALUE"
                raise ValueError(f"{where}: {part}.{key} nests settings, whose keys are flat here. Write {part}: {{{flat}}}.")
            if key == "budget" or not part.startswith("grids."):
                raise ValueError(f"{where}: {part}.{key} is a group of settings. Write {key}.KEY: VALUE for one of them"
                                 + ("." if key == "budget" else f", or base: [{key}=CHOICE]."))


def _refuse_idle_horizon(name: str, grids: Mapping[str, Mapping[str, Any]], overrides: Sequence[Override]) -> None:
    """An override of a horizon replaces that horizon alone: where every grid gives the other one it would do nothing."""
    for o in overrides:
        if o.key in HORIZONS and not any(o.key in axes for axes in grids.values()):
            other = next(h for h in HORIZONS if h != o.key)
            raise ValueError(f"{o.key} changes nothing here: every grid of sweeps/{name}.yaml gives {other}. "
                             f"Write {other}=VALUE,VALUE, or copy the sweep and change its grids.")


def _refuse_two_horizons(overrides: Sequence[Override]) -> None:
    given = [o for o in overrides if o.key in HORIZONS]
    if len(given) > 1:
        raise ValueError(f"two horizons given: {' and '.join(o.key for o in given)}. Give one of them.")


def _parse_group(item: str, name: str) -> tuple[str, str]:
    group, _, choice = str(item).partition("=")
    choices = compose.group_choices()
    if group not in choices:
        raise ValueError(f"sweeps/{name}.yaml: base entry {item!r} is not GROUP=CHOICE. Groups are: {', '.join(choices)}.")
    if choice not in choices[group]:
        raise ValueError(f"sweeps/{name}.yaml: base entry {item!r} is not known. "
                         f"Choose one of: {', '.join(f'{group}={c}' for c in choices[group])}.")
    return group, choice


def _with_overrides(axes: dict[str, list[Any]], overrides: Sequence[Override]) -> dict[str, Sequence[Any]]:
    """The axes of one grid. An override replaces its axis or adds one; a horizon only replaces the same horizon,
    so that the grids of one sweep keep their own."""
    out: dict[str, Sequence[Any]] = dict(axes)
    for o in overrides:
        if o.key in HORIZONS and o.key not in axes and any(h in axes for h in HORIZONS):
            continue
        out[o.key] = o.values
    return out


def _parse_overrides(overrides: Sequence[str]) -> tuple[Override, ...]:
    """Overrides in Hydra's grammar: key=value, key=a,b, key=range(...), key=choice(...)."""
    if not overrides:
        return ()
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Transformer
    from hydra.errors import HydraException

    parsed = []
    for text in overrides:
        try:
            o = OverridesParser.create().parse_override(text)
            if o.is_add() or o.is_delete() or o.is_force_add() or o.package is not None:
                raise ValueError(f"the override {text!r} adds, deletes or moves a key: saescale's keys are fixed. "
                                 "Write KEY=VALUE.")
            values = tuple(o.sweep_iterator(transformer=Transformer.identity)) if o.is_sweep_override() else (o.value(),)
        except HydraException as e:
            raise ValueError(f"the override {text!r} cannot be read: write KEY=VALUE, KEY=VALUE,VALUE or "
                             "KEY=range(FROM,TO).") from e
        parsed += _short_forms(str(o.key_or_group), tuple(_plain(v) for v in values))
    keys = [o.key for o in parsed]
    twice = {k for k in keys if keys.count(k) > 1}
    if twice:
        raise ValueError(f"the override {sorted(twice)[0]} is given twice. Give it once, as KEY=VALUE,VALUE for several.")
    return tuple(parsed)


def _plain(value: Any) -> Any:
    return value.text if hasattr(value, "text") else value


def _short_forms(key: str, values: tuple[Any, ...]) -> list[Override]:
    """`lm=/some/folder` stands for `lm=folder lm.path=/some/folder`, `lm=NAME` for `lm=hub lm.name=NAME`; group choices are
    checked here."""
    choices = compose.group_choices()
    if key not in choices:
        return [Override(key, values)]
    names = tuple(str(v) for v in values)
    if key == "lm" and len(names) == 1 and names[0] not in choices["lm"]:
        if not (names[0].startswith(("/", ".", "~")) or Path(names[0]).is_dir()):
            return [Override("lm", ("hub",)), Override("lm.name", (names[0],))]
        return [Override("lm", ("folder",)), Override("lm.path", (str(Path(names[0]).expanduser().absolute()),))]
    for n in names:
        if n not in choices[key]:
            raise ValueError(f"{key}={n} is not known. Choose one of: {', '.join(choices[key])}.")
    return [Override(key, names)]


def cells(sweep: Sweep) -> Iterator[Cell]:
    """Every grid cell with its Config. Hydra composes once per choice of groups; scalars are set over that."""
    bases: dict[tuple, Base] = {}
    known_groups = compose.group_choices().keys()
    for grid, axes in sweep.grids.items():
        for values in itertools.product(*axes.values()):
            varied = dict(zip(axes, values, strict=True))
            groups = {**sweep.groups, **{k: v for k, v in varied.items() if k in known_groups}}
            scalars = {k: v for k, v in varied.items() if k not in known_groups}
            key = tuple(sorted(groups.items()))
            if key not in bases:
                bases[key] = Base(compose.compose(groups), sweep)
            yield Cell(grid, _shown(varied, axes), bases[key].config(scalars))


def _shown(varied: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {k: v for k, v in varied.items() if len(axes[k]) > 1 or k in HORIZONS}
