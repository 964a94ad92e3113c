"""Jobs of several processes, with the real command line: where trunks live, what is exchanged, and what a kill leaves."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from saescale.records.store import read_json

TWO = ("cluster=local", "cluster.workers=1", "cluster.ranks=2")
MIXED = ("sae.n_latents=16,40", "train.n_tokens=19200,38400")
SHARDED = ("cluster.shard_above_gb=0",)


def start(bed, *overrides):
    return subprocess.Popen([sys.executable, "-m", "saescale.cli", "launch", "grid", *overrides, "--store", str(bed.store.root)],
                            cwd=bed.project.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


def only_job(bed):
    (folder,) = (bed.store.root / "jobs").glob("train-*")
    return json.loads((folder / "job.json").read_text())


def test_a_fleet_placed_over_two_ranks_that_share_a_live_harvest_gives_the_bits_of_one_process(bed):
    alone = bed.another("alone")
    assert alone.launch(*MIXED).exit_code == 0
    outcome = bed.launch(*MIXED, *TWO, "activations=live")
    assert outcome.exit_code == 0, outcome.messages
    assert sorted(only_job(bed)["homes"].values()) == [0, 1]
    assert bed.left_by(bed.plan(*MIXED)) == alone.left_by(alone.plan(*MIXED))
