"""Every gradient against float64 autograd of the reference losses."""

import pytest
import torch

from saescale.sae import entries, kernels
from saescale.sae.kernels import reference
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

SHAPES = [
    (7, 5, 11, 3),
    (64, 16, 64, 4),
    (33, 24, 130, 7),
    (50, 12, 1024, 16),
    (1, 8, 9, 9),
    (40, 10, 601, 5),
]  # token, d_in, n, k


def batch(n_tokens, d_in, seed=0):
    x = torch.randn(n_tokens, d_in, generator=torch.Generator().manual_seed(seed)) + 0.3
    return x * (d_in / x.square().sum(1).mean()).sqrt()


@pytest.fixture(autouse=True, params=[*kernels.BACKENDS, "torch"])
def backend(request, monkeypatch):
    """Every test here once with each backend."""
    if request.param != "cpu":
        pytest.importorskip(request.param)
    monkeypatch.setattr(Trainable.create.__func__, "__defaults__", (request.param,))
    return request.param


def started(spec, x, seed=1):
    """A Trainable away from its initialisation: biases and encoder are no longer zero or tied."""
    trainable = Trainable.create(spec, seed, InputSample.of(x))
    generator = torch.Generator().manual_seed(seed + 1)
    for name in ("W_enc", "b_enc", "b_dec"):
        tensor = trainable.sae.params()[name]
        tensor += 0.2 * torch.randn(tensor.shape, generator=generator)
    if not trainable.sae.kind.unit_decoder:
        trainable.sae.W_dec.mul_(1 + torch.rand(spec.n_latents, 1, generator=generator))
    for name in trainable.sae.kind.vectors:
        trainable.sae.own[name] += 0.3 * torch.randn(spec.n_latents, generator=generator)
    return trainable


def double_params(trainable):
    return {name: tensor.double().contiguous().requires_grad_() for name, tensor in trainable.sae.params().items()}


def assert_same_gradients(trainable, expected, tolerance=1e-5):
    for name, tensor in trainable.grads.params().items():
        error, scale = (tensor.double() - expected[name]).norm(), expected[name].norm()
        assert error <= tolerance * scale, f"{name}: {error:.1e} of {scale:.1e}"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_topk_gradients_equal_autograd_in_float64(shape):
    n_tokens, d_in, n_latents, k = shape
    x = batch(n_tokens, d_in)
    trainable = started(SAESpec("topk", d_in, n_latents, k=k), x)
    params = double_params(trainable)
    loss = reference.topk_loss(params, x.double(), k)
    terms = trainable.compute_gradients(x)
    assert float(terms.loss) == pytest.approx(loss.item(), rel=1e-5)
    assert_same_gradients(trainable, reference.gradients(loss, params, unit_decoder=True))


@pytest.mark.parametrize("n_dead", [1, 3, 20], ids="{0} dead".format)
@pytest.mark.parametrize("shape", SHAPES[1:4], ids=str)
def test_topk_gradients_with_auxk_equal_autograd_in_float64(shape, n_dead):
    n_tokens, d_in, n_latents, k = shape
    x = batch(n_tokens, d_in)
    spec = SAESpec("topk", d_in, n_latents, k=k, aux_coeff=0.5, k_aux=4, dead_after_tokens=1000)
    trainable = started(spec, x)
    dead = silent_latents(trainable, x, n_dead)
    trainable.memory.tokens_since_fired[dead] = 1000
    mask = torch.zeros(n_latents, dtype=torch.bool)
    mask[dead] = True
    params = double_params(trainable)
    loss = reference.topk_loss(params, x.double(), k, mask, k_aux=4, aux_weight=0.5 * InputSample.of(x).variance)
    terms = trainable.compute_gradients(x)
    assert float(terms.aux_loss) > 0
    assert float(terms.loss) == pytest.approx(loss.item(), rel=1e-5)
    assert_same_gradients(trainable, reference.gradients(loss, params, unit_decoder=True))


