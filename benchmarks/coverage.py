"""How often the intervals of a sweep's laws hold the truth, on simulated tables: python -m benchmarks.coverage [--tables 40]

Tables are drawn from laws that are known: sweeps with a budget's sizes an octave or half an octave apart, ladders of learning
rates, and the presence of concepts with and without a ceiling. (benchmarks/fit.py asks the same of a law fitted to a plain
table.) Prints, for each quantity, the share of 95 % intervals that hold it and how far the estimate is off on average. Some ten
minutes on one core.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.estimate import fit
from analysis.isoflops import isoflop
from analysis.presence import fit_presence
from analysis.presence_reach import reach
from analysis.rates import ladder

D_IN, BUDGETS = 128, tuple(6.25e9 * 4.0 ** np.arange(5))
E, A, ALPHA, B, BETA, C = 0.0105, 2.217, 0.57, 142.0, 1.03, 0.53  # L = E + A n^-alpha + B n^c T^-beta
Q, F50 = 1.2, 0.5 / 1024  # f50 = F50 (n_alive / 1024)^-Q
Found = tuple[str, float, tuple]  # quantity, truth, (estimate, lo, hi)


def best_size(flops: float) -> float:
    return (ALPHA * A / ((BETA + C) * B) * (flops / (12 * D_IN)) ** BETA) ** (1 / (ALPHA + BETA + C))


def sweep(rng: np.random.Generator, ratio: float, seeds: int, noise: float) -> pd.DataFrame:
    """Points of a sweep: seven or more sizes around each budget's best, `noise` in ln loss of every run."""
    rows, half = [], round(3 * math.log(2) / math.log(ratio)) if ratio > 1.9 else 4
    for flops in BUDGETS:
        middle = round(math.log(best_size(flops)) / math.log(ratio))
        for n in np.round(ratio ** np.arange(middle - half, middle + half + 1.0)):
            d = flops / (12 * D_IN * n)
            loss = (E + A * n**-ALPHA + B * n**C * d**-BETA) * np.exp(rng.normal(0, noise, seeds))
            rows += [{"N": n, "D": d, "C": flops, "loss": y, "trunk": f"{n}-{s}"} for s, y in enumerate(loss)]
    return pd.DataFrame(rows)


def of_sweep(seed: int, draws: int, ratio: float) -> Iterator[Found]:
    points = sweep(np.random.default_rng(seed), ratio, 2, 0.01)
    valleys = isoflop(points, scale="ln_loss", sizes=5, cluster="trunk", draws=draws, seed=seed)
    share = BETA / (ALPHA + BETA + C)
    for budget in valleys.budgets:
        if budget["N"]:
            yield "ln N of a valley", 0.0, tuple(np.log(np.array(ends(budget["N"])) / best_size(budget["flops"])))
    if valleys.lines:
        yield "exponent by the valleys", share, ends(valleys.exponent("N"))
    surface = fit("nd_interaction", points, cluster="trunk", draws=draws, seed=seed)
    for name, truth in {"E": E, "alpha": ALPHA, "beta": BETA, "c": C, "a": share}.items() if surface.intervals else ():
        yield f"{name} of the surface", truth, ({**surface.params, **surface.derived}[name], *surface.intervals[name])


def of_ladder(seed: int, draws: int, seeds: int, off: float) -> Iterator[Found]:
    """Five budgets, five rates; `off`: scatter of a budget's own best rate (ln) around the line."""
    rng, rows = np.random.default_rng(seed), []
    for i, flops in enumerate(BUDGETS):
        best = 3e-3 * (flops / BUDGETS[2]) ** -0.35 * math.exp(off * rng.normal())
        for lr in 3e-3 * 2.0 ** (np.arange(-2, 3) + round(math.log2(best / 3e-3))):
            loss = 0.1 * np.exp(0.15 * math.log(lr / best) ** 2 + rng.normal(0, 0.01, seeds))
            rows += [{"budget": flops, "C": flops, "N": 256.0 * 2**i, "D": 1e6, "lr": lr, "seed": s, "loss": y}
                     for s, y in enumerate(loss)]  # fmt: skip
    yield "exponent of the best rate", -0.35, ends(ladder(pd.DataFrame(rows), draws, seed)["exponent"])


def of_presence(seed: int, draws: int, lapse: float) -> Iterator[Found]:
    """300 concepts in four sizes; each is never present with the chance `lapse`."""
    rng, sizes = np.random.default_rng(seed), (256, 512, 1024, 2048)
    ln_f, never = rng.uniform(-10, -4.4, 300), rng.random(300) < lapse
    frame = pd.DataFrame([
        {"run_id": f"r{n}", "dictionary": "trained", "n_latents": n, "n_alive": n, "seed": 0, "category": "a", "concept": str(i),
         "count": 100, "frequency": math.exp(f), "ambiguous": False,
         "score": float(not never[i] and rng.random() < 1 / (1 + math.exp(-2 * (f - math.log(F50) + Q * math.log(n / 1024)))))}
        for i, f in enumerate(ln_f) for n in sizes])  # fmt: skip
    fits = fit_presence(frame, draws=draws, seed=seed)
    joint, rare = fits["joint"]["trained"], math.exp(-9)
    yield "q", Q, (joint["q"], *joint["q_interval"])
    if fits["lapse"]["q"] is not None:
        yield "q beside the lapse", Q, (fits["lapse"]["q"], *fits["lapse"]["q_interval"])
    asked = ends(reach(frame, {}, rare, draws=draws, seed=seed).n_alive)
    yield "ln n_alive that e^-9 asks for", 0.0, tuple(np.log(np.array(asked, float) / (1024 * (F50 / rare) ** (1 / Q))))


def ends(record: dict) -> tuple:
    return record["estimate"], record["lo"], record["hi"]


CASES = {
    "a sweep, sizes an octave apart": (of_sweep, {"ratio": 2.0}),
    "a sweep, sizes half an octave apart": (of_sweep, {"ratio": math.sqrt(2)}),
    "a ladder of learning rates, two seeds": (of_ladder, {"seeds": 2, "off": 0.0}),
    "the same, budgets off the line by 5 %": (of_ladder, {"seeds": 2, "off": 0.05}),
    "presence of 300 concepts": (of_presence, {"lapse": 0.0}),
    "the same, a tenth never present": (of_presence, {"lapse": 0.1}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=40)
    parser.add_argument("--draws", type=int, default=150)
    asked = parser.parse_args()
    for words, (simulate, how) in CASES.items():
        found: dict[str, list] = {}
        for seed in range(asked.tables):
            for name, truth, (estimate, lo, hi) in simulate(seed, asked.draws, **how):
                if lo is not None and hi is not None:
                    found.setdefault(name, []).append((lo <= truth <= hi, estimate - truth))
        print(words)
        for name, results in found.items():
            held, off = np.mean(results, axis=0)
            print(f"  {name:32} {held:6.1%} of {len(results):4d} intervals hold it, off by {off:+.4f}", flush=True)


if __name__ == "__main__":
    main()
