"""Designs with a known law, and Epoch AI's table where SAESCALE_DATA has it."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

TRUTH = {"E": 1.8172, "A": 477.8, "B": 2143.0, "alpha": 0.3473, "beta": 0.3672}


@pytest.fixture(scope="session")
def truth():
    return TRUTH


@pytest.fixture(scope="session")
def make_twin():
    """(seed, sd) -> 240 runs over the same decades as Epoch's, losses by TRUTH times t-distributed (4 df) noise in ln."""

    def make(seed=0, sd=0.0045, rows=240):
        rng = np.random.default_rng(seed)
        c = np.exp(rng.uniform(np.log(6e18), np.log(3e21), rows))
        n = np.exp(rng.uniform(np.log(6e7), np.log(1.2e10), rows))
        d = c / (6 * n)
        p = TRUTH
        loss = (p["E"] + p["A"] * n ** -p["alpha"] + p["B"] * d ** -p["beta"]) * np.exp(sd * rng.standard_t(4, rows))
        return pd.DataFrame({"N": n, "D": d, "loss": loss})

    return make


@pytest.fixture(scope="session")
def grid_table():
    """5 budgets 1e17 to 1e21 by 15 sizes within a factor of 8 of each optimum, without noise."""
    e, a, b, alpha, beta = 1.69, 406.4, 410.7, 0.34, 0.28
    rows = []
    for c in np.geomspace(1e17, 1e21, 5):
        best = (alpha * a / (beta * b)) ** (1 / (alpha + beta)) * (c / 6) ** (beta / (alpha + beta))
        n = best * np.geomspace(1 / 8, 8, 15)
        d = c / (6 * n)
        rows.append(pd.DataFrame({"N": n, "D": d, "loss": e + a * n**-alpha + b * d**-beta}))
    return pd.concat(rows, ignore_index=True)


@pytest.fixture(scope="session")
def epoch_245():
    folder = os.environ.get("SAESCALE_DATA")
    path = Path(folder or ".") / "fits" / "epoch_chinchilla_245.csv"
    if not folder or not path.exists():
        pytest.skip("SAESCALE_DATA does not name a folder with fits/epoch_chinchilla_245.csv (not part of this project)")
    raw = pd.read_csv(path)
    n = raw["Model Size"]
    return pd.DataFrame({"N": n, "D": raw["Training FLOP"] / (6 * n), "loss": raw["loss"]})


@pytest.fixture(scope="session")
def epoch(epoch_245):
    """Without the five highest losses, as published."""
    return epoch_245[epoch_245["loss"] < np.sort(epoch_245["loss"])[-5]]