def silent_latents(trainable, x, n):
    """n latents pushed just below the top k of every token, so that they are silent but have pre-activations above zero."""
    sae = trainable.sae
    dead = torch.arange(n) * 3 + 1
    others = torch.ones(sae.n_latents, dtype=torch.bool)
    others[dead] = False
    pre_acts = sae.pre_acts(x)
    kept = pre_acts[:, others].topk(sae.kind.k, dim=1).values.amin()
    if sae.kind.name != "topk":
        kept = pre_acts[:, others].flatten().topk(sae.kind.k * len(x)).values.amin()
    sae.b_enc[others] += (1.0 - kept).clamp_min(0)
    sae.b_enc[dead] += 0.9 - pre_acts[:, dead].amax(0)
    pairs = trainable.sae.kind.select(trainable, sae.pre_acts(x))
    assert not torch.isin(pairs.latents[pairs.values > 0], dead).any()
    assert (sae.pre_acts(x)[:, dead] > 0).any()
    return dead


@pytest.mark.parametrize("path", ["dense", "sparse"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_relu_l1_gradients_equal_autograd_in_float64(shape, path):
    n_tokens, d_in, n_latents, _ = shape
    x = batch(n_tokens, d_in)
    trainable = started(SAESpec("relu_l1", d_in, n_latents, sparsity_coeff=3.0), x)
    trainable.memory.last_l0.fill_(n_latents if path == "dense" else 0)
    params = double_params(trainable)
    loss = reference.relu_l1_loss(params, x.double(), 0.4 * 3.0)
    terms = trainable.compute_gradients(x, sparsity_scale=0.4)
    assert float(terms.loss) == pytest.approx(loss.item(), rel=1e-5)
    assert_same_gradients(trainable, reference.gradients(loss, params, unit_decoder=False))


def test_the_sparse_path_is_taken_once_few_latents_fire_and_left_when_many_do(monkeypatch, backend):
    if backend == "torch":
        pytest.skip("kernels of a device take the dense path: they do not wait to know how many latents fired")
    taken = []
    for path in (entries.Dense, entries.Sparse):
        original = path.write
        monkeypatch.setattr(path, "write", lambda *a, path=path, original=original: taken.append(path) or original(*a))
    x = batch(32, 16)
    for spec in (SAESpec("relu_l1", 16, 512, sparsity_coeff=0.1), SAESpec("jumprelu", 16, 512, sparsity_coeff=0.1, bandwidth=0.1),
                 SAESpec("jumprelu_tanh", 16, 512, sparsity_coeff=0.1), SAESpec("gated", 16, 512, sparsity_coeff=0.1)):
        trainable = started(spec, x)
        for bias in (0.0, -4.0, -4.0, 2.0, 2.0):
            trainable.sae.b_enc.fill_(bias)
            trainable.step(x, 0.0)
        assert taken == [entries.Dense, entries.Dense, entries.Sparse, entries.Sparse, entries.Dense], spec.kind
        taken.clear()


BATCHED = [("batchtopk", None), ("matryoshka", (2, 6, 14, 30, 64))]


@pytest.mark.parametrize("n_dead", [0, 3, 20], ids="{0} dead".format)
@pytest.mark.parametrize("kind, prefixes", BATCHED, ids=["batchtopk", "matryoshka"])
def test_gradients_of_kinds_that_select_over_the_batch_equal_autograd_in_float64(kind, prefixes, n_dead):
    x = batch(48, 16)
    spec = SAESpec(kind, 16, 64, k=3, aux_coeff=0.5, k_aux=4, dead_after_tokens=1000)
    trainable = started(spec, x)
    mask = torch.zeros(64, dtype=torch.bool)
    if n_dead:
        mask[silent_latents(trainable, x, n_dead)] = True
        trainable.memory.tokens_since_fired[mask] = 1000
    params = double_params(trainable)
    loss = reference.batchtopk_loss(params, x.double(), 3, mask, 4, 0.5 * InputSample.of(x).variance, prefixes)
    terms = trainable.compute_gradients(x)
    assert (float(terms.aux_loss) > 0) == bool(n_dead)
    assert terms.l0 == 3
    assert float(terms.loss) == pytest.approx(loss.item(), rel=1e-5)
    assert_same_gradients(trainable, reference.gradients(loss, params, unit_decoder=True))


PENALISED = {
    "jumprelu": (dict(bandwidth=0.7), lambda p, x, c: reference.jumprelu_loss(p, x, c, 0.7)),
    "jumprelu_tanh": (dict(bandwidth=1.5, aux_coeff=0.3), lambda p, x, c: reference.jumprelu_tanh_loss(p, x, c, 1.5, 0.3)),
    "gated": ({}, lambda p, x, c: reference.gated_loss(p, x, c)),
}


@pytest.mark.parametrize("path", ["dense", "sparse"])
@pytest.mark.parametrize("shape", SHAPES[:5], ids=str)
@pytest.mark.parametrize("kind", PENALISED)
def test_gradients_of_kinds_with_a_penalty_equal_autograd_in_float64(kind, shape, path):
    n_tokens, d_in, n_latents, _ = shape
    knobs, reference_loss = PENALISED[kind]
    x = batch(n_tokens, d_in)
    trainable = started(SAESpec(kind, d_in, n_latents, sparsity_coeff=3.0, **knobs), x)
    trainable.memory.last_touched.fill_(n_latents if path == "dense" else 0)
    params = double_params(trainable)
    loss = reference_loss(params, x.double(), 0.4 * 3.0)
    terms = trainable.compute_gradients(x, sparsity_scale=0.4)
    assert float(terms.loss) == pytest.approx(loss.item(), rel=1e-5)
    assert_same_gradients(trainable, reference.gradients(loss, params, trainable.sae.kind.unit_decoder))


def test_the_price_of_a_decoder_row_of_zeros_has_gradient_zero():
    x = batch(16, 8)
    trainable = started(SAESpec("relu_l1", 8, 12, sparsity_coeff=3.0), x)
    trainable.sae.W_dec[5] = 0.0
    params = double_params(trainable)
    loss = reference.relu_l1_loss(params, x.double(), 3.0)
    trainable.compute_gradients(x)
    assert_same_gradients(trainable, reference.gradients(loss, params, unit_decoder=False))


def test_gradients_of_inactive_latents_are_exactly_zero_although_the_buffer_is_reused():
    x = batch(8, 8)
    trainable = started(SAESpec("topk", 8, 256, k=2), x)
    trainable.grad.fill_(7.0)
    trainable.compute_gradients(x)
    silent = ~(trainable.sae.encode(x) > 0).any(0)
    assert silent.sum() > 200
    assert not trainable.grads.W_dec[silent].any()
    assert not trainable.grads.W_enc[:, silent].any()
    assert not trainable.grads.b_enc[silent].any()


@pytest.mark.parametrize("grad_clip", [None, 0.5, 1e9], ids=["no clip", "clipped", "below the clip"])
@pytest.mark.parametrize("kind", ["topk", "relu_l1"])
def test_three_steps_equal_adam_in_float64(kind, grad_clip):
    knobs = {"k": 4} if kind == "topk" else {"sparsity_coeff": 0.5}
    spec = SAESpec(kind, 12, 40, grad_clip=grad_clip, beta1=0.8, beta2=0.99, eps=1e-4, **knobs)
    trainable = started(spec, batch(64, 12))
    params = double_params(trainable)
    optimiser = torch.optim.Adam(params.values(), lr=1e-2, betas=(0.8, 0.99), eps=1e-4)
    for seed in range(3):
        x = batch(64, 12, seed)
        loss = reference.topk_loss(params, x.double(), 4) if kind == "topk" else reference.relu_l1_loss(params, x.double(), 0.5)
        for name, grad in reference.gradients(loss, params, kind == "topk").items():
            params[name].grad = grad
        if grad_clip:
            torch.nn.utils.clip_grad_norm_(params.values(), grad_clip)
        optimiser.step()
        if kind == "topk":
            params["W_dec"].data /= params["W_dec"].data.norm(dim=1, keepdim=True)
        trainable.step(x, 1e-2)
    for name, tensor in trainable.sae.params().items():
        assert torch.allclose(tensor.double(), params[name], rtol=1e-4, atol=1e-5), name
