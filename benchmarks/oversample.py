"""Presence at a fixed model frequency: sweeps/oversample.yaml with two mixes of the same text, and what came of it.

    python -m benchmarks.oversample lm=/path/to/stories260K data.path=/path/to/stories --out results/oversample [--store runs]

Trains three dictionaries on each mix through the door (what is finished is kept), scores the same words in all of them, writes
oversample.json into the first mix's sweep, publishes that, and puts the scores of both mixes beside it as oversample.parquet.
Some six minutes on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from analysis.oversampled import compare
from benchmarks.door import publish, through_the_door
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
    first = list(load(SWEEP).shared["data.oversample"])
    frames = [scored([], asked), scored([f"data.oversample=[{','.join(OTHER)}]"], asked)]
    found = compare(frames, [first, list(OTHER)], TAUS)
    record = {"schema": 1, "sweep": SWEEP, "named": [first, list(OTHER)], "taus": list(TAUS), **found}
    write_json(folder_of(asked.overrides, asked) / "oversample.json", record)
    publish([SWEEP, *asked.overrides], asked.store, asked.out, " ".join(["python -m benchmarks.oversample", *asked.overrides]))
    table = pd.concat([frame.assign(mix=mix) for mix, frame in zip("AB", frames, strict=True)], ignore_index=True)
    table[[*KEPT, "mix"]].to_parquet(asked.out / "oversample.parquet", engine="pyarrow", index=False)
    for row in found["rho"]:
        if row["rho"] is not None:
            print("{dictionary} F1 >= {tau:g}: rho {rho:.2f} [{0:.2f}, {1:.2f}], between {between:.2f}".format(
                *row["rho_interval"], **row), flush=True)  # fmt: skip


def scored(mix: list[str], asked: argparse.Namespace) -> pd.DataFrame:
    """The concept scores of one mix at the text's prevalence, through the door."""
    overrides = [*mix, *asked.overrides]
    through_the_door(("launch", "concepts", "collect"), [SWEEP, *overrides], asked.store)
    return concepts.read(folder_of(overrides, asked)).at_text_prevalence().table


def folder_of(overrides: list[str], asked: argparse.Namespace) -> Path:
    return asked.store / load(SWEEP, overrides).folder_name


if __name__ == "__main__":
    main()
