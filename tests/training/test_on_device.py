"""Members, checkpoints and evaluation on a device, without a GPU: the meta device stands for it, and files."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from saescale.measure.evaluate import on_host
from saescale.sae import kernels
from saescale.sae.model import WEIGHTS, InputSample, init
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable
from saescale.training import checkpoint, fleet, train
from saescale.training.checkpoint import TRUNK, Checkpoint
from saescale.training.fleet import Member, Trunk
from saescale.training.parallel import refuse_mixed, refuse_shared_gpu
from saescale.training.schedule import Schedule

SPEC = SAESpec("topk", 12, 40, k=4)
SCHEDULE = {"batch_tokens": 128, "lr": 1e-3, "lr_warmup_tokens": 512, "lr_decay_fraction": 0.2, "sparsity_warmup_tokens": 0}


@pytest.fixture(autouse=True)
def no_memory_of_other_tests(monkeypatch):
    monkeypatch.setattr(kernels, "_scratch", {})


def sample():
    return InputSample.of(torch.randn(256, 12, generator=torch.Generator().manual_seed(0)))


def test_a_trunk_that_forks_trains_on_its_device_and_asks_nothing_of_the_host():
    schedules = {name: Schedule.of({**SCHEDULE, "n_tokens": n * 128}) for name, n in (("short", 10), ("long", 15))}
    trunk = Trunk("t", {"train": SCHEDULE}, schedules)
    trunk.start(Trainable(SPEC, init(SPEC, 0, sample()), 12.0, "torch", device="meta"))
    trunk.advance(torch.empty(128 * 128, 12, device="meta"), 0, 13)  # any number read on the way would raise
    assert set(trunk.live) == {TRUNK, "short", "long"} and trunk.finished == ["short"]
    kept = trunk.checkpoint()
    assert kept.device == "meta" and {t.device.type for state in kept.states.values() for t in state.values()} == {"meta"}


def test_a_branch_has_spent_the_time_of_its_trunk_up_to_the_fork_and_its_own(monkeypatch):
    schedules = {name: Schedule.of({**SCHEDULE, "n_tokens": n * 128}) for name, n in (("short", 10), ("long", 15))}
    trunk, now = Trunk("t", {"train": SCHEDULE}, schedules), itertools.count()
    trunk.start(Trainable(SPEC, init(SPEC, 0, sample()), 12.0, "torch", device="meta"))
    monkeypatch.setattr("saescale.sae.device.time.perf_counter", lambda: next(now))  # every stretch takes a second
    trunk.advance(torch.empty(128 * 128, 12, device="meta"), 0, 13)
    assert {name: trunk.live[name].watch.taken() for name in ("short", "long")} == {"short": 1 + 1, "long": 2 + 1}


def test_members_whose_steps_are_recorded_take_the_steps_of_those_that_are_not(monkeypatch):
    schedules = {name: Schedule.of({**SCHEDULE, "n_tokens": n * 128}) for name, n in (("short", 10), ("long", 15))}
    block, ends = torch.randn(16 * 128, 12, generator=torch.Generator().manual_seed(1)), []
    for is_recorded in (True, False):
        monkeypatch.setattr(fleet, "is_recorded", lambda _, answer=is_recorded: answer)
        trunk = Trunk("t", {"train": SCHEDULE}, schedules)
        trunk.start(Trainable(SPEC, init(SPEC, 0, sample()), 12.0, "torch"))
        trunk.advance(block, 0, 15)
        assert all((member.recorded is not None) == is_recorded for member in trunk.live.values())
        ends.append(trunk.live["long"].trainable.params)
    assert torch.equal(*ends)


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "matryoshka", "relu_l1", "jumprelu", "jumprelu_tanh", "gated"])
def test_measuring_moves_the_rows_to_the_sae_and_what_is_counted_back(kind):
    of_k = {"k": 4} if kind in ("topk", "batchtopk", "matryoshka") else {"sparsity_coeff": 1.0}
    spec = SAESpec(kind, 12, 40, **of_k, **({"bandwidth": 0.5} if kind == "jumprelu" else {}))
    sae, x = init(spec, 0, sample()), torch.randn(64, 12)
    fake = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)  # whose shapes may depend on contents
    with fake:
        own = {name: fake.from_tensor(tensor) for name, tensor in sae.own.items()}
        there = replace(sae, **{name: fake.from_tensor(getattr(sae, name)) for name in WEIGHTS}, own=own).to("meta")
        found = on_host(there, fake.from_tensor(x))  # an operation on both devices would raise
    assert {t.device.type for t in there.params().values()} == {"meta"}
    assert {t.device.type for t in found} == {"cpu"}


def states(n=2):
    return {str(i): Trainable.create(SPEC, i, sample()).state_dict() for i in range(n)}


def test_a_checkpoint_written_one_tensor_at_a_time_is_that_written_at_once(tmp_path):
    made = states()
    for device in ("cpu", "cuda"):
        checkpoint.write(tmp_path / device, "t", Checkpoint(3, dict.fromkeys(made, 3), made, {}, "torch", device), False)
    at_once, in_turn = (load_file(next((tmp_path / d).glob("*.safetensors"))) for d in ("cpu", "cuda"))
    assert at_once.keys() == in_turn.keys()
    assert all(torch.equal(at_once[name], in_turn[name]) for name in at_once)
    found, _ = checkpoint.restore(tmp_path / "cuda", "t", {"0": 1})
    assert (found.device, found.kernels) == ("cuda", "torch")


def test_a_checkpoint_made_before_there_was_a_device_was_made_on_a_processor(tmp_path):
    checkpoint.write(tmp_path, "t", Checkpoint(3, {"0": 3}, states(1)), False)
    said = next(tmp_path.glob("*.json"))
    said.write_text(json.dumps({k: v for k, v in json.loads(said.read_text()).items() if k != "device"}))
    assert checkpoint.restore(tmp_path, "t", {"0": 1})[0].device == "cpu"


def test_a_trunk_begun_on_a_gpu_goes_on_on_a_processor_with_its_kernels_and_says_so(bed, undisturbed, monkeypatch, capfd):
    left, original = iter([True]), train.next_step
    with monkeypatch.context() as m:
        m.setattr(Member, "made_by", ("triton", "cuda"))
        m.setattr(train, "next_step", lambda *args: original(*args) if next(left, False) else None)
        assert bed.launch().exit_code == 3
    assert bed.launch().exit_code == 0
    assert "was begun on cuda with the triton kernels and goes on on cpu with cpu: the same to rounding" in capfd.readouterr().err
    assert bed.left_by(bed.plan()) == undisturbed


class Told:
    """Ranks of which each has the name of its GPU."""

    def __init__(self, *names):
        self.names, self.size = names, len(names)

    def totals(self, mine):
        return (mine + sum(name == "on a GPU" for name in self.names),)

    def gather(self, digest):
        return torch.stack([digest if name == "mine" else digest + 1 + i for i, name in enumerate(self.names)])


def test_ranks_that_share_an_sae_agree_on_whether_latents_may_be_dead_wherever_these_are():
    class Pair:
        rank, size, first = 0, 2, True

        def totals(self, *numbers):
            return numbers

        def least(self, *numbers):
            return [min(number, -3_000_000.0) for number in numbers]  # the other rank has a latent that was silent for so long

    spec = SAESpec("topk", 12, 40, k=4, dead_after_tokens=2_000_000)
    trainable = Trainable.create(spec, 0, sample(), "torch", ranks=Pair())
    trainable.read_stats()
    assert int(trainable.memory.tokens_since_fired.amax()) == 0 and trainable.may_have_dead


def test_ranks_of_one_job_on_different_kinds_of_device_are_refused():
    assert refuse_mixed(Told("mine", "on a GPU"), torch.device("cuda")) is None
    assert refuse_mixed(Told("mine", "on a processor"), torch.device("cpu")) is None
    with pytest.raises(ValueError, match="1 of the 2 ranks of this job see a GPU: all must train on the same kind of device"):
        refuse_mixed(Told("mine", "on a GPU"), torch.device("cpu"))


def test_two_ranks_with_one_gpu_are_refused_and_two_with_one_each_are_not():
    assert refuse_shared_gpu(Told("mine", "another"), "GPU-1") is None
    with pytest.raises(ValueError, match=r"this job has 3 ranks and 2 GPUs: each rank needs one of its own\."):
        refuse_shared_gpu(Told("mine", "mine", "another"), "GPU-1")
