"""docs/new_kind.md does what it says."""

import re
from pathlib import Path

import pytest
import torch

from saescale import kinds as facts
from saescale.sae import export, kernels, model
from saescale.sae.kernels import reference
from saescale.sae.kinds import KINDS
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

PAGE = Path(__file__).parents[2] / "docs" / "new_kind.md"


@pytest.fixture
def page(monkeypatch):
    """The code of the page, its kind registered as the page says."""
    kind, line, loss = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    assert len(kind.splitlines()) < 60
    made = {"torch": torch, **{name: getattr(facts, name) for name in ("KindFacts", "PENALTY")}}
    exec(compile(kind, str(PAGE), "exec"), made)
    exec(loss, made)
    monkeypatch.setitem(KINDS, "relu_log", made["ReluLog"])
    monkeypatch.setitem(facts.KINDS, "relu_log", eval("{" + line + "}", made)["relu_log"])
    return made


def inputs(seed=0):
    x = torch.randn(48, 16, generator=torch.Generator().manual_seed(seed)) + 0.3
    return x * (16 / x.square().sum(1).mean()).sqrt()


@pytest.mark.parametrize("path", ["dense", "sparse"])
def test_the_gradients_of_the_pages_kind_equal_autograd_in_float64(page, path):
    x = inputs()
    trainable = Trainable.create(SAESpec("relu_log", 16, 64, sparsity_coeff=3.0), 0, InputSample.of(x))
    trainable.sae.W_enc.mul_(5)
    trainable.memory.last_l0.fill_(64 if path == "dense" else 0)
    params = {name: tensor.double().contiguous().requires_grad_() for name, tensor in trainable.sae.params().items()}
    loss = page["relu_log_loss"](params, x.double(), 0.5 * 3.0)
    terms = trainable.compute_gradients(x, sparsity_scale=0.5)
    assert float(terms.loss) == pytest.approx(loss.item(), rel=1e-5)
    for name, expected in reference.gradients(loss, params, unit_decoder=False).items():
        assert (trainable.grads.params()[name].double() - expected).norm() <= 1e-5 * expected.norm(), name


@pytest.mark.usefixtures("page")
def test_the_pages_kind_steps_on_a_device_without_waiting_for_it(monkeypatch):
    monkeypatch.setattr(kernels, "_scratch", {})
    spec = SAESpec("relu_log", 16, 64, sparsity_coeff=0.3, target_l0=8)
    trainable = Trainable(spec, model.init(spec, 0), 16.0, "torch", device="meta")  # which has no numbers to wait for
    trainable.step(torch.empty(48, 16, device="meta"), 1e-2)
    x_hat, x = (torch.empty(48, 16, device="meta") for _ in range(2))
    pairs = kernels.of(x).top_k(trainable.sae.pre_acts(x), 3)
    assert trainable.sae.objective(x, x_hat, pairs).device == torch.device("meta")


@pytest.mark.usefixtures("page")
def test_the_pages_kind_is_solved_for_an_l0_resumes_and_is_exported(tmp_path):
    spec = SAESpec("relu_log", 16, 64, sparsity_coeff=0.3, target_l0=8)
    whole, half = (Trainable.create(spec, 0, InputSample.of(inputs())) for _ in range(2))
    for seed in range(300):
        whole.step(inputs(seed), 1e-2)
        if seed < 200:
            half.step(inputs(seed), 1e-2)
    resumed = Trainable.create(spec, 1, InputSample.of(inputs()))
    resumed.load_state_dict(half.state_dict())
    for seed in range(200, 300):
        resumed.step(inputs(seed), 1e-2)
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in whole.state_dict().items())
    assert float(whole.memory.last_l0) == pytest.approx(8, rel=0.2)
    export.save(whole.sae, 2.0, tmp_path, {})
    assert torch.allclose(export.load(tmp_path).reconstruct(inputs() / 2) * 2, whole.sae.reconstruct(inputs()), atol=1e-5)
