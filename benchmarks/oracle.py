"""The presence oracle in full: sweeps/zipf_oracle.yaml for several Zipf exponents, and what the law made of each.

    python -m benchmarks.oracle --out results/oracle [--store runs] [--exponents 0.9,1.1,1.3]

Trains dictionaries of 64 to 1,024 latents, three seeds of each, on a million tokens of 4,096 known features per exponent, labels
each twice, fits the law, publishes each exponent's study in a folder of its own (s1.1/ ...), and writes zipf.json and zipf.csv
over all of them, with the machine named. About ten minutes per exponent on one core. What was measured before is kept: delete
the store to measure again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import time
from pathlib import Path

from benchmarks.door import publish, through_the_door
from saescale.campaign.sweep import load
from saescale.records.store import write_json

SWEEP = "zipf_oracle"
KEPT = ("n_features", "q", "agreement", "coverage", "loss", "sizes")  # of fits.json's oracle
COLUMNS = ("zipf_exponent", "n_latents", "n_alive", "n_present", "ideal", "held", "cosine", "cosine_interval", "activity",
           "activity_interval", "data_limited")  # fmt: skip


def one(exponent: float, asked: argparse.Namespace) -> tuple[dict, float]:
    """(the sweep's fits, seconds until they were published) for one exponent, through the door."""
    overrides = [f"activations.zipf_exponent={exponent:g}", f"cluster.workers={asked.workers}"]
    begun = time.monotonic()
    words = [SWEEP, *overrides]
    through_the_door(("launch", "concepts", "collect"), words, asked.store)
    publish(words, asked.store, asked.out / f"s{exponent:g}", f"python -m benchmarks.oracle --exponents {exponent:g}")
    folder = asked.store / load(SWEEP, overrides).folder_name
    return json.loads((folder / "fits.json").read_text()), time.monotonic() - begun


def summary(exponent: float, fits: dict) -> dict:
    """What the page quotes of one exponent."""
    found = fits["oracle"]
    controls = {kind: fits["presence"]["joint"][kind]["q"] for kind in ("untrained", "permuted")}
    return {
        "zipf_exponent": exponent,
        **{key: found[key] for key in KEPT},
        "q_of_controls": controls,
        "collapse": fits["presence"]["joint"]["trained"]["collapse_clustered"],
    }


def line(found: dict) -> str:
    q = found["q"]
    by = ["{} {:.3f} [{:.3f}, {:.3f}]".format(name, q[name]["q"], *q[name]["q_interval"]) for name in ("cosine", "activity")]
    cover = ", ".join(f"{name.replace('_', ' ')} {share:.0%}" for name, share in found["coverage"].items())
    loss = found["loss"]
    exponents = ", ".join(f"{name} {loss[name]['loss']:.3f}" for name in ("measured", "model", "limit"))
    return (f"s = {found['zipf_exponent']:g}: generator q {q['generator']:.3f}, {', '.join(by)}; f50 intervals hold: {cover}; "
            f"loss exponent {exponents}")  # fmt: skip


def processor() -> str:
    cpu = Path("/proc/cpuinfo")
    said = cpu.read_text().splitlines() if cpu.is_file() else []
    names = [row.split(":", 1)[1].strip() for row in said if row.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("results/oracle"))
    parser.add_argument("--exponents", default="0.9,1.1,1.3")
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    found, seconds = [], {}
    for exponent in map(float, asked.exponents.split(",")):
        fits, took = one(exponent, asked)
        found.append(summary(exponent, fits))
        seconds[f"{exponent:g}"] = round(took)
        print(line(found[-1]), flush=True)
    machine = {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    write_json(asked.out / "zipf.json", {"machine": machine, "workers": asked.workers, "seconds": seconds, "exponents": found})
    with (asked.out / "zipf.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for block in found:
            rows.writerows([[block["zipf_exponent"], *(row[name] for name in COLUMNS[1:])] for row in block["sizes"]])


if __name__ == "__main__":
    main()
