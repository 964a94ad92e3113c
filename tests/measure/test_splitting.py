"""Splitting and stitching against the obvious way: one latent at a time, densely, in float64."""

import numpy as np
import pytest
import torch

from saescale.measure import splitting
from saescale.measure.latents import SAME_DIRECTION
from saescale.measure.splitting import THRESHOLDS, Directions, Stitched, compare, stitch, summary
from saescale.sae.model import InputSample, init
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

D, N = 10, 240


@pytest.fixture(scope="module")
def x():
    """Sparse sums of 30 directions, so that there is something to find."""
    r = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(30, D, generator=r), dim=1)
    on = (torch.rand(N, 30, generator=r) < 0.08).float() * (0.5 + torch.rand(N, 30, generator=r))
    return on @ features * 2 + 0.3


def dictionary(x, kind, n_latents, seed, steps=40):
    own = {"k": 3, "k_aux": 2} if kind == "topk" else {"sparsity_coeff": 0.3}
    member = Trainable.create(SAESpec(kind, D, n_latents, **own), seed, InputSample.of(x))
    for _ in range(steps):
        member.step(x, 1e-2)
    return member.sae


@pytest.fixture(scope="module", params=["topk", "relu_l1"])
def saes(request, x):
    return {"12": dictionary(x, request.param, 12, 0), "40": dictionary(x, request.param, 40, 1)}


def slow_change(small, large, x):
    """Squared error of the smaller dictionary with latent j of the larger added, less its own, for each j."""
    x64 = x.double()
    x_hat = small.encode(x).double() @ small.W_dec.double() + small.b_dec.double()
    code, out = large.encode(x).double(), []
    for j in range(large.n_latents):
        stitched = x_hat + code[:, j:j + 1] * large.W_dec[j].double()
        out.append(float((x64 - stitched).square().sum() - (x64 - x_hat).square().sum()))
    return np.array(out)


def test_the_change_of_error_is_that_of_adding_each_latent_alone(saes, x):
    pairs = [("12", "40"), ("40", "12")]
    found, fired = stitch(saes, pairs, x.split(37))
    for small, large in pairs:
        slow = slow_change(saes[small], saes[large], x)
        assert found[small, large].change == pytest.approx(slow, abs=1e-3 * np.abs(slow).max())
        assert np.array_equal(np.sign(found[small, large].change), np.sign(np.round(slow, 9)))
        assert (slow < -1e-3).any() or small == "40"
    for name, sae in saes.items():
        assert np.array_equal(fired[name], (sae.encode(x) > 0).sum(0).numpy())


def test_a_latent_that_says_what_the_smaller_one_has_raises_the_error_and_one_it_lacks_lowers_it(x):
    """The larger dictionary is the smaller one and another latent, for what it leaves out."""
    small = dictionary(x, "relu_l1", 12, 0, steps=200)
    error = x - small.reconstruct(x)
    direction = torch.linalg.svd(error - error.mean(0))[2][0]
    large = init(SAESpec("relu_l1", D, 13, sparsity_coeff=0.3), 0, InputSample.of(x))
    for weight in ("W_dec", "b_enc"):
        getattr(large, weight)[:12] = getattr(small, weight)
    large.W_enc[:, :12], large.b_dec[:] = small.W_enc, small.b_dec
    large.W_dec[12], large.b_enc[12] = direction, 0.0
    large.W_enc[:, 12] = torch.linalg.lstsq(x, (error @ direction)[:, None]).solution[:, 0]
    found, fired = stitch({"s": small, "l": large}, [("s", "l")], [x])
    often = (fired["s"] > 5) & (found["s", "l"].change[:12] != 0)
    assert found["s", "l"].change[12] < 0
    assert (found["s", "l"].change[:12][often] > 0).mean() > 0.8 and often.sum() > 6


def slow_compare(small, large, alive):
    cosine = np.array([[float(a @ b / a.norm() / b.norm()) for b in large.double()] for a in small.double()])
    rows, columns = np.flatnonzero(alive[0]), np.flatnonzero(alive[1])
    cosine = cosine[np.ix_(rows, columns)]
    mutual = [(int(rows[i]), int(columns[j])) for i in range(len(rows)) for j in [int(cosine[i].argmax())]
              if cosine[:, j].argmax() == i and cosine[i, j] >= SAME_DIRECTION]
    return np.stack([(cosine >= t).sum(1) for t in THRESHOLDS]), cosine.max(0), mutual


def test_directions_are_counted_as_one_by_one_however_they_are_cut(monkeypatch):
    monkeypatch.setattr(splitting, "ROWS", 7)
    r = torch.Generator().manual_seed(1)
    small, large = torch.randn(25, 4, generator=r), torch.randn(60, 4, generator=r) * 3
    alive = (np.arange(25) % 5 != 0, np.arange(60) % 7 != 0)
    found, slow = compare(small, large, alive), slow_compare(small, large, alive)
    assert np.array_equal(found.n_above, slow[0]) and found.best_small == pytest.approx(slow[1], abs=1e-5)
    assert found.mutual == slow[2] and len(found.mutual) > 3


def test_a_dictionary_beside_itself_is_its_own_nearest_and_one_without_alive_latents_is_nobodys():
    W = torch.randn(20, 16, generator=torch.Generator().manual_seed(2))
    every, none = np.ones(20, bool), np.zeros(20, bool)
    same = compare(W, 2 * W, (every, every))
    assert same.mutual == [(i, i) for i in range(20)] and (same.n_above[2] == 1).all()
    nobody = compare(W, W, (every, none))
    assert nobody.mutual == [] and (nobody.n_above == 0).all() and len(nobody.best_small) == 0


def test_the_summary_counts_each_alive_latent_once():
    directions = Directions(np.array([[0, 1, 2, 9], [0, 0, 1, 4], [0, 0, 0, 1]]), np.array([0.96, 0.32, 0.72], np.float32),
                            [(0, 0), (1, 5)])
    stitched = Stitched(np.array([5.0, -2.0, 1.0, 0.0]), np.array([3, 2, 8, 0]))
    found = summary(directions, stitched, 10)
    assert found["n_small_alive"] == 4 and found["n_large_alive"] == 3
    assert found["n_novel"] == 1 and found["novel_fraction"] == pytest.approx(1 / 3)
    assert found["latents_per_small"][0] == {"threshold": 0.5, "mean": 3.0, "counts": [1, 1, 1, 0, 0, 1, 0]}
    assert found["mutual"] == 2 and found["same_index"] == 1
    assert found["by_cosine"]["novel"][6] == 1 and sum(found["by_cosine"]["novel"]) == 1
    assert found["by_cosine"]["reconstruction"][19] == found["by_cosine"]["reconstruction"][14] == 1
    assert found["change_per_token"] == {"novel": -0.2, "reconstruction": 0.6}


def test_nothing_alive_is_no_number_and_not_zero():
    found = summary(Directions(np.zeros((3, 0), int), np.zeros(0, np.float32), []), Stitched(np.zeros(4), np.zeros(4, int)), 10)
    assert found["novel_fraction"] is None and found["latents_per_small"][0]["mean"] is None
