"""The plan: every run a sweep wants, with its identity, tokens, FLOPs and state; what is excluded, and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import saescale
from saescale import config as conf
from saescale import identity
from saescale.activations import tokens
from saescale.activations.corpora import Source, open_corpus
from saescale.activations.folder import BUNDLED, LMFolder
from saescale.activations.hub import HubFolder, hub_folder
from saescale.activations.oversample import repeats
from saescale.activations.shards import cache_key
from saescale.campaign import folders
from saescale.campaign.sweep import Cell, Sweep, cells
from saescale.flops import flops_dense
from saescale.records.store import Store, read_json, write_text
from saescale.science import TooShort, science_block, synthetic_science_block
from saescale.sources import is_synthetic

SCHEMA = 1


@dataclass(frozen=True)
class PlannedRun:
    """One run of the plan. `execution` holds what does not change its numbers: paths, threads, logging. `tokens_per_s` and
    `peak_gb` (of a process that trains one such SAE) are what a probe measured for its shape on its device, or null."""

    run_id: str
    trunk_id: str
    grids: tuple[str, ...]
    target_flops: float | None
    science: Mapping[str, Any]
    execution: Mapping[str, Any]
    tokens_per_s: float | None = None
    peak_gb: float | None = None

    @property
    def steps(self) -> int:
        return self.science["train"]["n_tokens"] // self.science["train"]["batch_tokens"]

    @property
    def flops_dense(self) -> int:
        s = self.science
        return flops_dense(s["lm"]["d_in"], s["sae"]["n_latents"], s["train"]["n_tokens"])


@dataclass(frozen=True)
class Plan:
    sweep: Sweep
    runs: tuple[PlannedRun, ...]
    excluded: tuple[dict[str, Any], ...]
    cluster: conf.ClusterConfig
    n_train_tokens: int
    track: conf.TrackConfig = conf.TrackConfig("off")

    @property
    def plan_hash(self) -> str:
        return identity.digest({"runs": sorted(r.run_id for r in self.runs),
                                "excluded": sorted(self.excluded, key=identity.digest)})[:10]

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "sweep": self.sweep.folder_name, "question": self.sweep.question, "asked": asked(self.sweep),
                "plan_hash": self.plan_hash, "concepts": dict(self.sweep.concepts),
                "n_train_tokens": self.n_train_tokens,
                "runs": [{"run_id": r.run_id, "trunk_id": r.trunk_id, "grids": list(r.grids), "target_flops": r.target_flops,
                          "flops_dense": r.flops_dense, "steps": r.steps, "tokens_per_s": r.tokens_per_s,
                          "science": dict(r.science)} for r in self.runs],
                "excluded": list(self.excluded)}


class Facts:
    """What planning must look up once: the language model's folder and the tokenised corpus."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lms: dict[tuple, LMFolder] = {}
        self._sources: dict[tuple, tuple[Source, str]] = {}
        self._opened: dict[tuple, tuple[Source, str]] = {}
        self._train_tokens: dict[str, int] = {}
        self._mixes: dict[str, int] = {}
        self._keys: dict[str, tuple[str, str | None]] = {}

    def lm(self, c: conf.Config) -> LMFolder:
        key = (c.lm.path, c.lm.name, c.lm.revision)
        if key not in self._lms:
            self._lms[key] = lm_folder(c.lm)
        return self._lms[key]

    def source(self, c: conf.Config) -> tuple[Source, str]:
        """The documents and what identifies them."""
        lm = self.lm(c)
        seen = (c.data, lm.path)  # cells by the thousand share one
        if seen not in self._sources:
            where = documents_of(c.data)
            key = (*where.items(), lm.path)
            if key not in self._opened:
                source = open_corpus(where, lm)
                if source.large and c.data.max_train_tokens is None:
                    raise ValueError("data.max_train_tokens is missing: a corpus of this size is tokenised when it is launched, "
                                     "so the plan must be told how many training tokens to count on.")
                self._opened[key] = (source, source.sha256())
            self._sources[seen] = self._opened[key]
        return self._sources[seen]

    def science(self, c: conf.Config) -> dict[str, Any]:
        if c.activations.is_synthetic:
            return synthetic_science_block(c)
        lm = self.lm(c)
        tokens.check_context(lm, c.data.n_ctx)
        corpus = {"corpus_sha256": self.source(c)[1], "tokenizer_sha256": lm.tokenizer_sha256}
        return science_block(c, lm.facts(c.lm.hook_name), corpus)

    def keys(self, science: Mapping[str, Any]) -> tuple[str, str | None]:
        """(of the activation cache, of the corpus; null for synthetic activations) a run reads: thousands of runs share one."""
        text = repr((science["lm"], science["data"], science.get("activations")))
        if text not in self._keys:
            self._keys[text] = cache_key(science), None if is_synthetic(science) else tokens.corpus_key(science["data"])
        return self._keys[text]

    def train_tokens(self, c: conf.Config, science: Mapping[str, Any]) -> int:
        """Activations in one epoch; tokenises the corpus into the store the first time, a large one when it is launched."""
        if is_synthetic(science):
            return science["activations"]["n_tokens"]
        key, data = self.keys(science)[1], science["data"]
        if key not in self._train_tokens:
            source = self.source(c)[0]
            if source.large and not tokens.is_prepared(self.store, data):
                self._train_tokens[key] = tokens.promised(data)
            else:
                self._train_tokens[key] = tokens.prepare(self.store, source, self.lm(c), data).train.n_tokens
        return self._mixed(c, key, data) if data["oversample"] else self._train_tokens[key]

    def _mixed(self, c: conf.Config, key: str, data: Mapping[str, Any]) -> int:
        """The same of a mix that repeats documents: longer than the text. Of text that is not tokenised yet, the text's."""
        mix = repr((key, data["oversample"], data["oversample_factor"]))
        if mix not in self._mixes and tokens.is_prepared(self.store, data):
            split = tokens.prepare(self.store, self.source(c)[0], self.lm(c), data).train
            self._mixes[mix] = int(repeats(split, self.lm(c).path, data["oversample"], data["oversample_factor"]).sum())
        return self._mixes.get(mix, self._train_tokens[key])


