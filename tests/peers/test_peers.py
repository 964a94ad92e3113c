"""Exchange with SAELens and sparsify, in their own environment: SAESCALE_PEERS names its Python (benchmarks/setup_peers.sh)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from saescale import parcel
from saescale.activations.folder import BUNDLED
from saescale.campaign.launch import launch
from saescale.campaign.plan import make_plan
from saescale.campaign.sweep import load
from saescale.measure.evaluate import HeldOut
from saescale.measure.subject import Subject
from saescale.records.store import Store, read_json
from saescale.sae import export, foreign
from saescale.sae.kinds import KINDS
from saescale.sae.model import SAE, InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

sys.path.insert(0, str(Path(__file__).parents[1]))
import hub_server  # noqa: E402

pytestmark = [pytest.mark.peers, pytest.mark.skipif(
    "SAESCALE_PEERS" not in os.environ, reason="needs sae-lens and eai-sparsify in their own environment: make test-peers")]
SETTINGS = {kind: {"k": 8} if kind in ("topk", "batchtopk", "matryoshka") else {"sparsity_coeff": 0.5} for kind in KINDS}
SETTINGS["jumprelu"] |= {"bandwidth": 0.5}
SCALE, D_IN = 0.3, 32
SWEEP = """\
question: Does their evaluator agree?
base: [lm=bundled, data=text_files, sae=topk, train=small, cluster=inprocess]
set: {data.path: DOCUMENTS, data.batch_sequences: 8, data.n_ctx: 64, data.packing: pack_bare,
      data.held_out_fraction: 0.2, data.activation_dtype: float32,
      train.lr_warmup_tokens: 512, eval.n_tokens: 4000, eval.ce_tokens: 4000, budget.min_steps: 10, sae.k: 8, sae.n_latents: 256}
grids:
  one: {train.n_tokens: 16384}
