"""The recovery oracle: synthetic features as concepts, by their known directions and by the labeller of real models."""

import numpy as np
import pytest
import torch

from analysis.presence import fit_presence
from saescale.activations.synthetic import SyntheticSource
from saescale.measure import oracle
from saescale.measure.features import GROUP_RATE, PER_BIN, Features
from saescale.sae.model import InputSample, init
from saescale.sae.spec import SAESpec

SETTINGS = {"source": "synthetic", "seed": 0, "n_tokens": 131_072, "n_features": 1000, "d_in": 96, "zipf_exponent": 1.2,
            "mean_l0": 2.0, "max_rate": 0.5, "magnitude_low": 0.8, "magnitude_high": 1.2, "hierarchy_roots": 0,
            "hierarchy_branching": 3, "manifold_fraction": 0.0, "noise": 0.0, "batch_tokens": 8192}
SIZES = (24, 64, 160)
LIMITS = (2.5e-4, 0.05)


def science(**changes):
    return {"activations": {**SETTINGS, **changes}, "data": {"activation_dtype": "float32"}, "eval": {"n_tokens": 8192}}


@pytest.fixture(scope="module")
def source():
    return SyntheticSource(science(), "train")


@pytest.fixture(scope="module")
def features(source):
    return Features.of(source, source.n_batches, LIMITS)


def holding(source, held, k=2):
    """A dictionary whose latents are exactly these true directions."""
    sae = init(SAESpec("topk", SETTINGS["d_in"], len(held), k=k, dead_after_tokens=1000), 0, InputSample.of(source.batch(0)))
    directions = source.truth.directions[torch.from_numpy(held)]
    with torch.no_grad():
        sae.W_dec.copy_(directions)
        sae.W_enc.copy_(directions.T)
        sae.b_dec.zero_()
        sae.b_enc.zero_()
    return sae


def test_features_are_counted_where_they_fire(source, features):
    tokens, fired = source.fired(3)
    some = features.asked[5]
    mine = features.token[(features.concept == 5)]
    inside = mine[(mine >= 3 * 8192) & (mine < 4 * 8192)] - 3 * 8192
    assert sorted(inside.tolist()) == sorted(tokens[fired == some].tolist()) and len(inside) > 20
    assert features.count.sum() == sum(len(source.fired(b)[0]) for b in range(source.n_batches))
    assert (features.frequency >= LIMITS[0]).all() and (features.frequency <= LIMITS[1]).all()
    per_bin = np.unique(np.floor(np.log10(features.frequency) / 0.25), return_counts=True)[1]
    assert per_bin.max() == PER_BIN and features.frequency[0] > 0.02 and (np.diff(features.asked[:15]) > 0).all()


def test_inside_a_group_a_token_has_one_feature_and_groups_stay_below_their_rate(features):
    groups = features.groups()
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(features.asked)))
    assert all(features.frequency[g].sum() <= GROUP_RATE or len(g) == 1 for g in groups) and len(groups) > 1
    found, crowded = features.occurrences(groups[0])
    assert len(np.unique(found.last)) == len(found.last) and not crowded[found.last].any() and crowded.any()


def test_what_is_kept_of_a_dictionary_is_what_it_says_of_the_tokens(source):
    sae = holding(source, np.arange(64))
    codes = oracle.Codes.of(sae, (source.batch(b) for b in range(2)))
    x, at = torch.cat([source.batch(0), source.batch(1)]), torch.tensor([9000, 3, 3, 16383])
    dense = torch.zeros(4, 64)
    pairs = codes.at(at)
    dense[pairs.tokens, pairs.latents] = pairs.values
    with torch.inference_mode():
        said = sae.encode_pairs(x[at])
    expected = torch.zeros(4, 64)
    expected[said.tokens, said.latents] = said.values
    assert torch.allclose(dense, expected.clamp_min(0), rtol=1e-5, atol=1e-6)  # products of few rows may round otherwise
    assert codes.n_alive == 64


def test_alignment_is_the_signed_cosine_of_a_ray_and_the_projection_on_the_plane_of_a_circle():
    from saescale.activations.synthetic import Truth

    known = Truth(torch.eye(4)[:2], torch.stack([torch.zeros(4), torch.eye(4)[2]])[None], np.array([0.1, 0.1]))
    W_dec = torch.tensor([[-1.0, 0, 0, 0], [1.0, 0, 0, 1.0], [0, 3.0, 3.0, 0]])
    score, latent = oracle.best_alignment(W_dec, known, torch.arange(2))
    assert torch.allclose(score, torch.tensor([0.5**0.5, 1.0])) and latent.tolist() == [1, 2]


def tables(source, features, dictionaries):
    """(table by cosine, table by activity) of planted dictionaries."""
    import pandas as pd

    facts = oracle._facts(features, source.truth)
    by_cosine, by_activity = [], []
    for sae in dictionaries:
        codes = oracle.Codes.of(sae, (source.batch(b) for b in range(source.n_batches)))
        n = sae.n_latents
        about = {"run_id": f"r{n}", "n_latents": n, "n_alive": codes.n_alive, "seed": 0}
        by_cosine.append(oracle._by_cosine(facts, sae, source.truth, features.asked).assign(**about, dictionary="trained"))
        labels = [oracle._by_activity(codes, features, g) for g in features.groups()]
        for place, kind in enumerate(("trained", "permuted")):
            found = pd.concat([part[place] for part in labels], ignore_index=True)
            by_activity.append(facts.assign(**found, **about, dictionary=kind))
    return pd.concat(by_cosine, ignore_index=True), pd.concat(by_activity, ignore_index=True)


def test_the_labeller_finds_the_planted_features_and_the_law_their_frequency_and_exponent(source, features):
    """Dictionaries that hold about their n most frequent features, by lot around the n-th: what the law must find is known."""
    rng = np.random.default_rng(0)
    rates, planted = source.truth.rates, []
    for n in SIZES:
        chance = 1 / (1 + np.exp(-3 * np.log(rates / rates[n - 1])))
        planted.append(holding(source, np.flatnonzero(rng.random(len(rates)) < chance)))
    cosine, activity = tables(source, features, planted)
    seen = activity[activity["dictionary"] == "trained"]["score"].to_numpy()
    scored = ~np.isnan(seen)
    assert ((cosine["score"] >= 0.7)[scored] == (seen >= 0.7)[scored]).mean() > 0.96 and scored.mean() > 0.8
    assert activity[activity["dictionary"] == "permuted"]["score"].max() < 0.3
    fit = fit_presence(activity, tau=0.7, draws=200)  # at 0.5 latents that a feature only leans on are counted as its own
    low, high = fit["joint"]["trained"]["q_interval"]
    assert low < SETTINGS["zipf_exponent"] < high and high - low < 0.5
    for row, n in zip([r for r in fit["sizes"] if r["trained"]], SIZES, strict=True):
        low, high = row["f50_interval"]
        assert low < rates[n - 1] < high
    truth = fit_presence(cosine, {"definition": {"taus": [0.7, 0.5, 0.9]}}, draws=200)["joint"]["trained"]
    assert truth["q"] == pytest.approx(fit["joint"]["trained"]["q"], abs=0.08)
