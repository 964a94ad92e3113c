"""The CPU kernels against dense torch."""

import pytest
import torch

from saescale.sae import kernels
from saescale.sae.kernels import cpu


def rows(n_rows, width, seed=0):
    return torch.randn(n_rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 3, 16])
@pytest.mark.parametrize("width", [16, 17, 100, 256, 601, 1024, 1028, 4096])
def test_top_k_keeps_the_largest_positive_entries(width, k):
    pre_acts = rows(20, width) - 0.5
    pairs = cpu.top_k(pre_acts, k)
    dense = torch.zeros_like(pre_acts)
    dense[pairs.tokens, pairs.latents] = pairs.values
    values, columns = pre_acts.topk(k, dim=1)
    assert torch.equal(dense, torch.zeros_like(dense).scatter_(1, columns, values.relu()))
    assert torch.equal(pairs.row_offsets, torch.arange(0, 20 * k + 1, k))
    assert torch.equal(pairs.tokens, torch.arange(20).repeat_interleave(k))


@pytest.mark.parametrize("width", [64, 1024])
def test_top_k_of_equal_entries_keeps_k_different_latents(width):
    pairs = cpu.top_k(torch.full((5, width), 2.0), 4)
    assert torch.equal(pairs.values, torch.full((20,), 2.0))
    assert all(len(set(latents)) == 4 for latents in pairs.latents.view(5, 4).tolist())


@pytest.mark.parametrize("width", [40, 1024])
def test_top_k_with_fewer_than_k_positive_entries_gives_zeros_for_the_rest(width):
    pre_acts = -rows(6, width).abs()
    pre_acts[:, 30] = 5.0
    pairs = cpu.top_k(pre_acts, 4)
    assert (pairs.values.view(6, 4).sort(1).values == torch.tensor([0.0, 0.0, 0.0, 5.0])).all()
    assert (pairs.latents[pairs.values > 0] == 30).all()


@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf")])
@pytest.mark.parametrize("width", [40, 1024])
def test_top_k_keeps_what_is_not_finite(width, bad):
    pre_acts = rows(6, width)
    pre_acts[2, 33] = bad
    pairs = cpu.top_k(pre_acts, 4)
    assert 33 in pairs.latents.view(6, 4)[2]
    assert pairs.values.isfinite().view(6, 4).all(1).tolist() == [True, True, False, True, True, True]


def test_positive_finds_every_active_pair():
    pre_acts = rows(30, 50) - 1.0
    pairs = cpu.positive(pre_acts)
    dense = torch.zeros_like(pre_acts)
    dense[pairs.tokens, pairs.latents] = pairs.values
    assert torch.equal(dense, pre_acts.relu())
    assert torch.equal(pairs.row_offsets.diff(), (pre_acts > 0).sum(1))


def test_positive_of_nothing_is_empty_and_decodes_to_zero():
    pairs = cpu.positive(-torch.ones(3, 4))
    assert len(pairs.values) == 0
    assert torch.equal(cpu.decode(pairs, rows(4, 5)), torch.zeros(3, 5))
    assert len(cpu.dots(pairs, rows(3, 5), rows(4, 5))) == 0
    out = torch.full((4, 5), 7.0)
    cpu.sum_rows(cpu.group_by_latent(pairs, 4), torch.zeros(0), rows(3, 5), out)
    assert not out.any()


def test_sparse_products_equal_dense_ones():
    pre_acts, W_dec, e = rows(30, 50) - 0.8, rows(50, 9, 1), rows(30, 9, 2)
    pairs = cpu.positive(pre_acts)
    weights = rows(1, len(pairs.values), 3)[0]
    dense = torch.zeros(30, 50)
    dense[pairs.tokens, pairs.latents] = weights
    out = torch.full((50, 9), torch.nan)
    cpu.sum_rows(cpu.group_by_latent(pairs, 50), weights, e, out)
    assert torch.allclose(out, dense.T @ e, atol=1e-5)
    assert torch.allclose(cpu.decode(pairs, W_dec), pre_acts.relu() @ W_dec, atol=1e-5)
    assert torch.allclose(cpu.dots(pairs, e, W_dec), (e @ W_dec.T)[pairs.tokens, pairs.latents], atol=1e-5)
    assert torch.allclose(cpu.sum_pairs(pairs, weights, 50), dense.sum(0), atol=1e-5)


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
    with pytest.raises(ValueError, match="'abacus' do not exist: choose one of cpu"):
        kernels.backend("abacus")
