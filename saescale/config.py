"""What a person may say, frozen and strict. One dataclass per Hydra group in `conf/`.

An unknown key, a wrong type or a value out of range raises ValueError, one sentence: what was given, is allowed, to do.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import operator
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saescale import kinds, reading
from saescale.reading import DataConfig, LMConfig, check_hook
from saescale.slurm_site import Request, Rule, SlurmConfig
from saescale.sources import ActivationsConfig
from saescale.tracking import TRACKS, TrackConfig

KINDS = tuple(kinds.KINDS)
TYPE_NAMES = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
SPARSITY_WARMUPS = ("tokens", "horizon")
KERNELS = ("auto", "cpu", "numba", "triton", "torch")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")
CLUSTERS = ("inprocess", "local", "slurm")


@dataclass(frozen=True)
class SAEConfig:
    """`target_l0`: solve sparsity_coeff for it. `warmup`: the sparsity ramp lasts train.sparsity_warmup_tokens or the horizon."""

    kind: str
    n_latents: int
    k: int | None
    sparsity_coeff: float | None
    aux_coeff: float
    k_aux: int | None
    target_l0: float | None = None
    bandwidth: float | None = None
    warmup: str = "tokens"


@dataclass(frozen=True)
class TrainConfig:
    """Lengths are tokens. `n_tokens` null: solved from budget.flops. `lr` at `lr_reference_latents`, times
    (lr_reference_latents / n_latents) ** lr_power; only the resulting number enters the science block. `precision` bfloat16:
    the encoder's product is taken in bf16, all else stays fp32."""

    n_tokens: int | None
    batch_tokens: int
    lr: float
    lr_reference_latents: int | None
    lr_power: float
    lr_warmup_tokens: int
    lr_decay_fraction: float
    sparsity_warmup_tokens: int
    dead_after_tokens: int | None
    grad_clip: float
    beta1: float
    beta2: float
    eps: float
    precision: str = "float32"


@dataclass(frozen=True)
class EvalConfig:
    n_tokens: int
    ce_tokens: int


@dataclass(frozen=True)
class BudgetConfig:
    """`flops`: dense-equivalent compute C = 12 d_in n_latents n_tokens. A grid point may miss it by `tolerance`."""

    flops: float | None
    tolerance: float
    min_steps: int
    min_warmups: float


@dataclass(frozen=True)
class ClusterConfig:
    """`memory_gb`: of all workers together (null: what is free). `ranks`: processes of a worker; a trunk larger than
    `shard_above_gb` (null: than one rank may be) has its latents dealt over them; one silent for `rank_timeout_s` is given up.
    `job`, `rules`, `slurm`: for kind=slurm alone, the request of a job, others by rule, the site. `device`: where SAEs train;
    `gpu_memory_gb`: of one GPU (null: as nvidia-smi says, or on a cluster the least of cluster.job.gpu_type)."""

    kind: str
    workers: int
    threads: int
    memory_gb: float | None
    kernels: str
    checkpoint_s: float
    log_every_tokens: int
    ranks: int = 1
    shard_above_gb: float | None = None
    job: Request | None = None
    rules: tuple[Rule, ...] = ()
    slurm: SlurmConfig | None = None
    rank_timeout_s: float = 900.0
    device: str = "cpu"
    gpu_memory_gb: float | None = None


@dataclass(frozen=True)
class Config:
    lm: LMConfig
    data: DataConfig
    activations: ActivationsConfig
    sae: SAEConfig
    train: TrainConfig
    eval: EvalConfig
    budget: BudgetConfig
    cluster: ClusterConfig
    track: TrackConfig
    seed: int
    data_seed: int

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_ranges(self)
        kinds.check(self.sae.kind, self.sae.n_latents, vars(self.sae))
        if self.sae.warmup == "horizon" and kinds.KINDS[self.sae.kind].keeps_k:
            raise ValueError(f"sae.warmup=horizon is of no use to sae={self.sae.kind}: it has no sparsity penalty to ramp. "
                             "Set it to tokens.")
        if self.train.n_tokens is not None and self.budget.flops is not None:
            raise ValueError(
                f"two horizons given: train.n_tokens={self.train.n_tokens} and budget.flops={self.budget.flops:g}. "
                "Give one of them; set the other to null.")
        if self.train.n_tokens is None and self.budget.flops is None:
            raise ValueError("no horizon given: set budget.flops (tokens are solved from it) or train.n_tokens.")


def _check_choices(c: Config) -> None:
    choices = {"sae.kind": (c.sae.kind, KINDS), "sae.warmup": (c.sae.warmup, SPARSITY_WARMUPS),
               **reading.choices(c.lm, c.data), "cluster.kind": (c.cluster.kind, CLUSTERS),
               "cluster.kernels": (c.cluster.kernels, KERNELS), "cluster.device": (c.cluster.device, DEVICES),
               "train.precision": (c.train.precision, PRECISIONS),
               "track.kind": (c.track.kind, TRACKS)}
    for key, (value, allowed) in choices.items():
        if value not in allowed:
            raise ValueError(f"{key}={value!r} is not known. Choose one of: {', '.join(allowed)}.")
    if c.cluster.kind == "slurm" and (c.cluster.job is None or c.cluster.slurm is None):
        raise ValueError("cluster.kind='slurm' needs cluster.job and cluster.slurm. Copy conf/cluster/slurm.yaml.")
    check_hook(c.lm.hook_name)


