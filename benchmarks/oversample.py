"""Presence at a fixed model frequency: sweeps/oversample.yaml with two mixes of the same text, and what came of it.

    python -m benchmarks.oversample lm=/path/to/stories260K data.path=/path/to/stories --out results/oversample [--store runs]

Trains three dictionaries on each mix through the door (what is finished is kept), scores the same words in all of them, and
writes oversample.json, the scores as oversample.parquet, and the figure. Some six minutes on one core.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd

from analysis import figures
from analysis.oversampled import compare
from saescale.campaign.sweep import load
from saescale.records import concepts
from saescale.records.store import write_json

SWEEP = "oversample"
OTHER = ("backyard", "bucket", "juice", "hair", "town", "lake", "kite", "pond", "Mary", "cake", "mouse")
TAUS = (0.5, 0.3, 0.7)
KEPT = ["run_id", "dictionary", "seed", "category", "concept", "count", "frequency", "score"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="the model and the text, as for saescale launch")
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("results/oversample"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    first = list(load(SWEEP).shared["data.oversample"])
    frames = [scored([], asked), scored([f"data.oversample=[{','.join(OTHER)}]"], asked)]
    found = compare(frames, [first, list(OTHER)], TAUS)
    record = {"schema": 1, "sweep": SWEEP, "named": [first, list(OTHER)], "taus": list(TAUS), **found}
    write_json(asked.out / "oversample.json", record)
    table = pd.concat([frame.assign(mix=mix) for mix, frame in zip("AB", frames, strict=True)], ignore_index=True)
    table[[*KEPT, "mix"]].to_parquet(asked.out / "oversample.parquet", engine="pyarrow", index=False)
    figures.write(SWEEP, asked.out, record)
    for row in found["rho"]:
        if row["rho"] is not None:
            print("{dictionary} F1 >= {tau:g}: rho {rho:.2f} [{0:.2f}, {1:.2f}], between {between:.2f}".format(
                *row["rho_interval"], **row), flush=True)  # fmt: skip


def scored(mix: list[str], asked: argparse.Namespace) -> pd.DataFrame:
    """The concept scores of one mix at the text's prevalence, through the door."""
    overrides = [*mix, *asked.overrides]
    for verb in ("launch", "concepts"):
        subprocess.run([sys.executable, "-m", "saescale.cli", verb, SWEEP, *overrides, "--store", str(asked.store)], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
    return concepts.read(asked.store / load(SWEEP, overrides).folder_name).at_text_prevalence().table


if __name__ == "__main__":
    main()
