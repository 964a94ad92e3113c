"""The kernels of every backend against dense torch."""

import pytest
import torch

from saescale.sae import kernels
from saescale.sae.kernels import AdamRule, cpu


@pytest.fixture(scope="module", params=[*kernels.BACKENDS, "torch"])
def backend(request):
    if request.param != "cpu":
        pytest.importorskip(request.param)
    return kernels.backend(request.param)


def rows(n_rows, width, seed=0):
    return torch.randn(n_rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 3, 16])
@pytest.mark.parametrize("width", [16, 17, 100, 256, 601, 1024, 1028, 4096])
def test_top_k_keeps_the_largest_positive_entries(backend, width, k):
    pre_acts = rows(20, width) - 0.5
    pairs = backend.top_k(pre_acts, k)
    dense = torch.zeros_like(pre_acts)
    dense[pairs.tokens, pairs.latents] = pairs.values
    values, columns = pre_acts.topk(k, dim=1)
    assert torch.equal(dense, torch.zeros_like(dense).scatter_(1, columns, values.relu()))
    assert torch.equal(pairs.row_offsets, torch.arange(0, 20 * k + 1, k))
    assert torch.equal(pairs.tokens, torch.arange(20).repeat_interleave(k))


@pytest.mark.parametrize("width", [64, 1024])
def test_top_k_of_equal_entries_keeps_k_different_latents(backend, width):
    pairs = backend.top_k(torch.full((5, width), 2.0), 4)
    assert torch.equal(pairs.values, torch.full((20,), 2.0))
    assert all(len(set(latents)) == 4 for latents in pairs.latents.view(5, 4).tolist())


@pytest.mark.parametrize("width", [40, 1024])
def test_top_k_with_fewer_than_k_positive_entries_gives_zeros_for_the_rest(backend, width):
    pre_acts = -rows(6, width).abs()
    pre_acts[:, 30] = 5.0
    pairs = backend.top_k(pre_acts, 4)
    assert (pairs.values.view(6, 4).sort(1).values == torch.tensor([0.0, 0.0, 0.0, 5.0])).all()
    assert (pairs.latents[pairs.values > 0] == 30).all()


@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf")])
@pytest.mark.parametrize("width", [40, 1024])
def test_top_k_keeps_what_is_not_finite(backend, width, bad):
    pre_acts = rows(6, width)
    pre_acts[2, 33] = bad
    pairs = backend.top_k(pre_acts, 4)
    assert 33 in pairs.latents.view(6, 4)[2]
    assert pairs.values.isfinite().view(6, 4).all(1).tolist() == [True, True, False, True, True, True]


def test_positive_finds_every_active_pair(backend):
    pre_acts = rows(30, 50) - 1.0
    pairs = backend.positive(pre_acts)
    dense = torch.zeros_like(pre_acts)
    dense[pairs.tokens, pairs.latents] = pairs.values
    assert torch.equal(dense, pre_acts.relu())
    assert torch.equal(pairs.row_offsets.diff(), (pre_acts > 0).sum(1))


def test_positive_of_nothing_is_empty_and_decodes_to_zero(backend):
    pairs = backend.positive(-torch.ones(3, 4))
    assert len(pairs.values) == 0
    assert torch.equal(backend.decode(pairs, rows(4, 5)), torch.zeros(3, 5))
    minus_e, along = backend.errors(pairs, rows(4, 5), rows(3, 5))
    assert len(along) == 0
    assert torch.equal(minus_e, -rows(3, 5))
    out = torch.full((4, 5), 7.0)
    backend.sum_rows(backend.group_by_latent(pairs, 4), torch.zeros(0), rows(3, 5), out)
    assert not out.any()


def test_sparse_products_equal_dense_ones(backend):
    pre_acts, W_dec, e = rows(30, 50) - 0.8, rows(50, 9, 1), rows(30, 9, 2)
    pairs = backend.positive(pre_acts)
    weights = rows(1, len(pairs.values), 3)[0]
    dense = torch.zeros(30, 50)
    dense[pairs.tokens, pairs.latents] = weights
    out = torch.full((50, 9), torch.nan)
    backend.sum_rows(backend.group_by_latent(pairs, 50), weights, e, out)
    assert torch.allclose(out, dense.T @ e, atol=1e-5)
    assert torch.allclose(backend.decode(pairs, W_dec), pre_acts.relu() @ W_dec, atol=1e-5)
    minus_e, along = backend.errors(pairs, W_dec, e)
    expected = pre_acts.relu() @ W_dec - e
    assert torch.allclose(minus_e, expected, atol=1e-5)
    assert torch.allclose(along, (expected @ W_dec.T)[pairs.tokens, pairs.latents], atol=1e-4)
    assert torch.allclose(backend.sum_pairs(pairs, weights, 50), dense.sum(0), atol=1e-5)