"""


class Silent:
    def stage(self, *_):
        pass


def ours(folder: Path) -> tuple[dict[str, str], dict[str, torch.Tensor], torch.Tensor]:
    """Every kind trained for a few steps and exported: (its folder, its reconstruction of x), and x."""
    x = torch.randn(2048, D_IN, generator=torch.Generator().manual_seed(0)) + 0.4
    x *= (D_IN / x.square().sum(1).mean()).sqrt()
    saes, expected = {}, {}
    for kind, settings in SETTINGS.items():
        trainable = Trainable.create(SAESpec(kind, D_IN, 160, **settings), 0, InputSample.of(x))
        for batch in x.split(128):
            trainable.step(batch, 1e-2)
        (folder / kind).mkdir()
        export.save(trainable.sae, SCALE, folder / kind, {"hook_name": "blocks.1.hook_resid_post"})
        saes[kind], expected[kind] = str(folder / kind), trainable.sae.reconstruct(x) / SCALE
    return saes, expected, x / SCALE


def a_run(folder: Path, documents: Path) -> tuple[Path, HeldOut]:
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "parity.yaml").write_text(SWEEP.replace("DOCUMENTS", str(documents)))
    store = Store(folder / "runs")
    plan = make_plan(load("parity"), store)
    assert launch(plan, store, Silent()).exit_code == 0
    run = plan.runs[0]
    subject = Subject(store, run.run_id, dict(run.science), dict(run.execution))
    held_out = HeldOut(subject.tokens, subject.source, subject.lm, subject.inputs.scale, run.science["eval"])
    return store.run_dir(run.run_id), held_out


@pytest.fixture(scope="module")
def sides(tmp_path_factory, small_documents):
    """Both sides of one exchange: (what ours gives, the folder of what theirs gave)."""
    folder = tmp_path_factory.mktemp("peers")
    before = Path.cwd()
    os.chdir(folder)
    try:
        saes, expected, x = ours(folder)
        run, held_out = a_run(folder, small_documents)
    finally:
        os.chdir(before)
    tokens = torch.cat([ids for ids, _ in held_out.ce_batches])
    save_file({"x": x}, folder / "x.safetensors")
    save_file({"tokens": tokens}, folder / "tokens.safetensors")
    job = {"saes": saes, "x": str(folder / "x.safetensors"), "out": str(folder), "run": str(run), "lm": str(BUNDLED),
           "tokens": str(folder / "tokens.safetensors"), "bos": int(tokens[0, 0]), "hook": HOOK}
    (folder / "job.json").write_text(json.dumps(job | {"repo": "lab/tiny"}))
    parcel.write(parcel.pack(Store(folder / "runs"), run.name, "lab/tiny"), folder / "pushed")
    with hub_server.serving(folder / "pushed") as (address, _):
        there = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HUB_CACHE": str(folder / "cache"), "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run([os.environ["SAESCALE_PEERS"], Path(__file__).parent / "peer_side.py", folder / "job.json"],
                              capture_output=True, text=True, env=os.environ | there, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return {"folder": folder, "expected": expected, "x": x, "run": run, "held_out": held_out}


HOOK = "model.layers.2"  # what SAELens calls blocks.2.hook_resid_post of a plain transformers model


def at_a_threshold(sae: SAE, x: torch.Tensor) -> torch.Tensor:
    """bool [token]: some latent is so near its threshold that the order of a sum decides whether it is on."""
    threshold = sae.own.get("threshold", torch.tensor(float("inf")))
    return ((sae.pre_acts(x) - threshold).abs() < 1e-5 * threshold).any(1) & threshold.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_of_every_kind_reconstructs_in_saelens_as_here(sides, kind):
    clear = ~at_a_threshold(export.load(sides["folder"] / kind), sides["x"])
    assert clear.float().mean() > 0.99
    found, expected = load_file(sides["folder"] / "reconstructions.safetensors")[kind][clear], sides["expected"][kind][clear]
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_what_push_uploads_saelens_loads_from_the_hub_by_repository_and_run(sides):
    there, here = load_file(sides["folder"] / "pushed.safetensors"), load_file(sides["run"] / export.WEIGHTS_FILE)
    assert set(here) <= set(there) and all(torch.equal(there[name], here[name]) for name in here)


@pytest.mark.parametrize("tool", ["saelens", "sparsify"])
def test_what_they_saved_reconstructs_here_as_there(sides, tool):
    sae = foreign.load(sides["folder"] / tool)
    assert foreign.origin(sides["folder"] / tool) == tool
    found, expected = sae.reconstruct(sides["x"]), load_file(sides["folder"] / "theirs.safetensors")[tool]
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_their_evaluator_and_ours_agree_on_l0_mse_and_the_language_models_losses(sides):
    """Same SAE, model and tokens. Their mse is a sum over d_in, of raw activations; ours a mean at mean square norm d_in."""
    ours, theirs = read_json(sides["run"] / "result.json")["metrics"], read_json(sides["folder"] / "metrics.json")
    held_out = sides["held_out"]
    d_in = held_out.x.shape[1]
    assert ours["l0"] == pytest.approx(theirs["l0"], rel=1e-4)
    assert ours["mse"] == pytest.approx(theirs["mse"] * held_out.scale**2 / d_in, rel=1e-4)
    assert 1 - ours["fvu"] == pytest.approx(theirs["explained_variance"], rel=1e-4)
    losses = load_file(sides["folder"] / "losses.safetensors")
    kept = torch.cat([k for _, k in held_out.ce_batches])
    ce = {name: float(loss[kept[:, :-1] & kept[:, 1:]].double().mean()) for name, loss in losses.items()}
    assert ours["ce_clean"] == pytest.approx(ce["without_sae"], rel=1e-4)
    assert ours["ce_with_sae"] == pytest.approx(ce["with_sae"], rel=1e-4)
    recovered = (ce["with_ablation"] - ce["with_sae"]) / (ce["with_ablation"] - ce["without_sae"])
    assert ours["ce_recovered"] == pytest.approx(recovered, rel=1e-4)


def test_the_core_evaluation_of_saebench_and_ours_agree_on_l0_and_the_language_models_losses(sides):
    """Their explained variance and mse are other quantities (docs/exchange.md). Rows are whole, their first token is BOS."""
    script = Path(__file__).parents[2] / "benchmarks" / "saebench_core.py"
    tokens = load_file(sides["folder"] / "tokens.safetensors")["tokens"]
    done = subprocess.run([os.environ["SAESCALE_PEERS"], script, sides["run"], BUNDLED, sides["folder"] / "tokens.safetensors",
                           "--at-once", str(len(tokens))], capture_output=True, text=True, timeout=600,
                          env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-4000:]
    theirs, ours = json.loads(done.stdout[done.stdout.index("{"):]), read_json(sides["run"] / "result.json")["metrics"]
    losses = theirs["model_performance_preservation"]
    assert theirs["sparsity"]["l0"] == pytest.approx(ours["l0"], rel=1e-4)
    assert losses["ce_loss_score"] == pytest.approx(ours["ce_recovered"], rel=1e-3)
    for name, own in (("without_sae", "ce_clean"), ("with_sae", "ce_with_sae"), ("with_ablation", "ce_zero_ablated")):
        assert losses[f"ce_loss_{name}"] == pytest.approx(ours[own], rel=1e-4)
