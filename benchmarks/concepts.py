"""The concepts study in one command: sweeps/concepts.yaml and concepts_words.yaml, their forecasts, splitting and steering.

    python -m benchmarks.concepts lm=/path/to/stories260K data.path=/path/to/stories --out results/concepts [--store runs]

Trains and scores through the door (what is finished is kept), holds prediction.json and prediction_words.json of --out, which
were written before the largest sizes were trained, against what came, and writes scores, fits, tables, splitting and steering of
all seeds, and the figures. An hour on one core from nothing; a few minutes where the runs are there.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from analysis import figures
from analysis.figures.steering import ARMS, chosen_effect
from saescale import across, screen
from saescale.campaign.sweep import load
from saescale.records import concepts
from saescale.records.store import Store, read_json, write_json

SWEEPS = {"concepts": "", "concepts_words": "_words"}  # name -> what its files are called after
FIGURES = ("concept_presence", "concept_collapse", "concept_f50", "concept_strip")
N_STEERED = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="the model and the text, as for saescale launch")
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("results/concepts"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for sweep, suffix in SWEEPS.items():
        for verb in ("launch", "concepts", "collect", "fit", "figures"):
            through_the_door(verb, sweep, asked)
        folder = asked.store / load(sweep, asked.overrides).folder_name
        for name in ("concepts.parquet", "table.csv", "fits.json"):
            shutil.copyfile(folder / name, asked.out / Path(name).with_stem(Path(name).stem + suffix))
        for name in FIGURES:
            shutil.copyfile(folder / f"report/figures/{name}.png", asked.out / f"{name}{suffix}.png")
        forecast, outcome = (asked.out / f"{name}{suffix}.json" for name in ("prediction", "verification"))
        outcome.unlink(missing_ok=True)
        through_the_door("verify", sweep, asked, "--json", str(outcome), before=(str(forecast),))
    latents(asked)


def through_the_door(verb: str, sweep: str, asked: argparse.Namespace, *more: str, before: Sequence[str] = ()) -> None:
    words = [verb, *before, sweep, *asked.overrides, "--store", str(asked.store), *more]
    subprocess.run([sys.executable, "-m", "saescale.cli", *words], check=True,
                   stdout=None if verb == "verify" else subprocess.DEVNULL)  # fmt: skip


def latents(asked: argparse.Namespace) -> None:
    """Splitting and steering of every seed's dictionaries, and both over seeds."""
    store = Store(asked.store.absolute())
    folder = store.sweep_dir(load("concepts", asked.overrides).folder_name)
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
    splitting_table(split).to_csv(asked.out / "splitting.csv", index=False, float_format="%.4g")
    figures.write("splitting", asked.out, split[0])
    together = over_seeds(steered)
    write_json(asked.out / "steering.json", together)
    steering_table(together).to_csv(asked.out / "steering.csv", index=False, float_format="%.4g")
    figures.write("steering", asked.out, together)


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
