"""The concepts study in one command: sweeps/concepts.yaml and concepts_words.yaml, their forecasts, splitting and steering.

    python -m benchmarks.concepts lm=/path/to/stories260K data.path=/path/to/stories --out results/concepts [--store runs]

Trains and scores through the door (what is finished is kept), holds prediction.json and prediction_words.json of --out, which
were written before the largest sizes were trained, against what came, measures splitting and steering of all seeds and the
rubric, and publishes both sweeps, the second in a folder beside the first. An hour on one core from nothing; a few minutes where
the runs are there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from analysis.figures.steering import ARMS, chosen_effect
from benchmarks import rubric
from benchmarks.door import publish, through_the_door
from saescale import across, screen
from saescale.campaign.sweep import load
from saescale.records import concepts
from saescale.records import latents as records
from saescale.records.store import Store, read_json, write_json

SWEEPS = {"concepts": "", "concepts_words": "_words"}  # name -> what its folder and its forecast are called after
N_STEERED = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="the model and the text, as for saescale launch")
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("results/concepts"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for sweep, suffix in SWEEPS.items():
        words = [sweep, *asked.overrides]
        through_the_door(("launch", "concepts", "collect"), words, asked.store)
        verify(asked.out / f"prediction{suffix}.json", asked.out / f"verification{suffix}.json", words, asked.store)
        if sweep == "concepts":
            store = Store(asked.store.absolute())
            folder = store.sweep_dir(load(sweep, asked.overrides).folder_name)
            latents(store, folder, asked.out)
            rubric.measure(store, folder)
        publish(words, asked.store, Path(f"{asked.out}{suffix}"), " ".join(["python -m benchmarks.concepts", *asked.overrides]))


def verify(forecast: Path, outcome: Path, words: Sequence[str], store: Path) -> None:
    """Hold the forecast against the sweep; what came is printed and written anew."""
    outcome.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "saescale.cli", "verify", str(forecast), *words, "--store", str(store), "--json",
                    str(outcome)], check=True)  # fmt: skip


def latents(store: Store, folder: Path, out: Path) -> None:
    """Splitting and steering of every seed's dictionaries: tables over seeds in `out`; in the sweep's folder what its figures
    show, which is steering over seeds, and the first seed's splitting."""
    plan, scored = read_json(folder / "plan.json"), concepts.read(folder)
    rows = scored.table[scored.table["dictionary"].isin(("trained", "untrained"))]
    somewhere_none = rows.loc[rows["latent"] < 0, "concept"]
    everywhere = rows[~rows["concept"].isin(somewhere_none)]  # so that every seed is asked about the same concepts
    split, steered = [], []
    for seed in sorted({run["science"]["train"]["seed"] for run in plan["runs"]}):
        alone = folder / f"seed{seed}"
        alone.mkdir(exist_ok=True)
        concepts.write(alone, scored.about, everywhere)
        runs = {**plan, "runs": [run for run in plan["runs"] if run["science"]["train"]["seed"] == seed]}
        wanted = {"n_concepts": N_STEERED, "scales": None}
        with screen.progress(quiet=True) as bars:
            split.append(read_json(alone / "splitting.json") or across.split(alone, runs, store, None, bars))
            steered.append(read_json(alone / "steering.json") or across.steer_concepts(alone, runs, store, wanted, bars))
    splitting_table(split).to_csv(out / "splitting.csv", index=False, float_format="%.4g")
    write_json(folder / records.SPLITTING, split[0])
    together = over_seeds(steered)
    write_json(folder / records.STEERING, together)
    steering_table(together).to_csv(out / "steering.csv", index=False, float_format="%.4g")


def splitting_table(found: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """By pair of sizes, with 95 % t intervals over seeds: the share of novel latents, and latents per smaller one."""
    rows = []
    for i, pair in enumerate(found[0]["pairs"]):
        same = [one["pairs"][i] for one in found]
        per = [next(c["mean"] for c in p["latents_per_small"] if c["threshold"] == 0.7) for p in same]
        row = {"small": pair["small"], "large": pair["large"], "trained": pair["trained"], "seeds": len(same)}
        for name, values in (("novel", [p["novel_fraction"] for p in same]), ("per_small_at_0.7", per)):
            row |= dict(zip((name, f"{name}_lo", f"{name}_hi"), mean_and_interval(values), strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def mean_and_interval(values: Sequence[float]) -> tuple[float, float, float]:
    x = np.array(values, float)
    half = t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5 if len(x) > 1 else np.nan
    return float(x.mean()), float(x.mean() - half), float(x.mean() + half)


def over_seeds(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One steering.json whose rows are means over seeds: a concept is one observation, in however many dictionaries."""
    rows = []
    for same in zip(*(one["rows"] for one in found), strict=True):
        keys = {(row["n_latents"], row["arm"], row["concept"]) for row in same}
        assert len(keys) == 1, keys
        rows.append({key: same[0][key] for key in ("n_latents", "arm", "category", "concept")}
                    | {half: np.mean([row[half] for row in same], axis=0).round(5).tolist() for half in ("first", "second")}
                    | {"by_seed": [round(chosen_effect(row, np.array(found[0]["scales"])), 4) for row in same]})  # fmt: skip
    return {**found[0], "seeds": len(found), "rows": rows}


def steering_table(steering: dict[str, Any]) -> pd.DataFrame:
    """By size and arm: the mean over concepts of the chosen effect (mean of seeds) with a 95 % t interval over concepts; and of
    the trained arm less each other, concept by concept."""
    effect = pd.DataFrame([{"n_latents": row["n_latents"], "arm": row["arm"], "concept": (row["category"], row["concept"]),
                            "effect": float(np.mean(row["by_seed"]))} for row in steering["rows"]])  # fmt: skip
    rows = []
    for size, part in effect.groupby("n_latents"):
        by_arm = part.pivot(index="concept", columns="arm", values="effect")
        for arm in ARMS:
            gap = by_arm["trained"] - by_arm[arm]
            names = ("effect", "effect_lo", "effect_hi", "trained_less_it", "less_lo", "less_hi")
            values = (*mean_and_interval(by_arm[arm]), *mean_and_interval(gap))
            rows.append({"n_latents": size, "arm": arm, "concepts": len(by_arm), "seeds": steering["seeds"],
                         **dict(zip(names, values, strict=True))})  # fmt: skip
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
