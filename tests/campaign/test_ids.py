"""Ids of runs people have: a record is found again only under the id it was made with."""

from pathlib import Path

import pytest

from saescale import identity
from saescale.campaign.sweep import cells, load
from saescale.science import science_block

# Over facts written here, since the real corpus is the running Python's. Made before activations had three sources.
LM = {"revision": "r", "hook_name": "blocks.2.hook_resid_post", "d_in": 128}
CORPUS = {"corpus_sha256": "c", "tokenizer_sha256": "t"}


@pytest.mark.parametrize(("name", "overrides", "ids"), [
    ("demo", [], ["L2-topk-n128-k16-C5e10-s0-d6e8099709", "L2-topk-n8192-k16-C6.6e12-s0-35811e69b1"]),
    ("demo", ["sae=relu_l1", "sae.sparsity_coeff=5"],
     ["L2-relu_l1-n128-l5-C5e10-s0-51cc7019bc", "L2-relu_l1-n8192-l5-C6.6e12-s0-0eac8ff727"]),
    ("learning_rate", [], ["L2-topk-n256-k16-C2.58e10-s0-00f5d809ab", "L2-topk-n4096-k16-C6.6e12-s0-89232302d1"]),
])
@pytest.mark.parametrize("execution", [[], ["activations=live", "cluster.workers=7", "cluster.memory_gb=3"]])
def test_runs_of_the_shipped_sweeps_keep_their_ids_whatever_the_execution(monkeypatch, name, overrides, ids, execution):
    monkeypatch.chdir(Path(__file__).parents[2])
    sweep = load(name, [*overrides, *execution])
    assert sweep.folder_name == load(name, overrides).folder_name
    assert set(ids) <= {identity.run_id(science_block(c.config, LM, CORPUS)) for c in cells(sweep)}
