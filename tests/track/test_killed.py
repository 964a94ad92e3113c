"""Real training, killed with kill -9 together with everything around it, gone on with, and sent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from test_mirror import inspected, shown, without_clock

from saescale.records.store import Store, read_json, read_lines

pytestmark = pytest.mark.wandb
LONG = """\
question: Does a killed launch lose a row?
base: [activations=synthetic, sae=topk, train=small, cluster=local]
set: {activations.d_in: 64, activations.n_features: 128, activations.n_tokens: 4_194_304, sae.k: 8, train.batch_tokens: 512,
      train.n_tokens: 1_048_576, budget.min_steps: 10, cluster.workers: 1, cluster.threads: 1, cluster.log_every_tokens: 32768,
      cluster.checkpoint_s: 1.0, eval.n_tokens: 2048}
grids: {grid: {sae.n_latents: [256], seed: [0, 1]}}
"""


def test_a_launch_killed_in_the_middle_is_whole_in_wandb_after_resume_and_sync(project, saescale, server, monkeypatch):
    project.sweep("tiny", LONG)
    key = os.environ["WANDB_API_KEY"]
    monkeypatch.delenv("WANDB_API_KEY")  # asked for, and tracked offline
    launched = subprocess.Popen([sys.executable, "-m", "saescale.cli", "launch", "tiny", "track=wandb"], cwd=project.root,
                                start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    status = project.store / "tiny" / "track" / "mirror-launch.json"
    deadline = time.monotonic() + 120
    while not (status.exists() and (said := read_json(status)) and said["sent"] >= 6):
        assert time.monotonic() < deadline and launched.poll() is None
        time.sleep(0.05)
    os.killpg(said["pid"], signal.SIGKILL)
    os.killpg(launched.pid, signal.SIGKILL)
    launched.wait()
    done_early = list(project.store.glob("by-id/*/result.json"))
    code, out, _ = saescale("launch", "tiny", "track=wandb")
    assert code == 0 and "no wandb key" in out and not done_early and not server.asked
    monkeypatch.setenv("WANDB_API_KEY", key)
    assert saescale("sync", "tiny")[0] == 0
    for run in read_json(project.store / "tiny" / "plan.json")["runs"]:
        rows = read_lines(project.store / "by-id" / run["run_id"] / "metrics.jsonl")
        assert len(rows) == 32
        arrived = server.runs[f"tiny-{run['run_id']}"]
        assert without_clock(arrived.rows) == shown(rows) and arrived.overwritten == 0 and arrived.exit_code == 0
        assert without_clock(inspected(Store(project.store), f"tiny-{run['run_id']}")[0]) == shown(rows)
