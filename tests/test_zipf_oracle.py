"""From a synthetic sweep to the law of presence beside its truth, through the door."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis.oracle import compare, loss_exponents
from saescale.records import concepts

SWEEP = """\
question: Does a small oracle find its truth?
base: [activations=synthetic, sae=topk, train=small, cluster=inprocess]
set: {sae.k: 4, train.batch_tokens: 256, activations.n_tokens: 131072, activations.n_features: 400, activations.d_in: 64,
      activations.mean_l0: 4.0, activations.zipf_exponent: 1.2, eval.n_tokens: 4096}
grids:
  zipf:
    sae.n_latents: [16, 32, 64]
    train.n_tokens: 131072
concepts: {grid: zipf}
"""


def test_a_synthetic_sweep_goes_from_training_to_its_law_beside_the_truth(project, saescale):
    project.sweep("small_oracle", SWEEP)
    for verb in ("launch", "concepts", "collect", "fit", "figures", "report"):
        code, out, err = saescale(verb, "small_oracle")
        assert code == 0, (verb, out, err)
    folder = project.store / "small_oracle"
    labelled, known = concepts.read(folder), concepts.read(folder / concepts.COSINE)
    assert set(labelled.table["dictionary"]) == {"trained", "untrained", "permuted"}
    assert set(known.table["dictionary"]) == {"trained", "untrained"} and known.about["generator"]["zipf_exponent"] == 1.2
    fits = json.loads((folder / "fits.json").read_text())
    found, rates = fits["oracle"], np.array(known.about["generator"]["rates"])
    assert found["q"]["generator"] == pytest.approx(1.2, abs=0.05)
    assert found["q"]["cosine"]["q"] == pytest.approx(1.2, abs=0.25) and abs(found["q"]["difference"]["estimate"]) < 0.3
    assert found["agreement"]["share"] > 0.9 > found["agreement"]["by_chance"]
    for row in found["sizes"]:
        assert row["ideal"] == pytest.approx(rates[round(row["n_alive"]) - 1], rel=0.01)
        assert row["cosine"] == pytest.approx(row["ideal"], rel=0.3) and row["n_present"] >= 0.7 * row["n_latents"]
    loss = found["loss"]
    assert loss["model"]["loss"] - 0.1 < loss["measured"]["loss"] < -0.1  # k and interference: no steeper than whole features
    gaps = fits["presence"]["gaps"]
    assert all(row["gap_interval"][0] > 0 for row in gaps)
    drawn = {f["name"] for f in json.loads((folder / "report/figures/figures.json").read_text())}
    assert {"oracle", "concept_presence", "concept_collapse", "concept_f50"} <= drawn and "concept_strip" not in drawn
    code, out, _ = saescale("predict", "small_oracle", "--frequency", "1e-3")
    assert code == 0 and "half of such concepts have a latent at n_alive" in out and "training tokens" in out
    code, out, _ = saescale("predict", "small_oracle", "--frequency", "1e-3", "--json", "-")
    assert code == 0 and json.loads(out)["q"] == fits["presence"]["joint"]["trained"]["q"]
    forecast = project.store / "forecast.json"
    code, out, _ = saescale("predict", "small_oracle", "--latents", "128", "--json", str(forecast))
    assert code == 0 and "128 latents, " in out and json.loads(forecast.read_text())["sweep"] == "small_oracle"
    code, _, err = saescale("verify", str(forecast), "small_oracle")
    assert code == 2 and "none of the sizes that were foretold (128) is scored yet" in err


def test_what_synthetic_features_cannot_be_asked_is_refused(project, saescale):
    project.sweep("named", SWEEP.replace("{grid: zipf}", "{grid: zipf, inventories: [words]}"))
    project.sweep("mixed", SWEEP.replace("    train.n_tokens", "    activations.seed: [0, 1]\n    train.n_tokens"))
    for name, words in (("named", "whose concepts are their features"), ("mixed", "different synthetic features")):
        code, _, err = saescale("concepts", name)
        assert code == 2 and words in err, err
    for arguments, words in ((("named", "--frequency", "1e-6"), "has no concepts"),
                             (("named", "--frequency", "1e-6", "--flops", "1e12"), "asks a sweep's concepts"),
                             (("table.csv", "--frequency", "1e-6"), "asks a sweep's concepts")):  # fmt: skip
        code, _, err = saescale("predict", *arguments)
        assert code == 2 and words in err, err


def planted(n_features=300, sizes=(16, 32, 64), error=0.0, seed=0):
    """(table by activity, table by cosine), ideal dictionaries: those of rank below n; `error` of the labels are wrong."""
    rng = np.random.default_rng(seed)
    rates = 0.8 * np.arange(1, n_features + 1.0) ** -1.3
    rows = {"cosine": [], "activity": []}
    for n in sizes:
        for i in range(5, n_features):
            present = i < n
            seen = present if rng.random() >= error else not present
            row = {"run_id": f"r{n}", "dictionary": "trained", "n_latents": n, "n_alive": n, "seed": 0, "category": "rays",
                   "concept": f"{i:06d}", "count": 100, "frequency": rates[i], "ambiguous": False}  # fmt: skip
            rows["cosine"].append(row | {"score": 0.9 if present else 0.1})
            rows["activity"].append(row | {"score": 0.8 if seen else 0.1})
    about = {"definition": {"taus": [0.7]}, "corpus": {"n_tokens": 10_000_000},
             "generator": {"zipf_exponent": 1.3, "rates": rates.tolist()},
             "dictionaries": [{"dictionary": "trained", "n_latents": n, "n_present": n} for n in sizes]}  # fmt: skip
    return (pd.DataFrame(rows["activity"]), {}), (pd.DataFrame(rows["cosine"]), about)


def test_ideal_dictionaries_have_the_generators_exponent_and_frequencies():
    found = compare(*planted(), draws=50)
    assert found["q"]["cosine"]["q"] == pytest.approx(found["q"]["generator"], rel=0.05)
    assert found["q"]["difference"] == {"estimate": 0.0, "interval": [0.0, 0.0]} and found["agreement"]["share"] == 1.0
    assert found["coverage"] == dict.fromkeys(("cosine_ideal", "cosine_held", "activity_ideal", "activity_held"), 1.0)
    assert not any(row["data_limited"] for row in found["sizes"])


def test_the_exponent_of_each_seed_stands_beside_that_of_all():
    one, more = planted(sizes=(16, 32, 64)), planted(sizes=(16, 40, 100))  # the second holds more by the same sizes

    def both(i):
        sizes = more[i][0]["n_latents"].map({16: 16, 40: 32, 100: 64})
        later = more[i][0].assign(seed=1, run_id=more[i][0]["run_id"] + "s1", n_latents=sizes, n_alive=sizes)
        return pd.concat([one[i][0], later], ignore_index=True), one[i][1]

    found = compare(both(0), both(1), draws=20)["q"]["activity"]
    assert list(found["by_seed"]) == ["0", "1"] and found["by_seed"]["0"] < found["q"] < found["by_seed"]["1"]
    assert found["by_seed"]["0"] == pytest.approx(compare(*one, draws=20)["q"]["activity"]["q"], rel=0.01)


def test_a_labeller_that_errs_is_seen_to_disagree():
    found = compare(*planted(error=0.2), draws=50)
    assert found["agreement"]["share"] == pytest.approx(0.8, abs=0.04)
    assert abs(found["q"]["difference"]["estimate"]) > 0.1


def test_exponents_of_loss_and_features_are_those_of_the_rows_beside_the_model():
    _, (_, about) = planted()
    rows = pd.DataFrame({"n_latents": [16, 32, 64, 16], "state": ["done"] * 4, "n_tokens": [2, 2, 2, 1],
                         "fvu": [0.4, 0.4 / 2**0.5, 0.2, 0.9]})  # fmt: skip
    found = loss_exponents(about, rows)
    assert found["measured"] == {"discovered": pytest.approx(1.0), "loss": pytest.approx(-0.5)}
    assert found["limit"] == {"discovered": 1.0, "loss": pytest.approx(-0.3)}
    assert found["model"]["loss"] < -0.3  # a finite list of features ends: steeper than the limit
    assert found["with_k"] is None  # the rows do not say k
    capped = loss_exponents(about, rows.assign(k=1))["with_k"]
    assert capped["k"] == 1 and found["model"]["loss"] < capped["loss"] < 0  # a loss that size cannot lower is flatter
    assert loss_exponents(about, rows[rows["n_latents"] < 64])["measured"] is None