def test_denormals_are_flushed_inside_and_as_before_outside():
    tiny = torch.full((64,), 1e-30)
    with cpu.denormals_flushed():
        assert not (tiny * 1e-10).any()
    assert (tiny * 1e-10).all()
    torch.set_flush_denormal(True)
    try:
        with cpu.denormals_flushed():
            pass
        assert not (tiny * 1e-10).any()
    finally:
        torch.set_flush_denormal(False)


def test_an_unknown_backend_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="'abacus' do not exist: choose one of auto, cpu, numba, triton, torch"):
        kernels.backend("abacus")


def test_of_equal_entries_at_the_edge_no_more_than_k_are_kept(backend):
    pre_acts = rows(8, 700)
    pre_acts[:, ::3] = pre_acts.amax(1, keepdim=True) - 0.1
    pairs = backend.top_k(pre_acts, 20)
    assert torch.equal(pairs.values.view(8, 20).sort(1).values, pre_acts.topk(20, dim=1).values.sort(1).values)
    assert torch.equal(pre_acts[pairs.tokens, pairs.latents], pairs.values)
    assert all(len(set(latents)) == 20 for latents in pairs.latents.view(8, 20).tolist())


@pytest.mark.parametrize(("n_nan", "n_numbers"), [(40, 0), (5, 7), (12, 0)])
def test_of_a_diverged_batch_no_more_are_kept_than_asked_for_nans_first(backend, n_nan, n_numbers):
    """Ranks that share a dictionary offer each other as many as are kept, and no more."""
    pre_acts = rows(10, 24)
    pre_acts.view(-1)[torch.arange(n_nan) * 5] = torch.nan
    values = backend.batch_top_k(pre_acts, 12).values
    assert len(values) == 12 and int(values.isnan().sum()) == 12 - n_numbers


@pytest.mark.parametrize("n_params, start, n, d", [(3000, 700, 50, 17), (40_000, 8192, 30, 64)], ids=["odd", "long"])
@pytest.mark.parametrize("largest_norm", [None, 0.5])
def test_adam_clips_steps_and_puts_rows_back_to_norm_one(backend, n_params, start, n, d, largest_norm):
    params, grad, m, v = rows(4, n_params) + 0.0
    v.square_()
    expected = [t.double() for t in (params, grad, m, v)]
    unit = params[start : start + n * d].view(n, d)
    norm = backend.adam(params, grad.clone(), (m, v), AdamRule(1e-2, 0.8, 0.99, 1e-6, largest_norm, 3), unit)
    p, g, m64, v64 = expected
    assert float(norm) == pytest.approx(g.norm().item(), rel=1e-5)
    g = g if largest_norm is None else g * (largest_norm / g.norm())
    m64, v64 = 0.8 * m64 + 0.2 * g, 0.99 * v64 + 0.01 * g * g
    p = p - 1e-2 * m64 / (1 - 0.8**3) / ((v64 / (1 - 0.99**3)).sqrt() + 1e-6)
    p[start : start + n * d].view(n, d).div_(p[start : start + n * d].view(n, d).norm(dim=1, keepdim=True))
    for found, wanted in ((params, p), (m, m64), (v, v64)):
        assert torch.allclose(found.double(), wanted, rtol=1e-5, atol=1e-6)


def test_numba_gives_the_same_bits_on_any_number_of_threads(monkeypatch):
    pytest.importorskip("numba")
    backend = kernels.backend("numba")
    monkeypatch.setattr(backend, "WORTH_A_THREAD", 1)
    found, before = [], torch.get_num_threads()
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        try:
            pre_acts, W_dec, x, flat = rows(37, 300), rows(300, 20, 1), rows(37, 20, 2), rows(4, 30_000, 3)
            pairs, every = backend.top_k(pre_acts, 7), backend.positive(pre_acts)
            flat[3].square_()
            rule, unit = AdamRule(1e-2, 0.9, 0.99, 1e-8, 1.0, 1), flat[0, 60:6060].view(300, 20)
            norm = backend.adam(flat[0], flat[1], (flat[2], flat[3]), rule, unit)
            found.append([*pairs, *every, *backend.errors(pairs, W_dec, x), flat, norm])
        finally:
            torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_auto_is_numba_where_it_is_installed_and_cpu_elsewhere(monkeypatch):
    monkeypatch.setattr(kernels, "find_spec", lambda _: None)
    assert kernels.resolve("auto") == "cpu"
    with pytest.raises(ValueError, match="numba kernels are not installed"):
        kernels.resolve("numba")
    monkeypatch.setattr(kernels, "find_spec", lambda _: True)
    assert kernels.resolve("auto") == "numba"
