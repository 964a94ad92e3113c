"""Synthetic sweeps from a law with a known optimum: L = E + A n^-a + B n^c T^-b, T = C / (12 d n)."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from analysis.tables import build_table

D_IN = 64


@dataclass(frozen=True)
class Law:
    """The interaction law measured on a 64-wide model; n_opt = (G C^b)^(1 / (a + b + c))."""

    E: float = 0.0105
    A: float = 2.217
    a: float = 0.57
    B: float = 1.42e2
    b: float = 1.03
    c: float = 0.53

    @property
    def p(self) -> float:
        return self.b / (self.a + self.b + self.c)

    @property
    def loss_exponent(self) -> float:
        return self.a * self.p

    def n_opt(self, flops: float) -> float:
        ratio = self.a * self.A / ((self.b + self.c) * self.B) * (flops / (12 * D_IN)) ** self.b
        return ratio ** (1 / (self.a + self.b + self.c))

    def loss(self, n: float, flops: float) -> float:
        return self.E + self.A * n**-self.a + self.B * n ** (self.b + self.c) * (12 * D_IN / flops) ** self.b


@dataclass(frozen=True)
class Sweep:
    """What to generate: `trunk_sd` is noise in ln L shared by all budgets of one trunk, `run_sd` noise of each run."""

    law: Law = Law()
    budgets: tuple = (6.25e9, 2.5e10, 1e11, 4e11, 1.6e12)
    sizes: tuple = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
    seeds: int = 2
    trunk_sd: float = 0.0
    run_sd: float = 0.0
    budget_sd: float = 0.0
    reach: float = 9.0
    random: int = 0


def planned_run(n: int, flops: float, seed: int) -> dict:
    """One run of plan.json as the contract has it."""
    tokens = flops / (12 * D_IN * n)
    science = {
        "lm": {"revision": "r", "hook_name": "blocks.1.hook_resid_post", "d_in": D_IN, "dtype": "float32"},
        "data": {"corpus": "synthetic", "data_seed": 0},
        "sae": {"kind": "topk", "n_latents": n, "k": 16, "sparsity_coeff": None},
        "train": {"n_tokens": max(1, round(tokens)), "batch_tokens": 256, "lr": 5e-3 * math.sqrt(1024 / n), "seed": seed},
        "eval": {"n_tokens": 65536},
    }
    return {
        "run_id": f"n{n}-C{flops:.3g}-s{seed}",
        "trunk_id": f"trunk-n{n}-s{seed}",
        "grids": ["isoflop"],
        "target_flops": flops,
        "flops_dense": flops,
        "steps": max(1, round(tokens / 256)),
        "science": science,
    }


def recorded(run: dict, loss: float) -> dict:
    """The result.json of that run."""
    metrics = {"objective": loss, "objective_se": 0.004 * loss, "fvu": loss, "fvu_se": 0.004 * loss, "mse": 60 * loss}
    metrics |= {"l0": 16.0, "l0_se": 0.0, "ce_clean": 2.0, "ce_with_sae": 2.0 + 4 * loss, "ce_zero_ablated": 6.0}
    metrics |= {"ce_recovered": 1 - loss, "ce_recovered_se": 0.002, "delta_ce": 4 * loss, "delta_ce_se": 0.01}
    metrics |= {"variance": 60.0, "n_held_out_tokens": 65536, "n_documents": 300}
    flops = {"flops_dense": run["flops_dense"], "flops_measured": run["flops_dense"] / 5, "flops_lm": 1e9}
    same = {key: run[key] for key in ("run_id", "trunk_id", "science", "steps")}
    return same | {"schema": 1, "fingerprint": "f-" + run["run_id"], "metrics": metrics, "flops": flops, "wall_s": 1.5}


@pytest.fixture(scope="session")
def make_plan():
    def make(sweep: Sweep = Sweep(), question: str = "How does loss fall with compute?") -> tuple[dict, dict]:
        """plan, and the loss of each run by run_id."""
        rng = np.random.default_rng(sweep.random)
        trunk = {(n, s): rng.normal(0, sweep.trunk_sd) for n in sweep.sizes for s in range(sweep.seeds)}
        runs, losses = [], {}
        for flops in sweep.budgets:
            shift = rng.normal(0, sweep.budget_sd)
            for n in sweep.sizes:
                if not 1 / sweep.reach <= n / sweep.law.n_opt(flops) <= sweep.reach:
                    continue
                for s in range(sweep.seeds):
                    run = planned_run(n, flops, s)
                    noise = trunk[n, s] + rng.normal(0, sweep.run_sd)
                    losses[run["run_id"]] = sweep.law.loss(n * math.exp(shift), flops) * math.exp(noise)
                    runs.append(run)
        plan = {"schema": 1, "sweep": "demo", "question": question, "plan_hash": "9f31c2abcd", "runs": runs, "excluded": []}
        return plan, losses

    return make


@pytest.fixture(scope="session")
def make_store(make_plan):
    def make(root, sweep: Sweep = Sweep(), **plan_options) -> dict:
        """Write records of a whole sweep under `root`; gives the plan."""
        plan, losses = make_plan(sweep, **plan_options)
        for run in plan["runs"]:
            write_run(root, run, losses[run["run_id"]])
        return plan

    return make


def write_run(root, run: dict, loss: float) -> None:
    folder = root / "by-id" / run["run_id"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(recorded(run, loss)))
    n = run["science"]["sae"]["n_latents"]
    fired = np.random.default_rng(n).exponential(3 * n, size=n).astype(np.int64)
    np.save(folder / "first_fired.npy", np.where(fired < 65536, fired, -1))


@pytest.fixture(scope="session")
def make_table(make_plan):
    def make(sweep: Sweep = Sweep()) -> pd.DataFrame:
        """The table of a finished sweep, without touching the disk for its records."""
        plan, losses = make_plan(sweep)
        df = build_table(plan, "/nonexistent").astype({"alive_rule_met": object})
        df["state"], df["reason"], df["alive_rule_met"] = "done", "", "yes"
        for name in recorded(plan["runs"][0], 1.0)["metrics"]:
            values = [recorded(run, losses[run["run_id"]])["metrics"][name] for run in plan["runs"]]
            df[name] = np.array(values, float)
        df["n_alive"], df["alive_window_tokens"] = df["n_latents"] * 0.9, 51200.0
        return df

    return make


@pytest.fixture(scope="session")
def sweep_of():
    """The classes themselves: under importlib mode a test module cannot import its conftest."""
    return Sweep
