"""How close to its name a concept's latent fires, by how strongly: trained, untrained and coordinates, graded by string match.

    python -m benchmarks.rubric lm=/path/to/stories260K data.path=/path/to/stories [--sizes 512,2048,8192] [--store runs]

Needs `saescale launch concepts` and `saescale concepts concepts` with the same overrides. The latent of each concept was chosen
on one half of the training documents; grades are taken on held-out documents, which chose nothing. Writes rubric.json into the
sweep's folder, where `saescale figures` and `publish` find it; a minute. Nobody read a context: measure/rubric.py says what a
grade means.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saescale.activations.words import vocabulary_of
from saescale.campaign.recorded import read
from saescale.campaign.sweep import load
from saescale.looking import subject
from saescale.measure.asked import Text
from saescale.measure.concepts import Dictionary, coordinates
from saescale.measure.rubric import GRADES, LEVELS, Graded, grade, grades, strengths
from saescale.measure.subject import Subject
from saescale.records import concepts
from saescale.records.store import Store, write_json

SWEEP = "concepts"
SIZES = (512, 2048, 8192)
MIN_OCCURRENCES = 3  # of a name in the held-out text
DRAWS = 2000
KINDS = ("trained", "untrained", "neurons")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="the model and the text, as for saescale launch")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--store", type=Path, default=Path("runs"))
    asked = parser.parse_args()
    store = Store(asked.store.absolute())
    found = measure(store, store.sweep_dir(load(SWEEP, asked.overrides).folder_name), [int(n) for n in asked.sizes.split(",")])
    for row in found["rows"]:
        if row["level"] in (0, LEVELS - 1):
            print("{dictionary} {n_latents}, level {level}: at the name {at_name:.0%} [{0:.0%}, {1:.0%}]".format(
                *row["at_name_interval"], **row), flush=True)  # fmt: skip


def measure(store: Store, folder: Path, sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """Grade the latents of the dictionaries of these sizes, and the coordinates'; writes and gives rubric.json of the sweep."""
    table = concepts.read(folder).table
    rows = table[table["dictionary"].isin(KINDS) & (table["n_latents"].isin(sizes) | (table["dictionary"] == "neurons"))]
    first = subject(store, read(store, rows.loc[rows["dictionary"] == "trained", "run_id"].iloc[0]))
    names, graded = held_out(first, sorted(set(rows["concept"])))
    found = {"schema": 1, "sweep": SWEEP, "grades": list(GRADES), "levels": LEVELS, "text": first.said, "n_concepts": len(names),
             "rows": []}  # fmt: skip
    for (kind, size), part in rows.groupby(["dictionary", "n_latents"], sort=False):
        graded_by_run = [of_run(first, kind, one, names, graded) for _, one in part.groupby("run_id")]
        found["rows"] += summary(kind, int(size), graded_by_run)
    write_json(folder / "rubric.json", found)
    return found


def held_out(one: Subject, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """(the names that occur often enough in the held-out text, int8 [name, token] their grades)."""
    flat = one.tokens.flat(one.n_batches)
    text = Text.of(flat.ids, flat.sequences, vocabulary_of(one.folder.path))
    found = text.find(names)
    kept = np.flatnonzero(found.count >= MIN_OCCURRENCES)
    return [names[i] for i in kept], np.stack([grades(found, i, flat.documents, flat.sequences) for i in kept])


def of_run(first: Subject, kind: str, rows: pd.DataFrame, names: list[str], graded: np.ndarray) -> Graded:
    """The grades of one dictionary's latents of these names; a name without a latent fires nowhere."""
    if kind == "neurons":
        one, dictionary = first, coordinates(mean_of(first))
    else:
        one = subject(first.store, read(first.store, rows["run_id"].iloc[0]))
        sae = one.sae if kind == "trained" else one.untrained()
        dictionary = Dictionary(sae.encode_pairs, sae.n_latents)
    latent = rows.drop_duplicates("concept").set_index("concept")["latent"].reindex(names).to_numpy(np.int64)
    strength = strengths(dictionary, np.maximum(latent, 0), one.blocks())
    strength[latent < 0] = 0.0
    return grade(strength, graded)


def mean_of(one: Subject) -> Any:
    """float32 [d_in]: the mean activation, about which a coordinate is up or down."""
    blocks = list(one.blocks())
    return sum(x.sum(0) for x in blocks) / sum(len(x) for x in blocks)


def summary(kind: str, size: int, runs: list[Graded]) -> list[dict[str, Any]]:
    """A row per level: the mean over concepts (each the mean of its seeds) of the share of each grade, with a 95 % interval over
    concepts, and in how many of them the level occurs."""
    shares, count = np.stack([run.share for run in runs]), np.sum([run.count for run in runs], axis=0)
    seen = ~np.isnan(shares)
    share = np.where(seen, shares, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    rng, out = np.random.default_rng(0), []
    for level in range(LEVELS):
        here = share[count[:, level] > 0, level]
        if not len(here):
            continue
        at_least = np.cumsum(here, axis=1)  # grade 3, 2 or better, 1 or better
        drawn = at_least[rng.integers(0, len(here), (DRAWS, len(here)))].mean(axis=1)
        ends = np.quantile(drawn, (0.025, 0.975), axis=0)
        row = {"dictionary": kind, "n_latents": size, "seeds": len(runs), "level": level, "n_concepts": len(here),
               "n_firings": int(count[:, level].sum())}  # fmt: skip
        for i, name in enumerate(("at_name", "near", "in_document")):
            row |= {name: float(at_least[:, i].mean()), f"{name}_interval": [float(end) for end in ends[:, i]]}
        out.append(row)
    return out


if __name__ == "__main__":
    main()
