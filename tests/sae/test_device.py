"""What training on a GPU needs, shown without one: the meta device has shapes but no numbers, so that waiting for one fails."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saescale.sae import kernels, model
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

SPECS = {
    "topk": SAESpec("topk", 24, 96, k=5, dead_after_tokens=200),
    "batchtopk": SAESpec("batchtopk", 24, 96, k=5, dead_after_tokens=200),
    "matryoshka": SAESpec("matryoshka", 24, 96, k=5, dead_after_tokens=200),
    "relu_l1": SAESpec("relu_l1", 24, 96, sparsity_coeff=2.0),
    "relu_l1 at an l0": SAESpec("relu_l1", 24, 96, sparsity_coeff=2.0, target_l0=8),
    "jumprelu": SAESpec("jumprelu", 24, 96, sparsity_coeff=2.0, bandwidth=0.5),
    "jumprelu_tanh": SAESpec("jumprelu_tanh", 24, 96, sparsity_coeff=2.0),
    "gated": SAESpec("gated", 24, 96, sparsity_coeff=2.0),
    "topk in bf16": SAESpec("topk", 24, 96, k=5, precision="bfloat16"),
    "relu_l1 in bf16": SAESpec("relu_l1", 24, 96, sparsity_coeff=2.0, precision="bfloat16"),
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def batches(n, seed=0, n_tokens=32, d_in=24):
    x = torch.randn(n, n_tokens, d_in, generator=torch.Generator().manual_seed(seed)) + 0.2
    return x * (d_in / x.square().sum(-1).mean()).sqrt()


class NothingLeaves(TorchDispatchMode):
    """Raises where an operation reads or writes a tensor that is not on the device; constants that torch wraps are none."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is not torch.ops.aten.scalar_tensor.default:
            for t in tree_leaves((args, kwargs, out)):
                wrapped = isinstance(t, torch.Tensor) and t.ndim == 0 and func is torch.ops.aten.where.self
                if isinstance(t, torch.Tensor) and t.device.type != "meta" and not wrapped:
                    raise AssertionError(f"{func} meets a tensor on {t.device}")
        return out


@pytest.fixture(autouse=True)
def no_memory_of_other_tests(monkeypatch):
    monkeypatch.setattr(kernels, "_scratch", {})


def on_device(spec):
    return Trainable(spec, model.init(spec, 0, InputSample.of(batches(1)[0])), 24.0, "torch", device="meta")


