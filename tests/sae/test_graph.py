"""Recorded steps. The tape below replays operations on the very tensors they were recorded with, as a CUDA graph does."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saescale.sae import kernels
from saescale.sae.graph import WARM_UP, Recorded
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

SPECS = {
    "topk": SAESpec("topk", 24, 96, k=5, dead_after_tokens=200),
    "batchtopk": SAESpec("batchtopk", 24, 96, k=5, dead_after_tokens=200),
    "matryoshka": SAESpec("matryoshka", 24, 96, k=5, dead_after_tokens=200),
    "relu_l1": SAESpec("relu_l1", 24, 96, sparsity_coeff=2.0),
    "jumprelu at an l0": SAESpec("jumprelu", 24, 96, sparsity_coeff=2.0, bandwidth=0.5, target_l0=8),
    "jumprelu_tanh": SAESpec("jumprelu_tanh", 24, 96, sparsity_coeff=2.0),
    "gated": SAESpec("gated", 24, 96, sparsity_coeff=2.0),
}


class Tape(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        shaped = [t.view_as(t) if isinstance(t, torch.Tensor) else t for t in tree_leaves(out)]  # out may be squeezed in place
        self.calls.append((func, args, kwargs or {}, shaped))
        return out

    def replay(self):
        for func, args, kwargs, places in self.calls:
            again = func(*args, **kwargs)
            for place, now in zip(places, tree_leaves(again), strict=True):
                if isinstance(place, torch.Tensor) and place.data_ptr() != now.data_ptr():
                    place.copy_(now)


def recorded_on_tape(steps):
    """Records without a trace, as capturing does: what the recording run changed is put back."""
    tape = Tape()
    with tape:
        steps()
    return tape.replay


def batches(n, seed=0, n_tokens=32, d_in=24):
    x = torch.randn(n, n_tokens, d_in, generator=torch.Generator().manual_seed(seed)) + 0.2
    return x * (d_in / x.square().sum(-1).mean()).sqrt()


def started(spec, seed=0):
    return Trainable.create(spec, seed, InputSample.of(batches(1)[0]), "torch")


def rate(i):
    return 1e-2 / (1 + i // 3), min(1.0, 0.2 * (i + 1))


def without_trace(members):
    def record(steps):
        before = [{name: tensor.clone() for name, tensor in m.state_dict().items()} for m in members]
        replay = recorded_on_tape(steps)
        for member, state in zip(members, before, strict=True):
            for name, tensor in member.state_dict().items():
                tensor.copy_(state[name])
        return replay
    return record


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_replayed_step_has_the_bits_of_the_step_itself_at_other_batches_and_rates(spec):
    eager, member = started(spec), started(spec)
    recorded = Recorded([member], 32, without_trace([member]))
    for i, x in enumerate(batches(12)):
        lr, ramp = rate(i)
        eager.update(x, torch.tensor(lr, dtype=torch.float64), torch.tensor(ramp, dtype=torch.float64))
        recorded.step(x, [(lr, ramp)])
    assert len(recorded._replays) == 1
    for name, tensor in eager.state_dict().items():
        assert torch.equal(tensor, member.state_dict()[name]), name


def test_members_that_share_a_batch_step_as_each_would_alone():
    specs = [SPECS["topk"], SPECS["relu_l1"], SAESpec("topk", 24, 48, k=3, dead_after_tokens=200)]
    alone, fleet = [started(s, i) for i, s in enumerate(specs)], [started(s, i) for i, s in enumerate(specs)]
    recorded = Recorded(fleet, 32, without_trace(fleet))
    for x in batches(8):
        rates = [(1e-2, 0.5), (1e-3, 0.7), (5e-3, 1.0)]
        recorded.step(x, rates)
        for member, (lr, ramp) in zip(alone, rates, strict=True):
            member.update(x, torch.tensor(lr, dtype=torch.float64), torch.tensor(ramp, dtype=torch.float64))
    for one, other in zip(alone, fleet, strict=True):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


def test_another_recording_is_made_once_latents_may_have_died():
    spec = SAESpec("topk", 24, 96, k=5, dead_after_tokens=2**20 + 32 * 5)
    member = started(spec)
    member.read_stats()
    made = []
    recorded = Recorded([member], 32, lambda steps: made.append(member.may_have_dead) or steps)
    for x in batches(12):
        recorded.step(x, [(1e-2, 1.0)])
    assert made == [False, True]


def test_where_recording_fails_steps_go_on_and_it_is_said_once():
    def broken(_):
        raise RuntimeError("operation not permitted")
    eager, member = started(SPECS["topk"]), started(SPECS["topk"])
    recorded = Recorded([member], 32, broken)
    with pytest.warns(UserWarning, match="not recorded.*operation not permitted") as said:
        for x in batches(WARM_UP + 4):
            recorded.step(x, [(1e-2, 1.0)])
    assert len(said) == 1
    for x in batches(WARM_UP + 4):
        eager.step(x, torch.tensor(1e-2, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
    assert torch.equal(eager.params, member.params)


def test_kernels_of_a_processor_are_not_recorded():
    with pytest.raises(ValueError, match="steps can be recorded of SAEs on one device"):
        Recorded([Trainable.create(SPECS["topk"], 0, InputSample.of(batches(1)[0]), "cpu")], 32)


def test_scratch_memory_of_a_lane_is_its_own():
    first = kernels.scratch("of a test", (4,))
    with kernels.lane(1):
        other = kernels.scratch("of a test", (4,))
    assert other.data_ptr() != first.data_ptr() == kernels.scratch("of a test", (4,)).data_ptr()
    assert any(t is not None and t.data_ptr() == other.data_ptr() for t in kernels.scratch_in_use())
