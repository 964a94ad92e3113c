"""An SAE whose latents are dealt over processes is the SAE of one process. Run as a script, this file is one of the processes."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from saescale.campaign import placement
from saescale.campaign.local import joint_environment
from saescale.campaign.plan import PlannedRun
from saescale.sae import model
from saescale.sae.kernels import cpu
from saescale.sae.model import InputSample
from saescale.sae.ranks import ALONE
from saescale.sae.shards import ShardedKernels, Share
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable
from saescale.training.parallel import joined
from saescale.training.parts import save_parts

D_IN, N_TOKENS = 12, 32
SPECS = {
    "topk with dead latents": SAESpec("topk", D_IN, 50, k=5, dead_after_tokens=64),
    "topk with k above a share": SAESpec("topk", D_IN, 18, k=7),
    "batchtopk": SAESpec("batchtopk", D_IN, 50, k=5, dead_after_tokens=64),
    "matryoshka": SAESpec("matryoshka", D_IN, 50, k=5, dead_after_tokens=64),
    "relu_l1": SAESpec("relu_l1", D_IN, 50, sparsity_coeff=2.0),
    "sparse relu_l1": SAESpec("relu_l1", D_IN, 640, sparsity_coeff=20.0),
    "jumprelu": SAESpec("jumprelu", D_IN, 50, sparsity_coeff=2.0, bandwidth=0.5),
    "jumprelu_tanh": SAESpec("jumprelu_tanh", D_IN, 50, sparsity_coeff=2.0),
    "gated at an l0": SAESpec("gated", D_IN, 50, sparsity_coeff=2.0, target_l0=6),
}
TERMS = ("loss", "sum_sq_error", "l0", "aux_loss")
STEPS, RESUMED_AT = 24, 14
STEPS_IN_DOUBLE = 50


def batches(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, N_TOKENS, D_IN, generator=generator) + 0.2
    return x * (D_IN / x.square().sum(-1).mean()).sqrt()


def whole_grads(trainable):
    """The gradients of all ranks, by parameter, on the first."""
    kept = trainable.params.clone()
    trainable.params.copy_(trainable.grad)
    whole = trainable.whole_sae()
    found = whole and {name: tensor.clone() for name, tensor in whole.params().items()}
    trainable.params.copy_(kept)
    return found


def one_step(trainable, x):
    terms = trainable.compute_gradients(x, 0.5)
    return {name: torch.tensor(float(getattr(terms, name))) for name in TERMS}, whole_grads(trainable)


def as_tensors(prefix, state):
    return {f"{prefix}/{name}": tensor.clone().contiguous() for name, tensor in state.items()}


def train(trainable, xs):
    for x in xs:
        trainable.step(x, 1e-2, 0.5)
    return trainable


def trained_in_double(spec, ranks=ALONE):
    xs = batches(STEPS_IN_DOUBLE)
    start, sample = model.init(spec, 0, InputSample.of(xs[0])), InputSample.of(xs[0])
    double = replace(start, **{name: getattr(start, name).double() for name in model.WEIGHTS},
                     own={name: tensor.double() for name, tensor in start.own.items()})
    share = Share.of(spec.n_latents, ranks.rank, ranks.size)
    return train(Trainable(spec, share.of_sae(double), sample.variance, ranks=ranks), xs.double())


class Counted:
    """Ranks that note what this one sends by ring algorithms, tensors of more than a few numbers alone."""

    def __init__(self, ranks):
        self.ranks, self.sent = ranks, 0.0

    def __getattr__(self, name):
        return getattr(self.ranks, name)

    def sum_(self, tensor):
        self.sent += 2 * (self.size - 1) / self.size * tensor.nbytes
        return self.ranks.sum_(tensor)

    def gather(self, tensor):
        self.sent += (self.size - 1) * tensor.nbytes
        return self.ranks.gather(tensor)


def process(folder: Path, size: int) -> None:
    """What one of the processes does with every kind; the first writes what the test looks at."""
    torch.set_num_threads(1)
    xs, found = batches(STEPS), {}
    with joined(size) as ranks:
        for name, spec in SPECS.items():
            counted = Counted(ranks)
            made = Trainable.create(spec, 0, InputSample.of(xs[0]), ranks=counted)
            train(made.clone(), xs[:1])
            sent, early = counted.sent, made.clone()
            early.load_whole(load_file(folder / f"{name}-early.safetensors"))
            terms, grads = one_step(early, xs[8])
            train(made, xs[:RESUMED_AT])
            save_parts(made.to_write(), folder / f"{name}-{size}.safetensors", ranks)
            train(made, xs[RESUMED_AT:])
            whole = made.whole_sae()
            resumed = Trainable.create(spec, 99, InputSample.of(xs[0]), ranks=ranks)
            resumed.load_whole(load_file(folder / f"{name}-one.safetensors"))
            continued = train(resumed, xs[RESUMED_AT:]).whole_sae()
            stats = made.read_stats()
            double = trained_in_double(spec, ranks).whole_sae()
            if ranks.first:
                found |= as_tensors(f"{name}/double", double.params())
                found |= as_tensors(f"{name}/terms", terms) | as_tensors(f"{name}/grads", grads)
                found |= as_tensors(f"{name}/trained", whole.params()) | as_tensors(f"{name}/own", whole.own)
                found |= as_tensors(f"{name}/resumed", continued.params())
                found |= {f"{name}/n_dead": torch.tensor(stats["n_dead"]), f"{name}/sent": torch.tensor(sent)}
    if ranks.first:
        save_file(found, folder / f"found-{size}.safetensors")


def run(size: int, *script: str) -> None:
    env = {**os.environ, **joint_environment(size), "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen([sys.executable, __file__, *script, str(size)], env=env | {"RANK": str(r)}, text=True,
                                  stderr=subprocess.PIPE) for r in range(size)]
    said = [p.communicate(timeout=240)[1] for p in processes]
    assert not any(p.returncode for p in processes), said


@pytest.fixture(scope="module")
def one():
    """By kind: the trainable of one process after 8, RESUMED_AT and STEPS steps."""
    xs, made = batches(STEPS), {}
    for name, spec in SPECS.items():
        early = train(Trainable.create(spec, 0, InputSample.of(xs[0])), xs[:8])
        middle = train(early.clone(), xs[8:RESUMED_AT])
        made[name] = early, middle, train(middle.clone(), xs[RESUMED_AT:])
    return made


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)], ids="{0} ranks".format)
def found(request, one, tmp_path_factory):
    """What that many processes found, and the folder with their checkpoints."""
    folder = tmp_path_factory.mktemp("sharded")
    for name, (early, middle, _) in one.items():
        save_file(early.state_dict(), folder / f"{name}-early.safetensors")
        save_file(middle.state_dict(), folder / f"{name}-one.safetensors")
    run(request.param, str(folder))
    return load_file(folder / f"found-{request.param}.safetensors"), folder, request.param


def under(found, prefix):
    return {name.removeprefix(f"{prefix}/"): t for name, t in found.items() if name.startswith(f"{prefix}/")}


def close(got, expected, tolerance):
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        error, scale = (got[name].double() - tensor.double()).norm(), tensor.double().norm()
        assert error <= tolerance * scale, f"{name}: {error:.1e} of {scale:.1e}"


every_kind = pytest.mark.parametrize("name", SPECS)


@every_kind
def test_a_sharded_step_has_the_loss_and_the_gradients_of_one_process(found, one, name):
    terms, grads = one_step(one[name][0].clone(), batches(STEPS)[8])
    close(under(found[0], f"{name}/terms"), terms, 1e-5)
    close(under(found[0], f"{name}/grads"), grads, 1e-5)


@every_kind
def test_sharded_training_ends_at_the_weights_of_one_process(found, one, name):
    trained = one[name][2].clone()
    close(under(found[0], f"{name}/trained"), trained.sae.params(), 1e-4)
    close(under(found[0], f"{name}/own"), trained.sae.own, 1e-4)
    assert int(found[0][f"{name}/n_dead"]) == trained.read_stats()["n_dead"]


@every_kind
def test_in_float64_the_weights_after_fifty_sharded_steps_are_those_of_one_process(found, name):
    alone = trained_in_double(SPECS[name]).sae.params()
    assert all(tensor.dtype == torch.float64 for tensor in alone.values())
    close(under(found[0], f"{name}/double"), alone, 1e-5)


@every_kind
def test_a_checkpoint_of_one_process_goes_on_over_ranks(found, one, name):
    close(under(found[0], f"{name}/resumed"), one[name][2].sae.params(), 1e-4)


@every_kind
def test_a_checkpoint_of_several_ranks_is_one_file_that_one_process_goes_on_from(found, one, name):
    _, folder, size = found
    state, (_, middle, end) = load_file(folder / f"{name}-{size}.safetensors"), one[name]
    close(state, middle.state_dict(), 1e-4)
    resumed = Trainable.create(SPECS[name], 99, InputSample.of(batches(1)[0]))
    resumed.load_whole(state)
    close(train(resumed, batches(STEPS)[RESUMED_AT:]).sae.params(), end.sae.params(), 1e-4)


@every_kind
def test_a_step_sends_what_the_plan_says(found, name):
    spec, size = SPECS[name], found[2]
    science = {"sae": {"kind": spec.kind, "n_latents": spec.n_latents, "k": spec.k, "aux_coeff": 0.0},  # nothing is dead yet
               "train": {"batch_tokens": N_TOKENS}, "lm": {"d_in": D_IN}}
    planned = placement.sent_bytes(PlannedRun("r", "t", (), None, science, {}), size)
    has_pre_bias = spec.kind not in ("relu_l1", "jumprelu_tanh")
    assert float(found[0][f"{name}/sent"]) == pytest.approx(planned - (0 if has_pre_bias else 8 * (size - 1) / size * D_IN))


def test_the_case_with_dead_latents_has_some_and_the_sparse_case_is_sparse(one):
    assert one["topk with dead latents"][2].clone().read_stats()["n_dead"] > 0
    assert one["sparse relu_l1"][2].memory.last_l0 < 640 / 16


class Together:
    """Ranks of this process: each asks in turn, with the answers of a rehearsal in which all offers were noted."""

    def __init__(self, rank, size, offers):
        self.rank, self.size, self.first, self.offers = rank, size, rank == 0, offers

    def gather(self, tensor):
        self.offers[self.rank] = tensor
        return torch.stack([self.offers.get(r, torch.zeros_like(tensor)) for r in range(self.size)])


def selected(pre_acts, n_kept, selection, size=3):
    """By (token, latent): the values that `size` shares keep together."""
    shares, offers, kept = [Share.of(pre_acts.shape[1], r, size) for r in range(size)], {}, {}
    for _ in range(2):  # the rehearsal, then with everybody's offers
        kept.clear()
        for rank, share in enumerate(shares):
            kernels = ShardedKernels(cpu, Together(rank, size, offers), share, slice(0, 0))
            pairs = getattr(kernels, selection)(pre_acts[:, share.first:share.last].contiguous(), n_kept)
            assert torch.equal(pairs.row_offsets.diff(), torch.bincount(pairs.tokens, minlength=len(pre_acts)))
            latents = (pairs.latents + share.first).tolist()
            kept |= dict(zip(zip(pairs.tokens.tolist(), latents, strict=True), pairs.values.tolist(), strict=True))
    return kept


@pytest.mark.parametrize("k", [1, 4, 9])
def test_the_largest_over_shares_are_those_of_the_whole(k):
    pre_acts = torch.randn(20, 31, generator=torch.Generator().manual_seed(0)) - 0.3
    for selection, n_kept in (("top_k", k), ("batch_top_k", k * 20)):
        pairs = getattr(cpu, selection)(pre_acts, n_kept)
        places = zip(pairs.tokens.tolist(), pairs.latents.tolist(), strict=True)
        whole = {place: value for place, value in zip(places, pairs.values.tolist(), strict=True) if value > 0}
        assert selected(pre_acts, n_kept, selection) == whole


def test_ties_between_shares_are_broken_by_latent_and_by_position():
    pre_acts = torch.full((2, 7), 1.0)
    assert sorted(selected(pre_acts, 3, "top_k")) == [(t, i) for t in (0, 1) for i in (4, 5, 6)]
    assert sorted(selected(pre_acts, 9, "batch_top_k")) == [*((0, i) for i in range(7)), (1, 0), (1, 1)]


def test_a_nan_in_one_share_is_kept():
    pre_acts = torch.randn(3, 9, generator=torch.Generator().manual_seed(1))
    pre_acts[1, 8] = -float("nan")
    assert (1, 8) in selected(pre_acts, 2, "top_k")
    assert (1, 8) in selected(pre_acts, 6, "batch_top_k")


if __name__ == "__main__":
    process(Path(sys.argv[1]), int(sys.argv[2]))
