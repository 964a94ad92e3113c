"""What a fleet holds in memory, measured in a process of its own."""

import subprocess
import sys

import pytest

FLEET = """
import sys, torch
from pathlib import Path
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable
from saescale.training.checkpoint import Checkpoint, write

def resident(field):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(field))

def member(n_latents, seed):
    return Trainable.create(SAESpec("topk", 256, n_latents, k=16), seed, InputSample.of(x[:512]))

torch.set_num_threads(1)
x = torch.randn(512, 256)
member(512, 0).step(x, 1e-3)
open("/proc/self/clear_refs", "w").write("5")
before = resident("VmRSS")
block = torch.randn(16384, 256)
fleet = [member(n, seed) for n in (2048, 4096, 8192) for seed in (0, 1, 2)]
for trainable in fleet:
    for i in range(2):
        trainable.step(block[512 * i:512 * (i + 1)], 1e-3)
for name in "ab":
    states = {str(i): t.state_dict() for i, t in enumerate(fleet)}
    write(Path(sys.argv[1]), "t", Checkpoint(2, dict.fromkeys(states, 2), states), is_end=False)
needed = sum(16 * len(t.params) for t in fleet) + 4 * block.numel()
print((resident("VmHWM") - before) / needed)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_fleet_that_trains_and_is_checkpointed_stays_within_its_weights_gradients_moments_and_one_block(tmp_path):
    done = subprocess.run([sys.executable, "-c", FLEET, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.1, done.stdout  # gradients are shared, and nothing is copied to be saved
