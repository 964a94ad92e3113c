"""For the tests of training: a store that is harvested already, copied for each test, and one language model for all."""

import json
import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch

from saescale.activations import inputs
from saescale.campaign.choice import Choice
from saescale.campaign.launch import EVERYTHING, Outcome, launch
from saescale.campaign.plan import Plan, make_plan
from saescale.campaign.sweep import load
from saescale.records.store import Store
from saescale.training import train

HARVESTED = ("corpora", "activations")
BASE = """\
question: Are faults survived?
base: [lm=bundled, data=text_files, sae=topk, train=small, cluster=inprocess]
set:
  data.path: {documents}
  data.batch_sequences: 8
  data.n_ctx: 64
  data.held_out_fraction: 0.2
  train.batch_tokens: 128
  train.lr_warmup_tokens: 512
  train.dead_after_tokens: 4096
  eval.n_tokens: 1024
  eval.ce_tokens: 512
  budget.min_steps: 10
  cluster.checkpoint_s: 0
by_kind:
  topk: {sae.k: 4}
  relu_l1: {sae.sparsity_coeff: 1.0}
  jumprelu: {sae.sparsity_coeff: 0.3, sae.bandwidth: 0.5}
  jumprelu_tanh: {sae.sparsity_coeff: 0.3}
grids:
  grid:
    sae.n_latents: [24]
    train.n_tokens: [19_200, 38_400]
"""  # blocks of 128 steps; horizons of 150 and 300 steps fork at 120 and 240, inside a block


class Silent:
    def stage(self, *_):
        pass


@dataclass(frozen=True)
class Bed:
    """A test bed: a project with sweeps/grid.yaml and a store of its own that may be harvested already."""

    project: object
    store: Store

    def plan(self, *overrides: str) -> Plan:
        return make_plan(load("grid", overrides), self.store)

    def launch(self, *overrides: str, retry: bool = False) -> Outcome:
        return launch(self.plan(*overrides), self.store, Silent(), Choice(states=("failed",)) if retry else EVERYTHING)

    def another(self, name: str) -> "Bed":
        """The same project with a second store, harvested but otherwise empty."""
        other = Store(self.store.root.with_name(name))
        link_harvest(self.store.root, other.root)
        return Bed(self.project, other)

    def another_empty(self, name: str) -> "Bed":
        return Bed(self.project, Store(self.store.root.with_name(name)))

    def left_by(self, plan: Plan) -> dict[str, dict[str, object]]:
        """What every run of the plan left, without what tells the time."""
        return {r.run_id: left_by_run(self.store.run_dir(r.run_id)) for r in plan.runs}

    def checkpoints(self, run) -> Path:
        return self.store.trunk_dir(run.trunk_id) / "checkpoints"


def left_by_run(folder: Path) -> dict[str, object]:
    files = ("sae_weights.safetensors", "cfg.json", "first_fired.npy", "fire_counts.npy", "metrics.jsonl")
    result = json.loads((folder / "result.json").read_text())
    return {**{f: (folder / f).read_bytes() for f in files},
            **{k: result[k] for k in ("metrics", "science", "trunk_id", "fingerprint", "steps", "n_tokens")}}


def link_harvest(source: Path, target: Path) -> None:
    """Hard links: files of the store are replaced, never written into."""
    for name in HARVESTED:
        shutil.copytree(source / name, target / name, copy_function=os.link)


@pytest.fixture(scope="session", autouse=True)
def _one_language_model():
    with pytest.MonkeyPatch.context() as m:
        shared = cache(inputs.LanguageModel)
        m.setattr(inputs, "LanguageModel", shared)
        m.setattr(train, "LanguageModel", shared)
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="session")
def harvested(tmp_path_factory, small_documents) -> Path:
    """The root of a store with the tokenised corpus and the activations of sweeps/grid.yaml."""
    root = tmp_path_factory.mktemp("harvested")
    (root / "sweeps").mkdir()
    (root / "sweeps" / "grid.yaml").write_text(BASE.replace("{documents}", str(small_documents)))
    with pytest.MonkeyPatch.context() as m:
        m.chdir(root)
        m.setattr("saescale.campaign.launch.training_jobs", lambda *_: [])
        store = Store(root / "runs")
        launch(make_plan(load("grid"), store), store, Silent())
    return store.root


@pytest.fixture
def bare(project) -> Bed:
    """A test bed whose store is empty."""
    project.sweep("grid", BASE)
    return Bed(project, Store(project.store))


@pytest.fixture
def bed(bare, harvested) -> Bed:
    link_harvest(harvested, bare.store.root)
    return bare


@pytest.fixture(scope="session")
def undisturbed(harvested, tmp_path_factory) -> dict[str, dict[str, object]]:
    """What the runs of sweeps/grid.yaml leave when nothing happens to them."""
    with pytest.MonkeyPatch.context() as m:
        m.chdir(harvested.parent)
        bed = Bed(None, Store(tmp_path_factory.mktemp("undisturbed") / "runs"))
        link_harvest(harvested, bed.store.root)
        bed.launch()
        return bed.left_by(bed.plan())
