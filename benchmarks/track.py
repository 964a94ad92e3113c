"""What tracking costs training: python -m benchmarks.track [--rounds 3]

The same launch with track=off and track=offline, taking turns, each into a fresh store. Two workers of one thread train: on two
cores the mirror has none of its own, the worst case for it. Compared are the time inside training steps (`wall_s` of the records,
summed), from the start to the end of the training jobs, of the whole launch, which also waits for the mirror's end, and the
processor time of all processes together, which says more than the others where the machine is busy.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SWEEP = """\
question: What does tracking cost?
base: [activations=synthetic, sae=topk, train=small, cluster=local]
set: {{activations.d_in: 128, activations.n_features: 1024, activations.n_tokens: 4_194_304, sae.k: 16, train.batch_tokens: 1024,
      train.n_tokens: {tokens}, budget.min_steps: 10, cluster.workers: 2, cluster.threads: 1, cluster.log_every_tokens: 16384,
      eval.n_tokens: 4096}}
grids:
  grid:
    sae.n_latents: [512, 1024]
    seed: {seeds}
"""


def launch(root: Path, track: str) -> dict[str, float]:
    """One launch in a store of its own; the seconds it took, by what is counted."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        begun, busy = time.perf_counter(), processor_s()
        done = subprocess.run([sys.executable, "-m", "saescale.cli", "launch", "cost", f"track={track}", "--store", folder],
                              cwd=root, capture_output=True, text=True)
        launched = time.perf_counter() - begun
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        store = Path(folder)
        jobs = [p.parent for p in store.glob("jobs/train-*/attempts/*/exit.json")]
        began = min(json.loads((j / "start.json").read_text())["started"] for j in jobs)
        ended = max(json.loads((j / "exit.json").read_text())["ended"] for j in jobs)
        results = [json.loads(p.read_text()) for p in store.glob("by-id/*/result.json")]
        rows = sum(len(p.read_text().splitlines()) for p in store.glob("by-id/*/metrics.jsonl"))
        return {"steps_s": sum(r["wall_s"] for r in results), "jobs_s": ended - began, "launch_s": launched,
                "processor_s": processor_s() - busy, "runs": len(results), "rows": rows}


def processor_s() -> float:
    """Of all processes this one has started and waited for, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--tokens", type=int, default=524_288)
    asked.add_argument("--seeds", type=int, default=8)
    a = asked.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "sweeps").mkdir()
        (root / "sweeps" / "cost.yaml").write_text(SWEEP.format(tokens=a.tokens, seeds=list(range(a.seeds))))
        found: dict[str, list[dict[str, float]]] = {"off": [], "offline": []}
        for k in range(a.rounds):
            for track in ("off", "offline") if k % 2 == 0 else ("offline", "off"):
                found[track].append(launch(root, track))
                print(json.dumps({"round": k, "track": track} | found[track][-1]), flush=True)
    for name in ("steps_s", "jobs_s", "launch_s", "processor_s"):
        off, on = ([r[name] for r in found[track]] for track in ("off", "offline"))
        print(f"{name:11} off {statistics.median(off):7.2f}  offline {statistics.median(on):7.2f}  "
              f"ratio of medians {statistics.median(on) / statistics.median(off):.3f}, of the best {min(on) / min(off):.3f}")


if __name__ == "__main__":
    main()