def lm_folder(lm: conf.LMConfig) -> LMFolder:
    if lm.path == "???":
        raise ValueError("lm.path is missing: give the model's folder with lm=/path/to/folder.")
    if lm.name == "???":
        raise ValueError("lm.name is missing: give a model of the hub, such as lm=gpt2 or lm=hub lm.name=EleutherAI/pythia-70m.")
    if lm.name is not None and lm.path is not None:
        raise ValueError(f"two language models given: lm.name={lm.name} and lm.path={lm.path}. Set one of them to null.")
    if lm.name is not None:
        return hub_folder(lm.name, lm.revision)
    return LMFolder(BUNDLED if lm.path is None else Path(lm.path).expanduser().absolute())


def documents_of(data: conf.DataConfig) -> dict[str, Any]:
    """Where the documents are and how they are read: what a launch opens them with."""
    path = data.path
    if path not in (None, "???") and (data.corpus != "huggingface" or Path(path).expanduser().is_dir()):
        path = str(Path(path).expanduser().absolute())
    return {"corpus": data.corpus, "path": path, "text_field": data.text_field, "document_separator": data.document_separator,
            "subset": data.subset, "split": data.split, "revision": data.revision}


def each_hook(cell: Cell, facts: Facts) -> list[Cell]:
    """The cell once for every hook its lm.hook_name stands for."""
    c = cell.config
    if c.activations.is_synthetic or "*" not in (c.lm.hook_name or ""):
        return [cell]
    return [replace(cell, config=replace(c, lm=replace(c.lm, hook_name=hook))) for hook in facts.lm(c).hooks(c.lm.hook_name)]


def make_plan(sweep: Sweep, store: Store) -> Plan:
    """Expand the sweep into runs. Raises ValueError when no grid point can be trained."""
    facts = Facts(store)
    runs: dict[str, PlannedRun] = {}
    excluded: list[dict[str, Any]] = []
    available, cluster, track = 0, None, conf.TrackConfig("off")
    for cell in (one for given in cells(sweep) for one in each_hook(given, facts)):
        cluster, track = cell.config.cluster, cell.config.track
        try:
            science = facts.science(cell.config)
            available = facts.train_tokens(cell.config, science)
            reason = far_from_optimum(cell.config, sweep.around) or why_excluded(cell.config, science, available)
        except TooShort as e:
            reason = str(e)
        if reason:
            excluded.append({"grid": cell.grid, "cell": dict(cell.varied), "reason": reason})
            continue
        run = _planned(cell, science, facts)
        known = runs.get(run.run_id)
        runs[run.run_id] = run if known is None else _in_both(known, run)
    _require_every_grid(sweep, runs.values(), excluded)
    assert cluster is not None
    if cluster.ranks > 1 and cluster.kind == "inprocess":
        raise ValueError(f"cluster.ranks={cluster.ranks} needs as many processes, and cluster=inprocess is one: choose "
                         "cluster=local, or cluster.ranks=1.")
    if cluster.ranks > 1 and cluster.kind == "slurm":
        raise ValueError(f"cluster.ranks={cluster.ranks} is for workers of this machine: a job of Slurm has a rank for each of "
                         "its GPUs, cluster.job.nodes x cluster.job.gpus, or cluster.job.ranks_per_node on each node.")
    return Plan(sweep, tuple(runs.values()), tuple(excluded), cluster, available, track)


