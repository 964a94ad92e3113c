"""Initialisation, inference, settings."""

import pytest
import torch

from saescale.sae.kinds import ReluL1, TopK
from saescale.sae.model import SAE, InputSample, geometric_median, init
from saescale.sae.spec import SAESpec

TOPK = SAESpec("topk", 16, 50, k=3)
RELU = SAESpec("relu_l1", 16, 50, sparsity_coeff=5.0)


@pytest.fixture
def x():
    return torch.randn(200, 16, generator=torch.Generator().manual_seed(0)) + 1.0


def hand_made(kind):
    """Two inputs, three latents, small whole numbers."""
    W_enc = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).T
    W_dec = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    return SAE(kind, W_enc, torch.tensor([0.0, 0.5, -1.0]), W_dec, torch.tensor([1.0, -1.0]))


def test_relu_l1_encodes_without_a_pre_encoder_bias_and_pays_for_decoder_norms():
    sae = hand_made(ReluL1(sparsity_coeff=2.0))
    x = torch.tensor([[1.0, -2.0]])
    acts = sae.encode(x)  # (1, -2 + .5, -1 - 1) through a ReLU
    assert acts.tolist() == [[1.0, 0.0, 0.0]]
    assert sae.decode(acts).tolist() == [[2.0, -1.0]]
    x = torch.tensor([[1.0, 2.0]])
    acts = sae.encode(x)
    assert acts.tolist() == [[1.0, 2.5, 2.0]]
    assert sae.decode(acts).tolist() == [[8.0, 12.0]]
    price = 1.0 * 1 + 2.5 * 2 + 2.0 * 5
    assert sae.objective(x, sae.decode(acts), sae.encode_pairs(x)).tolist() == [49 + 100 + 2.0 * price]


def test_topk_subtracts_b_dec_before_encoding_and_keeps_k():
    sae = hand_made(TopK(k=1))
    x = torch.tensor([[1.0, 2.0], [3.0, -4.0]])  # minus b_dec: (0, 3) and (2, -3)
    acts = sae.encode(x)
    assert acts.tolist() == [[0.0, 3.5, 0.0], [2.0, 0.0, 0.0]]
    assert sae.decode(acts).tolist() == [[1.0, 6.0], [3.0, -1.0]]
    assert sae.objective(x, sae.decode(acts), sae.encode_pairs(x)).tolist() == [16.0, 9.0]
    values, indices = sae.encode_sparse(x)
    assert (values.tolist(), indices.tolist()) == ([[3.5], [2.0]], [[1], [0]])


@pytest.mark.parametrize("spec", [TOPK, RELU], ids=["topk", "relu_l1"])
def test_sparse_and_dense_inference_agree_over_several_internal_batches(spec):
    x = torch.randn(2500, 16, generator=torch.Generator().manual_seed(1))
    sae = init(spec, 0, InputSample.of(x))
    assert torch.allclose(sae.reconstruct(x), sae.decode(sae.encode(x)), atol=1e-5)
    pairs = sae.encode_pairs(x)
    assert len(pairs.row_offsets) == 2501 and pairs.row_offsets[-1] == len(pairs.values)


def test_encode_sparse_is_refused_where_the_number_of_active_latents_varies(x):
    with pytest.raises(ValueError, match="use encode_pairs"):
        init(RELU, 0).encode_sparse(x)


def test_topk_starts_tied_with_unit_rows_and_b_dec_at_the_geometric_median(x):
    sae = init(TOPK, 0, InputSample.of(x))
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(50))
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    assert torch.allclose(sae.b_dec, geometric_median(x.double()).float())
    assert not sae.b_enc.any()


def test_relu_l1_starts_tied_with_rows_of_norm_a_tenth_and_no_biases():
    sae = init(RELU, 0)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.full((50,), 0.1))
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    assert not sae.b_enc.any() and not sae.b_dec.any()