RANGES = tuple((keys, operator.attrgetter(*keys), ok, what) for keys, ok, what in (
    (("sae.n_latents", "train.batch_tokens", "data.n_ctx", "data.batch_sequences", "eval.n_tokens", "eval.ce_tokens",
      "cluster.workers", "cluster.ranks", "cluster.threads", "cluster.log_every_tokens", "sae.k_aux", "train.n_tokens",
      "data.max_train_tokens", "train.lr_reference_latents", "train.dead_after_tokens"), lambda v: v >= 1, "at least 1"),
    (("train.lr", "train.grad_clip", "train.eps", "budget.tolerance", "budget.flops", "cluster.memory_gb",
      "cluster.rank_timeout_s", "cluster.gpu_memory_gb"), lambda v: v > 0, "above 0"),
    (("train.lr_warmup_tokens", "train.sparsity_warmup_tokens", "sae.aux_coeff", "seed", "data_seed", "cluster.checkpoint_s",
      "budget.min_steps", "budget.min_warmups"), lambda v: v >= 0, "0 or more"),
    (("train.lr_decay_fraction", "train.beta1", "train.beta2", "data.held_out_fraction"), lambda v: 0 <= v < 1, "in [0, 1)")))


def _check_ranges(c: Config) -> None:
    for keys, values_of, ok, what in RANGES:
        for key, value in zip(keys, values_of(c), strict=True):
            if value is not None and not ok(value):
                raise ValueError(f"{key}={value} is out of range: it must be {what}.")
    for key, seed in (("seed", c.seed), ("data_seed", c.data_seed)):
        if seed >= 2**63:
            raise ValueError(f"{key}={seed} is out of range: it must be below 2**63.")
    if c.cluster.shard_above_gb is not None and c.cluster.shard_above_gb < 0:
        raise ValueError(f"cluster.shard_above_gb={c.cluster.shard_above_gb} is out of range: it must be 0 or more, or null.")
    if c.cluster.ranks > c.sae.n_latents:
        raise ValueError(f"cluster.ranks={c.cluster.ranks} exceeds sae.n_latents. Choose cluster.ranks <= {c.sae.n_latents}.")
    if c.data.n_ctx < 2:
        raise ValueError(f"data.n_ctx={c.data.n_ctx} leaves no token after the first position. Choose at least 2.")


def lookup(config: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        config = getattr(config, part)
    return config


def from_mapping(given: Mapping[str, Any], known: dict[str, Any] | None = None) -> Config:
    """Config from the nested mapping Hydra composed; raises ValueError on unknown keys and wrong types.

    `known` keeps the groups that were built before, by what they say: the cells of a sweep differ in few of them.
    """
    if known is None:
        return _build(Config, given, "")
    built = {}
    for name, kind in _hints(Config).items():
        value = given.get(name)
        if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            text = f"{name} {value!r}"
            if text not in known:
                known[text] = _typed(kind, value, name)
            built[name] = known[text]
    return _build(Config, {**given, **built}, "")


_hints = functools.cache(typing.get_type_hints)


def group(name: str, value: Any) -> Any:
    """The group of this name as from_mapping() builds it; what is no group as it is."""
    kind = _hints(Config).get(name)
    return _typed(kind, value, name) if dataclasses.is_dataclass(kind) and isinstance(value, Mapping) else value


def _build(cls: type, given: Mapping[str, Any], prefix: str) -> Any:
    hints = _hints(cls)
    for key in given:
        if key not in hints:
            raise ValueError(unknown_key(f"{prefix}{key}", [f"{prefix}{name}" for name in hints]))
    values = {}
    for name, kind in hints.items():
        if name not in given:
            if hasattr(cls, name) or cls.__dataclass_fields__[name].default_factory is not dataclasses.MISSING:
                continue  # the dataclass has a default
            raise ValueError(f"{prefix}{name} is missing. Set it in conf/ or as an override.")
        values[name] = _typed(kind, given[name], f"{prefix}{name}")
    return cls(**values)


def _collected(kind: Any, value: Any, key: str) -> Any:
    """A list of settings, or a mapping of names to texts."""
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{key}={value!r} is not a list. Write {key}: [...].")
        return tuple(_typed(typing.get_args(kind)[0], v, f"{key}[{i}]") for i, v in enumerate(value))
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}={value!r} is not a mapping. Write {key}: {{NAME: text}}.")
    return {str(k): _typed(str, v, f"{key}.{k}") for k, v in value.items()}


def unknown_key(key: str, known: typing.Sequence[str]) -> str:
    """The sentence for an unknown key: the nearest known one, and the known ones of its group."""
    near = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    group, shown = key, list[str]()
    while not shown and "." in group:  # of the nearest group there is
        group = group.rpartition(".")[0]
        shown = [k for k in known if k.startswith(f"{group}.")]
    shown = shown or list(dict.fromkeys(k.split(".")[0] for k in known))
    return f"{key} is not a known setting.{hint} Known here: {', '.join(shown)}."


def _typed(kind: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"{key}={value!r} is not a group of settings.")
        return _build(kind, value, f"{key}.")
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None and type(None) in options:
        return None
    if dataclasses.is_dataclass(options[0]):
        return _typed(options[0], value, key)
    if typing.get_origin(kind) in (tuple, dict):
        return _collected(kind, value, key)
    if isinstance(value, bool) and bool in options:
        return value
    if isinstance(value, bool):
        value = str(value)
    for option in options:
        if option is str and isinstance(value, str):
            return value
        if option is float and isinstance(value, (int, float)):
            return float(value)
        if option is int and isinstance(value, (int, float)) and float(value).is_integer():
            return int(value)
    names = " or ".join("null" if o is type(None) else TYPE_NAMES[o.__name__]
                        for o in options)
    raise ValueError(f"{key}={value!r} has the wrong type: it must be {names}.")