def _require_every_grid(sweep: Sweep, runs: Iterable[PlannedRun], excluded: list[dict[str, Any]]) -> None:
    left = {grid for r in runs for grid in r.grids}
    for grid in sweep.grids:
        if grid not in left:
            reasons = [e["reason"] for e in excluded if e["grid"] == grid]
            why = f"all {len(reasons)} are excluded, the first because: {reasons[0]}" if reasons else "it is empty"
            raise ValueError(f"grid {grid!r} of sweep {sweep.name!r} has no point that can be trained: {why}.")


def _planned(cell: Cell, science: dict[str, Any], facts: Facts) -> PlannedRun:
    c = cell.config
    science = identity.canonical(science)
    cached, corpus = facts.keys(science)
    lm = None if is_synthetic(science) else facts.lm(c)
    hub = {"name": lm.name, "commit": lm.path.name} if isinstance(lm, HubFolder) else None
    execution = {"source": c.activations.source, "lm_path": lm and str(lm.path), "cache_key": cached, "corpus_key": corpus,
                 "lm_device": c.lm.device, "lm_hub": hub, "documents": lm and documents_of(c.data),
                 "threads": c.cluster.threads, "device": c.cluster.device, "kernels": c.cluster.kernels,
                 "checkpoint_s": c.cluster.checkpoint_s, "log_every_tokens": c.cluster.log_every_tokens}
    return PlannedRun(*identity.names_of_canonical(science), (cell.grid,), c.budget.flops, science, execution)


def _in_both(a: PlannedRun, b: PlannedRun) -> PlannedRun:
    """The same run wanted by two grids is one run."""
    grids = tuple(dict.fromkeys(a.grids + b.grids))
    return PlannedRun(a.run_id, a.trunk_id, grids, a.target_flops if a.target_flops is not None else b.target_flops,
                      a.science, a.execution)


def far_from_optimum(c: conf.Config, around: Mapping[str, float]) -> str | None:
    """The reason a size is left out of its budget's valley, or None. Only budgets have a valley."""
    if not around or c.budget.flops is None:
        return None
    expected = around["n_latents"] * (c.budget.flops / around["flops"]) ** around["power"]
    if max(expected / c.sae.n_latents, c.sae.n_latents / expected) <= around["factor"]:
        return None
    return f"more than a factor {around['factor']:g} from the {expected:.0f} latents expected at this budget"


def why_excluded(c: conf.Config, science: Mapping[str, Any], available: int) -> str | None:
    """The reason a grid point is left out, or None."""
    t = science["train"]
    steps = t["n_tokens"] // t["batch_tokens"]
    if t["n_tokens"] > available:
        return f"needs {t['n_tokens'] / 1e6:.2f}M tokens, one epoch has {available / 1e6:.2f}M"
    if steps < c.budget.min_steps:
        return f"{steps} steps, fewer than budget.min_steps={c.budget.min_steps}"
    if t["n_tokens"] < c.budget.min_warmups * t["lr_warmup_tokens"]:
        return (f"{t['n_tokens']} tokens, less than budget.min_warmups={c.budget.min_warmups:g} times the warm-up of "
                f"{t['lr_warmup_tokens']}")
    if c.budget.flops is not None:
        got = flops_dense(science["lm"]["d_in"], science["sae"]["n_latents"], t["n_tokens"])
        error = got / c.budget.flops - 1
        if abs(error) > c.budget.tolerance:
            return f"misses its budget by {error:+.1%} with whole steps, more than budget.tolerance={c.budget.tolerance:g}"
    return None


def asked(sweep: Sweep) -> str:
    """Hash of what a plan is made from: the sweep as read, the overrides, conf/, and the version."""
    return identity.digest({"schema": SCHEMA, "version": saescale.__version__, "sweep": repr(sweep),
                            "conf": [[str(p), file.read_text()] for p, file in folders.files("conf").items()]})


def saved_runs(sweep: Sweep, store: Store) -> tuple[PlannedRun, ...] | None:
    """The runs of plan.json while the sweep and conf/ still say the same; None when it has to be made again.

    They lack their execution blocks: enough to say where they stand.
    """
    found = read_json(store.sweep_dir(sweep.folder_name) / "plan.json")
    if not isinstance(found, dict) or found.get("asked") != asked(sweep):
        return None
    return tuple(PlannedRun(r["run_id"], r["trunk_id"], tuple(r["grids"]), r["target_flops"], r["science"], {},
                            r["tokens_per_s"])
                 for r in found["runs"])


def save(plan: Plan, store: Store) -> Path:
    """plan.json, a run per line: the encoder's own indentation takes a second for ten thousand."""
    path = store.sweep_dir(plan.sweep.folder_name) / "plan.json"
    said = plan.to_json()
    runs = ",\n  ".join(json.dumps(r, allow_nan=False) for r in said.pop("runs"))
    head = json.dumps(said, indent=1, allow_nan=False).removesuffix("\n}")
    write_text(path, f'{head},\n "runs": [\n  {runs}]\n}}\n')
    return path