@every_spec
def test_a_training_step_on_a_gpu_mixes_no_devices_and_never_waits_for_the_host(spec):
    trainable = on_device(spec)
    x, lr, ramp = (torch.empty(shape, device="meta") for shape in ((32, 24), (), ()))
    with NothingLeaves():
        trainable.step(x, lr, ramp)
        trainable.step(x, 1e-3, 0.5)
    assert {tensor.device.type for tensor in trainable.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("slip", [
    lambda t: t.memory.tokens_since_fired.nonzero(),
    lambda t: float(t.memory.last_l0),
    lambda t: bool(t.memory.last_l0 > 3),
    lambda t: t.params + torch.ones(len(t.params)),
    lambda t: t.params * torch.tensor(2.0),
    lambda t: t.params.cpu(),
    lambda t: torch.tensor(0.5).to(t.device),
    lambda t: t.params[t.params > 0],
], ids=["shape by content", "float", "bool", "mixed", "host scalar", "to the host", "from the host", "boolean index"])
def test_what_waits_or_mixes_devices_would_be_noticed(slip):
    trainable = on_device(SPECS["topk"])
    with NothingLeaves(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        slip(trainable)


def test_what_selects_by_rank_and_decodes_works_where_the_tensors_are():
    sae = model.init(SPECS["topk"], 0, InputSample.of(batches(1)[0])).to("meta")
    with NothingLeaves():
        x_hat = sae.decode_pairs(sae.kind.activate(sae, sae.pre_acts(torch.empty(32, 24, device="meta"))))
    assert x_hat.shape == (32, 24) and x_hat.is_meta


@pytest.mark.parametrize("name, device, means", [
    ("auto", "cuda", "triton"), ("auto", "cuda:1", "triton"), ("auto", "mps", "torch"), ("torch", "cpu", "torch"),
    ("torch", "cuda", "torch"), ("triton", "cuda", "triton"), ("cpu", "cpu", "cpu")])
def test_kernels_are_chosen_for_the_device(monkeypatch, name, device, means):
    monkeypatch.setattr(kernels, "find_spec", lambda _: True)
    assert kernels.resolve(name, device) == means


def test_auto_on_a_gpu_without_triton_is_torch(monkeypatch):
    monkeypatch.setattr(kernels, "find_spec", lambda _: None)
    assert kernels.resolve("auto", "cuda") == "torch"
    with pytest.raises(ValueError, match="triton kernels are not installed: pip install 'saescale.gpu.', or choose"):
        kernels.resolve("triton", "cuda")


@pytest.mark.parametrize("name", kernels.BACKENDS)
def test_kernels_of_a_processor_are_refused_on_a_gpu(name):
    with pytest.raises(ValueError, match=f"the {name} kernels run on a processor, but this SAE trains on cuda"):
        kernels.resolve(name, "cuda")


def test_triton_is_refused_on_a_processor_unless_interpreted(monkeypatch):
    monkeypatch.setattr(kernels, "find_spec", lambda _: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="the triton kernels need a CUDA device, but this SAE trains on cpu"):
        kernels.resolve("triton", "cpu")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert kernels.resolve("triton", "cpu") == "triton"


def test_a_batch_on_another_device_is_refused():
    with pytest.raises(ValueError, match="a batch lies on cpu, but this SAE trains on meta: give it there"):
        on_device(SPECS["topk"]).step(batches(1)[0], 1e-3)


def test_a_clone_stays_on_the_device():
    assert on_device(SPECS["topk"]).clone().device == torch.device("meta")


@every_spec
def test_training_with_kernels_of_a_device_ends_where_those_of_a_processor_end(spec):
    xs = batches(12)
    ours, theirs = (Trainable.create(spec, 0, InputSample.of(xs[0]), backend) for backend in ("torch", "cpu"))
    for x in xs:
        for trainable in (ours, theirs):
            trainable.step(x, 1e-3, 0.5)
    tolerance = 1e-2 if spec.precision == "bfloat16" else 1e-4  # Adam's first steps are the signs of small gradients
    if spec.precision == "float32":  # rounded pre-activations are often equal, and each backend keeps others of equals
        moved = theirs.params - Trainable.create(spec, 0, InputSample.of(xs[0])).params
        assert (ours.params - theirs.params).norm() <= 5 * tolerance * moved.norm()
    wanted, found = theirs.read_stats(), ours.read_stats()
    assert wanted.keys() == found.keys()
    assert [found[name] for name in wanted] == pytest.approx(list(wanted.values()), rel=tolerance)


@pytest.mark.parametrize("lr, ramp", [(1e-2, 0.5), (1e-3, 1.0)])
@every_spec
def test_rates_given_as_tensors_step_as_numbers_do(spec, lr, ramp):
    xs = batches(3)
    numbers, tensors = (Trainable.create(spec, 0, InputSample.of(xs[0]), "torch") for _ in range(2))
    for x in xs:
        numbers.step(x, lr, ramp)
        tensors.step(x, torch.tensor(lr, dtype=torch.float64), torch.tensor(ramp, dtype=torch.float64))
    for name, tensor in numbers.state_dict().items():
        assert torch.allclose(tensor, tensors.state_dict()[name], rtol=1e-6, atol=1e-7), name


def test_a_step_that_knows_that_no_latent_is_dead_leaves_auxk_out_and_has_the_same_bits(monkeypatch):
    xs, spec = batches(6), SAESpec("topk", 24, 96, k=5, dead_after_tokens=2_000_000)
    told, asked = (Trainable.create(spec, 0, InputSample.of(xs[0]), "torch") for _ in range(2))
    told.read_stats()
    assert asked.may_have_dead and not told.may_have_dead
    for x in xs:
        asked.step(x, 1e-2)
    monkeypatch.setattr("saescale.sae.kinds.topk.masked_aux_k_gradients", None)
    for x in xs:
        told.step(x, 1e-2)
    for name, tensor in told.state_dict().items():
        if name != "statistics":
            assert torch.equal(tensor, asked.state_dict()[name]), name


def test_a_latent_that_may_have_died_since_the_last_look_is_looked_for():
    spec = SAESpec("topk", 24, 96, k=5, dead_after_tokens=1_200_000)
    trainable = Trainable.create(spec, 0, InputSample.of(batches(1)[0]), "torch")
    trainable.read_stats()
    assert not trainable.may_have_dead
    trainable.pass_over(200_000)
    assert trainable.may_have_dead
    trainable.read_stats()
    assert not trainable.may_have_dead
    trainable.load_state_dict(trainable.state_dict())
    assert trainable.may_have_dead
    trainable.read_stats()
    assert not trainable.may_have_dead
    trainable.ranks = SimpleNamespace(size=2, totals=lambda *counts: counts, least=lambda _: [-1_200_000])
    trainable.read_stats()
    assert trainable.may_have_dead  # on the other rank one has been silent for longer