def test_the_seed_of_the_initialisation_is_applied_and_the_global_one_ignored(x):
    sample = InputSample.of(x)
    torch.manual_seed(1)
    first = init(TOPK, 0, sample)
    torch.manual_seed(2)
    assert torch.equal(first.W_dec, init(TOPK, 0, sample).W_dec)
    assert not torch.allclose(first.W_dec, init(TOPK, 1, sample).W_dec)


def test_one_latents_encoder_is_contiguous_in_memory(x):
    sae = init(TOPK, 0, InputSample.of(x))
    assert sae.W_enc.shape == (16, 50) and sae.W_enc.T.is_contiguous()
    assert sae.clone().W_enc.T.is_contiguous()


def test_the_geometric_median_ignores_a_far_outlier_and_minimises_the_summed_distance():
    assert torch.allclose(
        geometric_median(torch.tensor([[0.0], [1.0], [2.0], [3.0], [1e6]]).double()), torch.tensor([2.0]).double(), atol=1e-3
    )
    points = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)).double().exp()
    median = geometric_median(points)
    direction = torch.nn.functional.normalize((points - median), dim=1).sum(0)
    assert direction.norm() < 1e-3
    assert (points.mean(0) - median).norm() > 0.1


def test_identical_points_are_their_own_median():
    assert torch.equal(geometric_median(torch.ones(5, 3).double()), torch.ones(3).double())


def test_the_variance_of_a_sample_is_summed_over_dimensions_about_the_mean():
    sample = InputSample.of(torch.tensor([[1.0, 10.0], [3.0, 10.0], [5.0, 16.0]]))
    assert sample.variance == pytest.approx(8 / 3 + 8)


def test_topk_without_a_sample_is_refused():
    with pytest.raises(ValueError, match="starts b_dec at the median"):
        init(TOPK, 0)
    with pytest.raises(ValueError, match="at least one row"):
        InputSample.of(torch.zeros(0, 16))


@pytest.mark.parametrize(
    "knobs, sentence",
    [
        (dict(kind="topk", k=51), "sae.k=51 exceeds sae.n_latents=50: k counts the latents kept per token. Choose k <= 50."),
        (dict(kind="topk"), "sae.k=None is out of range: sae=topk keeps k latents per token"),
        (dict(kind="topk", k=3, sparsity_coeff=5.0), "sae.sparsity_coeff=5.0 is of no use to sae=topk"),
        (dict(kind="topk", k=3, aux_coeff=-1.0), "sae.aux_coeff=-1.0 is out of range"),
        (dict(kind="topk", k=3, k_aux=0), "sae.k_aux=0 is out of range: it counts dead latents"),
        (dict(kind="relu_l1"), "sae.sparsity_coeff=None is out of range"),
        (dict(kind="relu_l1", sparsity_coeff=float("nan")), "sae.sparsity_coeff=nan is out of range"),
        (dict(kind="relu_l1", sparsity_coeff=5.0, k=3), "sae.k=3 is of no use to sae=relu_l1: latents kept per token"),
        (dict(kind="grated"), "Choose one of: batchtopk, gated,"),
        (dict(kind="topk", k=3, beta1=1.0), "train.beta1=1.0"),
        (dict(kind="topk", k=3, eps=0.0), "train.eps=0.0"),
        (dict(kind="topk", k=3, grad_clip=0.0), "null for no clipping"),
        (dict(kind="topk", k=3, dead_after_tokens=0), "at least 1 token"),
    ],
)
def test_settings_that_mean_nothing_are_refused_in_one_sentence(knobs, sentence):
    with pytest.raises(ValueError) as error:
        SAESpec(d_in=16, n_latents=50, **knobs)
    assert sentence in str(error.value)


def test_defaults_depend_on_the_sizes():
    assert SAESpec("topk", 768, 32_768, k=32).k_aux == 512  # 2^round(log2 384)
    assert SAESpec("topk", 128, 4096, k=16).k_aux == 64
    assert SAESpec("topk", 128, 4096, k=16).dead_after_tokens == 25_600
    assert SAESpec("topk", 128, 2**24, k=16).dead_after_tokens == 10_000_000
