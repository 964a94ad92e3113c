"""How long `plan` and `status` of ten thousand runs and `--help` take: python -m benchmarks.ten_thousand

Each verb is the command as typed, in a fresh process; the best of a few rounds, wall and processor time. For `status` every run
has a record, so every record is read and checked.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from saescale import identity
from saescale.records.store import Store

LIMITS_S = {"--help": 0.3, "plan": 5.0, "status": 2.0}
SWEEP = f"""\
question: How long does it take to plan ten thousand runs?
base: [activations=synthetic, sae=topk, train=small]
set: {{activations.d_in: 16, activations.n_features: 64, activations.n_tokens: 4_194_304, sae.k: 4, train.batch_tokens: 128,
      budget.min_steps: 10}}
grids:
  grid:
    sae.n_latents: {[16 + 8 * i for i in range(25)]}
    train.n_tokens: {[65_536 + 16_384 * i for i in range(20)]}
    seed: {list(range(20))}
"""


def timed(folder: Path, *arguments: str) -> tuple[float, float]:
    """(wall seconds, processor seconds) of one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "saescale.cli", *arguments], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    wall = time.perf_counter() - begun
    assert done.returncode in (0, 4), done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def write_records(store: Store) -> int:
    """A record for every run of the plan, as training would write it."""
    runs = json.loads((store.sweep_dir("many") / "plan.json").read_text())["runs"]
    for r in runs:
        folder = store.run_dir(r["run_id"])
        folder.mkdir(parents=True, exist_ok=True)
        result = {"schema": 1, "run_id": r["run_id"], "trunk_id": r["trunk_id"], "science": r["science"], "flops": {},
                  "fingerprint": identity.fingerprint(r["science"]), "metrics": {}, "n_tokens": r["science"]["train"]["n_tokens"]}
        (folder / "result.json").write_text(json.dumps(result, indent=1))
    return len(runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sweeps").mkdir()
        (folder / "sweeps" / "many.yaml").write_text(SWEEP)
        found = {"--help": [timed(folder, "--help") for _ in range(rounds)],
                 "plan": [timed(folder, "plan", "many") for _ in range(rounds)]}
        n = write_records(Store(folder / "runs"))
        found["status"] = [timed(folder, "status", "many") for _ in range(rounds)]
    print(f"{n} runs, best of {rounds}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for verb, times in found.items():
        wall, processor = min(times)
        print(f"{verb:<8} {wall:6.2f} s wall  {processor:6.2f} s processor  (limit {LIMITS_S[verb]} s)")


if __name__ == "__main__":
    main()
