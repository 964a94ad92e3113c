"""Our side of benchmarks.memory_grid: one worker's fleet, trained from an array in memory as the training loop does it."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saescale.activations.cache import input_scale, sample
from saescale.activations.inputs import PRE_BIAS_TOKENS
from saescale.activations.stream import Stream
from saescale.activations.synthetic import SyntheticSource
from saescale.campaign.fleets import fleets
from saescale.campaign.plan import PlannedRun
from saescale.door import plan_of
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable
from saescale.training.checkpoint import TRUNK
from saescale.training.fleet import Trunk, block_steps
from saescale.training.schedule import Schedule

WAIT_S = 0.2


def drawn(folder: Path, science: dict, n_tokens: int, is_first: bool) -> tuple[Tensor, InputSample]:
    """The whole training stream in its order, drawn by the first worker, read by the others; and what initialisation needs."""
    source, path = SyntheticSource(science, "train"), folder / "x.npy"
    scale = input_scale(source, science["lm"]["d_in"])
    if is_first:
        aside = folder / "aside.npy"
        np.save(aside, Stream(source, science["data"]["data_seed"], scale).read(0, n_tokens).numpy())
        aside.rename(path)
    while not path.exists():
        time.sleep(WAIT_S)
    return torch.from_numpy(np.load(path, allow_pickle=False)), InputSample.of(sample(source, PRE_BIAS_TOKENS) * scale)


def digest_of(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def train(runs: Sequence[PlannedRun], x: Tensor, about: InputSample) -> dict[str, str]:
    """All runs of a fleet; the digest of each decoder by run. Neither evaluated nor saved."""
    trunks: dict[str, Trunk] = {}
    for run in runs:
        trunk = trunks.setdefault(run.trunk_id, Trunk(run.trunk_id, run.science, {}))
        trunk.runs[run.run_id] = Schedule.of(run.science["train"])
    for trunk in trunks.values():
        trunk.start(Trainable.create(SAESpec.of(trunk.science), trunk.science["train"]["seed"], about))
    live, start, found = list(trunks.values()), 0, {}
    size = runs[0].science["train"]["batch_tokens"]
    while live:
        until = start + block_steps(size)
        block = x[start * size:until * size]
        for trunk in live:
            trunk.advance(block, start, until)
            for member in trunk.live.values():
                member.block_stats()
            for run_id in list(trunk.finished):
                found[run_id] = digest_of(trunk.live[run_id].trainable.sae.W_dec)
                trunk.drop(run_id)
            if trunk.trunk_ended:
                trunk.live.pop(TRUNK)
        live, start = [t for t in live if t.live], until
    return found


def main() -> None:
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    os.chdir(folder)
    plan, _ = plan_of("grid", [], folder / f"plan-{rank}", save_it=False)
    x, about = drawn(folder, plan.runs[0].science, max(r.science["train"]["n_tokens"] for r in plan.runs), rank == 0)
    print(json.dumps({"shape": list(x.shape)}), file=answers, flush=True)
    for line in sys.stdin:
        planned, _ = plan_of("grid", [f"train.precision={json.loads(line)['precision']}"], folder / f"plan-{rank}", save_it=False)
        print(json.dumps(train(fleets(planned.runs, planned.cluster)[rank], x, about)), file=answers, flush=True)


if __name__ == "__main__":
    main()
