"""Shared by the whole suite: a small project whose plan takes well under a second and whose harvest is small."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from saescale import cli
from saescale.activations.text import python_stdlib

PACKAGES = ("email/", "http/", "json/", "logging/")
LONGEST = 40_000  # characters; leaves about 40 documents
SWEEP = """\
question: How small may a sweep be?
base: [lm=bundled, data=text_files, sae=topk, train=small, cluster=inprocess]
set:
  data.path: {documents}
  data.batch_sequences: 8
  data.n_ctx: 64
  data.held_out_fraction: 0.2
  train.lr_warmup_tokens: 512
  eval.n_tokens: 2048
  eval.ce_tokens: 512
  budget.min_steps: 10
by_kind:
  topk: {{sae.k: 4}}
  relu_l1: {{sae.sparsity_coeff: 5.0}}
grids:
  isoflop:
    sae.n_latents: [16, 32]
    budget.flops: [4.0e8, 8.0e8]
    seed: [0, 1]
"""

SIX = """\
question: Can a few runs be fitted?
base: [lm=bundled, data=text_files, sae=topk, train=small, cluster=inprocess]
set: {data.path: {documents}, data.batch_sequences: 8, data.n_ctx: 64, train.lr_warmup_tokens: 512, budget.min_steps: 1, sae.k: 4,
      budget.min_warmups: 0}
grids:
  isoflop:
    sae.n_latents: [8, 16, 32, 64, 128]
    budget.flops: [2.0e8, 4.0e8, 8.0e8, 1.6e9]
    seed: [0, 1]
"""


@dataclass(frozen=True)
class Project:
    """`root`: the working directory, with sweeps/tiny.yaml; `documents`: its texts; `store`: where its runs go."""

    root: Path
    documents: Path

    @property
    def store(self) -> Path:
        return self.root / "runs"

    def sweep(self, name: str, text: str) -> None:
        """Write sweeps/<name>.yaml; `{documents}` in `text` stands for the folder of documents."""
        (self.root / "sweeps" / f"{name}.yaml").write_text(text.replace("{documents}", str(self.documents)))


@pytest.fixture(scope="session")
def small_documents(tmp_path_factory) -> Path:
    """A folder of about 40 documents (0.5 MB): the standard library's email, http, json and logging packages."""
    folder = tmp_path_factory.mktemp("documents")
    for d in python_stdlib():
        if d.name.startswith(PACKAGES) and len(d.text) <= LONGEST:
            (folder / d.name.replace("/", "-")).write_text(d.text, encoding="utf-8")
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch, small_documents) -> Project:
    """A working directory with sweeps/tiny.yaml: 8 small topk runs on the bundled model, one worker, in-process.

    conf/ is the repository's own (there is none in the directory). Runs go to ./runs unless --store says otherwise.
    """
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "tiny.yaml").write_text(SWEEP.format(documents=small_documents))
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, small_documents)


@pytest.fixture
def saescale(monkeypatch, capsys):
    """Runs the door as a terminal does: gives exit code, standard output, standard error."""
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["saescale", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as e:
            code = e.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err
    return call


@pytest.fixture
def eight(project):
    """The small project with its 8 planned runs and their records."""
    record(project)
    return project


@pytest.fixture
def six(project):
    """The small project with 40 planned runs, enough to fit, and their records."""
    project.sweep("tiny", SIX)
    record(project)
    return project


def record(project: Project) -> None:
    """Plan the project's sweep and write records that follow a law, without training anything."""
    from saescale.campaign.plan import make_plan, save
    from saescale.campaign.sweep import load
    from saescale.identity import fingerprint
    from saescale.records.store import Store, write_json

    store = Store(project.store)
    plan = make_plan(load("tiny"), store)
    save(plan, store)
    rng = np.random.default_rng(0)
    for run in plan.runs:
        n, d = run.science["sae"]["n_latents"], run.science["train"]["n_tokens"]
        y = (0.1 + 3 * n**-0.6 + 300 * d**-1.0) * math.exp(rng.normal(0, 0.01))
        write_json(store.run_dir(run.run_id) / "result.json", {
            "schema": 1, "run_id": run.run_id, "trunk_id": run.trunk_id, "fingerprint": fingerprint(run.science),
            "science": run.science, "metrics": {"objective": y, "fvu": y, "l0": 4.0, "n_held_out_tokens": 2048}, "n_tokens": d,
            "flops": {"flops_dense": run.flops_dense}})  # fmt: skip
