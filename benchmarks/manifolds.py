"""The allocation model against trained dictionaries: sweeps/manifolds.yaml, and how its dictionaries divided their latents.

    python -m benchmarks.manifolds --out results/manifolds [--store runs]

Trains the sweep through the door (what is finished is kept), counts the latents each dictionary spends on each feature, divides
as many by the model's exact solution (analysis.tiling), writes manifolds.json (exponents, runs, latents by feature) into the
sweep's folder and publishes it. Some five minutes on one core from nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.tiling import divide, left_on_sphere
from benchmarks.door import publish, through_the_door
from saescale.activations.synthetic import Truth, truth
from saescale.measure.recovery import latents_per_feature
from saescale.records.store import Store, read_json, write_json
from saescale.sae import export

SWEEP = "manifolds"
QUANTILES = (0.025, 0.975)
LARGEST = 257  # latents one feature may want
SHOWN = 100  # features, by rank, whose latents are written out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("results/manifolds"))
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    words = [SWEEP, f"cluster.workers={asked.workers}"]
    through_the_door(("launch", "collect"), words, asked.store)
    store = Store(asked.store.absolute())
    plan = read_json(store.sweep_dir(SWEEP) / "plan.json")
    rows, latents = divided(store, plan)
    found = {"schema": 1, "sweep": SWEEP, "failed": missing(store, plan), **summary(rows), "latents": latents,
             "runs": rows.drop(columns="run_id").astype(object).where(rows.notna(), None).to_dict("records")}
    write_json(store.sweep_dir(SWEEP) / "manifolds.json", found)
    publish(words, asked.store, asked.out, "python -m benchmarks.manifolds")
    for block in found["exponents"]:
        print(line(block), flush=True)


def missing(store: Store, plan: dict[str, Any]) -> list[str]:
    return [run["run_id"] for run in plan["runs"] if read_json(store.run_dir(run["run_id"]) / "result.json") is None]


def divided(store: Store, plan: dict[str, Any]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """A row per finished run; of each regime, size and horizon the latents on each feature, measured (mean of seeds) and best."""
    known, rows, counts = {}, [], {}
    for run in plan["runs"]:
        result = read_json(store.run_dir(run["run_id"]) / "result.json")
        if result is None:
            continue
        a = result["science"]["activations"]
        if a["zipf_exponent"] not in known:
            known[a["zipf_exponent"]] = truth(result["science"]), left_on_sphere(a["manifold_dim"], LARGEST)
        row, spent, best = one(store.run_dir(run["run_id"]), result, *known[a["zipf_exponent"]])
        rows.append(row)
        counts.setdefault((row["zipf_exponent"], row["n_latents"], row["n_tokens"]), []).append((spent, best))
    latents = [{"zipf_exponent": s, "n_latents": n, "n_tokens": tokens,
                "rates": [float(f"{p:.6g}") for p in known[s][0].rates[:SHOWN]],
                "measured": np.mean([spent for spent, _ in found], axis=0)[:SHOWN].round(3).tolist(),
                "best": found[0][1][:SHOWN].tolist()}
               for (s, n, tokens), found in sorted(counts.items())]  # fmt: skip
    table = pd.DataFrame(rows).sort_values(["zipf_exponent", "n_tokens", "n_latents", "seed"], ignore_index=True)
    return table, latents


def one(folder: Path, result: dict[str, Any], features: Truth, left: np.ndarray) -> tuple[dict, np.ndarray, np.ndarray]:
    """(row of the table, latents it spent on each feature, the best division of as many)."""
    science = result["science"]
    alive = np.load(folder / "first_fired.npy") >= 0
    spent = latents_per_feature(export.load(folder).W_dec[alive], features)
    best = divide(features.rates, left, science["sae"]["n_latents"])
    row = {"run_id": result["run_id"], "zipf_exponent": science["activations"]["zipf_exponent"],
           "n_latents": science["sae"]["n_latents"], "n_tokens": science["train"]["n_tokens"], "seed": science["train"]["seed"],
           "n_alive": int(alive.sum()), "fvu": result["metrics"]["fvu"], "fvu_best": best.loss,
           "discovered": int((spent > 0).sum()), "discovered_best": best.discovered,
           "most": int(spent.max()), "most_best": int(best.latents.max()), "unassigned": int(alive.sum() - spent.sum()),
           "spent_exponent": spent_exponent(spent, features.rates),
           "spent_exponent_best": spent_exponent(best.latents, features.rates)}  # fmt: skip
    return row, spent, best.latents


def spent_exponent(latents: np.ndarray, rates: np.ndarray) -> float:
    """Exponent of latents per feature against rate, over features with two or more latents and rates below the ceiling; nan below
    four of them. The asymptotic optimum is 1 / (1 + beta)."""
    kept = (latents >= 2) & (rates < rates[0] * (1 - 1e-9))
    return float(np.polyfit(np.log(rates[kept]), np.log(latents[kept]), 1)[0]) if kept.sum() >= 4 else float("nan")


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    """By regime and horizon, over the sizes: exponents of the features discovered and of the loss, measured with a 95 % interval
    over seeds and of the best division."""
    out = []
    for (s, tokens), part in rows.groupby(["zipf_exponent", "n_tokens"]):
        if part["n_latents"].nunique() < 3:
            continue
        sizes = sorted(part["n_latents"].unique())
        block = {"zipf_exponent": s, "alpha": round(s - 1, 6), "n_tokens": int(tokens), "sizes": [int(n) for n in sizes],
                 "seeds": int(part["seed"].nunique())}  # fmt: skip
        for name, best in (("discovered", "discovered_best"), ("fvu", "fvu_best")):
            block[name] = _exponent(part, name) | {"best": _slope(part.groupby("n_latents")[best].first())}
        out.append(block)
    return {"exponents": out}


def _slope(values: pd.Series) -> float:
    return float(np.polyfit(np.log(values.index.to_numpy(float)), np.log(values.to_numpy(float)), 1)[0])


def _exponent(part: pd.DataFrame, name: str) -> dict[str, Any]:
    """The exponent of the mean over seeds, and a 95 % t interval over the exponents of the seeds."""
    from scipy.stats import t

    by_seed = np.array([_slope(one.set_index("n_latents")[name]) for _, one in part.groupby("seed")])
    middle, n = float(by_seed.mean()), len(by_seed)
    half = float(t.ppf(QUANTILES[1], n - 1) * by_seed.std(ddof=1) / n**0.5) if n > 1 else float("nan")
    return {"measured": middle, "interval": [middle - half, middle + half], "by_seed": [round(float(v), 4) for v in by_seed]}


def line(block: dict[str, Any]) -> str:
    parts = ["{} {:.2f} [{:.2f}, {:.2f}], best {:.2f}".format(name, block[name]["measured"], *block[name]["interval"],
                                                             block[name]["best"]) for name in ("discovered", "fvu")]  # fmt: skip
    return f"s = {block['zipf_exponent']:g}, {block['n_tokens']:,} tokens: {'; '.join(parts)}"


if __name__ == "__main__":
    main()
