"""The Triton kernels against float64 and against kernels in plain torch: on a GPU where there is one, else in the interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from saescale.sae import kernels
from saescale.sae.kernels import AdamRule, Pairs, reference, torch_device
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

ASKED = os.environ.get("TRITON_INTERPRET") == "1" or (torch.cuda.is_available() and kernels.find_spec("triton"))
DEVICE = "cuda" if torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1" else "cpu"
pytestmark = [pytest.mark.triton, pytest.mark.skipif(not ASKED, reason="asked for by TRITON_INTERPRET=1: make test-triton")]


@pytest.fixture(autouse=True)
def fresh_memory_is_poisoned():
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills new memory with NaN and the largest integers
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def ours():
    from saescale.sae.kernels import triton_device
    return triton_device


def rows(n_rows, width, seed=0):
    return torch.randn(n_rows, width, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def assert_near(found, wanted, tolerance=1e-5):
    assert (found.double() - wanted).norm() <= tolerance * wanted.norm()


def dense(pairs, n_latents):
    """Values by (token, latent); pairs of value 0 are nowhere."""
    full = torch.zeros(len(pairs.row_offsets) - 1, n_latents, dtype=pairs.values.dtype, device=pairs.values.device)
    kept = pairs.values != 0
    full[pairs.tokens[kept], pairs.latents[kept]] = pairs.values[kept]
    return full


def entries(name, n_tokens, width):
    z = rows(n_tokens, width)
    if name == "many equal":
        return (z * 2).round() / 2
    if name == "all equal":
        return torch.full_like(z, 2.0)
    if name == "few positive":
        return torch.where(torch.arange(width, device=z.device) % 97 == 5, z.abs(), -z.abs())
    if name == "none positive":
        return -z.abs()
    if name == "not finite":
        z[0, 33], z[1, 7], z[1, 50] = torch.inf, torch.nan, -torch.nan
    return z


NAMES = ["random", "many equal", "all equal", "few positive", "none positive", "not finite"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_tokens, width, k", [(2, 601, 16), (2, 2003, 5)], ids=str)
def test_top_k_is_exact_and_keeps_the_lower_of_equal_latents(ours, name, n_tokens, width, k):
    z = entries(name, n_tokens, width)
    found, wanted = ours.top_k(z, k), torch_device.top_k(z, k)
    assert torch.equal(dense(found, width).nan_to_num(-1.0), dense(wanted, width).nan_to_num(-1.0))
    assert torch.equal(found.row_offsets, wanted.row_offsets) and torch.equal(found.tokens, wanted.tokens)


@pytest.mark.parametrize("n_tokens, width, k", [(2, 10_007, 32), (1, 20_011, 128), (2, 100, 100), (3, 9, 1), (1, 3001, 700)],
                         ids=str)
def test_top_k_of_odd_shapes_is_that_of_a_sort(ours, n_tokens, width, k):
    z = rows(n_tokens, width)
    values, columns = z.sort(1, descending=True)
    wanted = torch.zeros_like(z).scatter_(1, columns[:, :k], values[:, :k].relu())
    assert torch.equal(dense(ours.top_k(z, k), width), wanted)


@pytest.mark.parametrize("n_dead", [0, 3, 150])
def test_top_k_among_some_latents_gives_the_others_nothing(ours, n_dead):
    z, only = rows(2, 601), torch.zeros(601, dtype=torch.bool, device=DEVICE)
    only[torch.arange(n_dead) * 4] = True
    found = ours.top_k(z, 16, only)
    assert torch.equal(dense(found, 601), dense(torch_device.top_k(z, 16, only), 601))
    assert only[found.latents[found.values > 0]].all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_tokens, width, n_kept", [(5, 601, 40), (3, 2003, 600)], ids=str)
def test_batch_top_k_is_exact_and_keeps_the_first_of_equals(ours, name, n_tokens, width, n_kept):
    z = entries(name, n_tokens, width)
    found, wanted = ours.batch_top_k(z, n_kept), torch_device.batch_top_k(z, n_kept)
    for ours_, theirs in zip(found, wanted, strict=True):
        assert torch.equal(torch.nan_to_num(ours_, 7.0), torch.nan_to_num(theirs, 7.0))


def test_rounded_products_are_selected_as_if_the_biased_ones_were_written_out(ours):
    x, W_enc, b_enc = rows(3, 17), rows(17, 601, 1), rows(1, 601, 2)[0]
    read = ours.products(x, W_enc, b_enc, "bfloat16")
    written = kernels.pre_activations(x, W_enc, b_enc, "bfloat16").clone()
    assert read.shape == written.shape and len(read) == 3
    for select, n in ((ours.top_k, 8), (ours.batch_top_k, 24)):
        assert all(torch.equal(a, b) for a, b in zip(select(read, n), select(written, n), strict=True))


def some_pairs(ours, n_tokens, n_latents, n_pairs):
    """Pairs that fall on tokens unevenly, some of value 0."""
    pairs = ours.batch_top_k(rows(n_tokens, n_latents) + torch.linspace(0, 2, n_tokens, device=DEVICE)[:, None], n_pairs)
    values = pairs.values.clone()
    values[::7] = 0.0
    return pairs._replace(values=values)


@pytest.mark.parametrize("tile", [None, 1024], ids=["wide", "narrow"])
@pytest.mark.parametrize("n_tokens, d_in, n_latents, n_pairs", [(5, 513, 211, 80), (7, 33, 101, 120)], ids=str)
def test_sums_over_pairs_equal_float64(ours, monkeypatch, tile, n_tokens, d_in, n_latents, n_pairs):
    if tile:
        monkeypatch.setattr(ours, "TILE", tile)
    pairs = some_pairs(ours, n_tokens, n_latents, n_pairs)
    W_dec, x = rows(n_latents, d_in, 1), rows(n_tokens, d_in, 2)
    acts, on = dense(pairs, n_latents).double(), pairs.values != 0
    assert_near(ours.decode(pairs, W_dec), acts @ W_dec.double())
    minus_e, along = ours.errors(pairs, W_dec, x)
    exact = acts @ W_dec.double() - x.double()
    assert_near(minus_e, exact)
    assert_near(along, (exact @ W_dec.double().T)[pairs.tokens, pairs.latents] * on)
    assert_near(ours.dots(pairs, W_dec, x), (x.double() @ W_dec.double().T)[pairs.tokens, pairs.latents] * on)


@pytest.mark.parametrize("tile", [None, 1024], ids=["wide", "narrow"])
def test_sums_over_the_pairs_of_a_latent_equal_float64_and_are_written_whole(ours, monkeypatch, tile):
    if tile:
        monkeypatch.setattr(ours, "TILE", tile)
    pairs = some_pairs(ours, 31, 13, 200)
    rows_, groups = rows(31, 601, 2), ours.group_by_latent(pairs, 13)
    weights = rows(1, 200, 3)[0] * (pairs.values != 0)
    by_entry = dense(pairs._replace(values=weights), 13).double()
    out = torch.full((13, 601), torch.nan, device=DEVICE)
    ours.sum_rows(groups, weights, rows_, out)
    assert_near(out, by_entry.T @ rows_.double())
    assert_near(ours.sum_group(groups, weights), by_entry.sum(0))
    only, before = torch.arange(13, device=DEVICE) % 3 == 0, torch.full((13, 601), 5.0, device=DEVICE)
    ours.sum_rows(groups, weights, rows_, before, only)
    assert torch.equal(before, torch.where(only[:, None], out, 5.0))


@pytest.mark.parametrize("largest_norm", [None, 0.5])
@pytest.mark.parametrize("n_params, start, n, d", [(3001, 700, 50, 17), (40_009, 8191, 37, 513), (3001, None, 0, 0)], ids=str)
def test_adam_in_one_pass_equals_float64(ours, largest_norm, n_params, start, n, d):
    params, grad, m, v = rows(4, n_params)
    v.square_()
    p, g, m64, v64 = (t.double() for t in (params, grad, m, v))
    unit = None if start is None else params[start : start + n * d].view(n, d)
    lr, step = torch.tensor(1e-2, device=DEVICE, dtype=torch.float64), torch.tensor(3.0, device=DEVICE)
    norm = ours.adam(params, grad, (m, v), AdamRule(lr, 0.8, 0.99, 1e-6, largest_norm, step), unit)
    assert float(norm) == pytest.approx(g.norm().item(), rel=1e-5)
    g = g if largest_norm is None else g * (largest_norm / g.norm())
    m64, v64 = 0.8 * m64 + 0.2 * g, 0.99 * v64 + 0.01 * g * g
    p = p - 1e-2 * m64 / (1 - 0.8**3) / ((v64 / (1 - 0.99**3)).sqrt() + 1e-6)
    if unit is not None:
        p[start : start + n * d].view(n, d).div_(p[start : start + n * d].view(n, d).norm(dim=1, keepdim=True))
    for found, wanted in ((params, p), (m, m64), (v, v64)):
        assert_near(found, wanted)


AUXK = dict(k=3, aux_coeff=0.5, k_aux=4, dead_after_tokens=1000)
SPECS = {
    "topk": (SAESpec("topk", 17, 37, **AUXK), reference.topk_loss, ()),
    "batchtopk": (SAESpec("batchtopk", 17, 37, **AUXK), reference.batchtopk_loss, ()),
    "matryoshka": (SAESpec("matryoshka", 17, 37, **AUXK), reference.batchtopk_loss, ((1, 3, 8, 17, 37),)),
}


def batch(n_tokens, d_in, seed=0):
    x = rows(n_tokens, d_in, seed) + 0.3
    return x * (d_in / x.square().sum(1).mean()).sqrt()


def well_apart(sae, x, groups):
    """The tokens of x whose largest pre-activations differ clearly from the next ones, so that rounding changes no selection.

    groups: (latents, how many of them are kept).
    """
    clear = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for latents, k in groups:
        best = sae.pre_acts(x)[:, latents].topk(k + 1, dim=1).values
        clear &= best[:, k - 1] > best[:, k] + 0.05
    return x[clear]


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-5), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("name", SPECS)
def test_loss_and_gradients_with_auxk_equal_autograd_in_float64(name, precision, tolerance):
    spec, loss_of, prefixes = SPECS[name]
    spec = SAESpec(**{**vars(spec), "precision": precision})
    x, dead = batch(80, 17), torch.arange(5) * 3 + 1
    variance = InputSample.of(x.cpu()).variance
    trainable = Trainable.create(spec, 1, InputSample.of(x.cpu()), "triton", device=DEVICE)
    sae, mask = trainable.sae, torch.zeros(37, dtype=torch.bool, device=DEVICE)
    mask[dead] = True
    sae.b_enc.add_(6.0)
    sae.b_enc[mask] -= 7.0  # never among the k largest, and awake enough for AuxK
    trainable.memory.tokens_since_fired[mask] = 1000
    x = well_apart(sae, x, ((~mask, 3), (mask, 4)))[:7]
    assert len(x) == 7
    params = {n: t.double().contiguous().requires_grad_() for n, t in sae.params().items()}
    loss = loss_of(params, x.double(), 3, mask, 4, 0.5 * variance, *prefixes)
    terms = trainable.compute_gradients(x)
    assert float(terms.aux_loss) > 0
    assert float(terms.loss) == pytest.approx(loss.item(), rel=tolerance)
    for n, wanted in reference.gradients(loss, params, unit_decoder=True).items():
        assert_near(trainable.grads.params()[n], wanted, tolerance)


def test_two_trainings_alike_have_the_same_bits_and_end_where_plain_torch_ends():
    xs = [batch(5, 17, seed) for seed in range(2)]
    spec = SAESpec("topk", 17, 23, k=3, dead_after_tokens=5)
    ends = []
    for backend in ("triton", "triton", "torch"):
        trainable = Trainable.create(spec, 0, InputSample.of(xs[0].cpu()), backend, device=DEVICE)
        for x in xs:
            trainable.step(x, 1e-3)
        ends.append(trainable.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert_near(ends[0]["params"], ends[2]["params"].double(), 1e-6)


def test_every_kernel_compiles_for_a_hopper_gpu(tmp_path):
    script = Path(__file__).with_name("compile_for_hopper.py")
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=600, cwd=script.parents[2],
                          env=env | {"TRITON_CACHE_DIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    named = {line.split()[0] for line in done.stdout.splitlines()}
    assert named == {"candidates", "keep_largest", "count_reaching", "count_rows", "keep_rows", "pair_rows", "sum_rows",
                     "sum_group", "adam", "adam_of_unit_rows"}


def test_pairs_in_float64_go_to_plain_torch(ours):
    z = rows(3, 50).double()
    assert isinstance(ours.top_k(z, 4), Pairs)
    assert ours.top_k(z, 4).values.dtype == torch.float64
