"""One training step, ours beside the peers': python -m benchmarks.train_step --peers ENVIRONMENT/bin/python

The contestants stay in memory (one process for each environment) and take turns: every round each takes a few steps, so that a
busy moment of the machine falls on all. A contestant's time is the median over rounds of its best step in the round.
"""

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.shape import Shape
from saescale.config import PRECISIONS

RESULTS = Path(__file__).parent / "results"
ROOFLINE = ("encoder matmul", "optimiser traffic")


class Side:
    """A worker process of one environment."""

    def __init__(self, python: str, side: str, shape: Shape) -> None:
        self.process = subprocess.Popen([python, "-m", "benchmarks.worker", side, json.dumps(asdict(shape))], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.contestants = self._answer()["contestants"]

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise ValueError(f"{self.process.args[0]} cannot run the contestants: is this the environment of setup_peers.sh?")
        return json.loads(line)

    def take(self, contestant: str, steps: int) -> dict[str, Any]:
        self.process.stdin.write(json.dumps({"contestant": contestant, "steps": steps}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(shape: Shape, peers: str | None, rounds: int, steps: int) -> dict[str, dict[str, Any]]:
    """By contestant: seconds of its best step in every round, their median, tokens/s, and our l0 at the end."""
    sides = [Side(sys.executable, "ours", shape)] + ([Side(peers, "peers", shape)] if peers else [])
    found: dict[str, dict[str, Any]] = {name: {"rounds": []} for side in sides for name in side.contestants}
    for i in range(rounds + 1):
        for side in sides:
            for name in side.contestants:
                answer = side.take(name, steps)
                if i:  # the first round warms up
                    found[name]["rounds"].append(min(answer["seconds"]))
                    found[name]["l0"] = answer["l0"]
    for side in sides:
        side.close()
    for numbers in found.values():
        numbers["seconds"] = statistics.median(numbers["rounds"])
        numbers["tokens_per_s"] = shape.batch / numbers["seconds"]
    return found


def table(shape: Shape, found: dict[str, dict[str, Any]]) -> str:
    """Tokens/s, our ratio to each in both precisions, and our share of the roofline, as Markdown."""
    ours = {p: min((n for n in found if n.startswith(f"saescale {p}")), key=lambda n: found[n]["seconds"]) for p in PRECISIONS}
    peers = [n for n in found if not n.startswith(("saescale", *ROOFLINE))]
    said = f" at l0 {found[ours['float32']]['l0']:.0f}" if shape.kind == "relu_l1" else f", k {shape.k}"
    lines = [f"## {shape.kind}{said}: d_in {shape.d_in}, {shape.n_latents} latents, batch {shape.batch}, {shape.threads} threads"]
    columns = ["", "ms per step", "range", "tokens/s", *(f"over ours, {p}" for p in PRECISIONS)]
    lines += ["", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, numbers in sorted(found.items(), key=lambda item: item[1]["seconds"]):
        low, high = min(numbers["rounds"]) * 1e3, max(numbers["rounds"]) * 1e3
        ratios = [f"{numbers['seconds'] / found[ours[p]]['seconds']:.2f} x" if name in peers else "" for p in PRECISIONS]
        lines.append(f"| {name} | {numbers['seconds'] * 1e3:.1f} | {low:.0f} to {high:.0f} "
                     f"| {numbers['tokens_per_s']:,.0f} | {' | '.join(ratios)} |")
    lines.append("")
    for p in PRECISIONS:
        floor = found[f"{ROOFLINE[0]} {p}"]["seconds"] + found[ROOFLINE[1]]["seconds"]
        lines.append(f"Roofline in {p} (encoder matmul + optimiser traffic): {floor * 1e3:.1f} ms; ours reaches "
                     f"{floor / found[ours[p]]['seconds']:.0%} of it.")
    if peers:
        fastest = min(peers, key=lambda n: found[n]["seconds"])
        ratios = [f"{found[fastest]['seconds'] / found[ours[p]]['seconds']:.2f} x in {p}" for p in PRECISIONS]
        lines.append(f"The fastest peer is {fastest}, in float32: ours is faster by {', '.join(ratios)}.")
    return "\n".join(lines)


def cpu_name() -> str:
    try:
        return re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()).group(1)
    except (OSError, AttributeError):
        return platform.processor() or platform.machine()


def file_name(benchmark: str, threads: int) -> str:
    return f"{benchmark}-{re.sub('[^a-z0-9]+', '-', cpu_name().lower()).strip('-')}-{threads}t"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="Python of the environment made by benchmarks/setup_peers.sh; without it ours alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps per round and contestant")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kinds", default="topk,relu_l1")
    asked = parser.parse_args()
    shapes = [replace(Shape(threads=asked.threads), kind=kind) for kind in asked.kinds.split(",")]
    results, tables = [], []
    for shape in shapes:
        found = measure(shape, asked.peers, asked.rounds, asked.steps)
        results.append({"shape": asdict(shape), "contestants": found})
        tables.append(table(shape, found))
        print(tables[-1], "\n", flush=True)
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / file_name("train_step", asked.threads)
    about = f"{cpu_name()}, median over {asked.rounds} rounds of the best of {asked.steps} steps, contestants taking turns."
    target.with_suffix(".json").write_text(json.dumps({"cpu": cpu_name(), "results": results}, indent=1) + "\n")
    target.with_suffix(".md").write_text("\n\n".join(["# One training step", about, *tables]) + "\n")


if __name__ == "__main__":
    main()
