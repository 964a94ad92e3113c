"""The exported SAE."""

import json

import pytest
import torch
from safetensors.torch import load_file

from saescale.sae import export
from saescale.sae.model import InputSample
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable

KNOBS = {"topk": dict(k=4), "batchtopk": dict(k=4), "matryoshka": dict(k=4), "relu_l1": dict(sparsity_coeff=1.0),
         "jumprelu": dict(sparsity_coeff=0.5, bandwidth=0.5), "jumprelu_tanh": dict(sparsity_coeff=1.0),
         "gated": dict(sparsity_coeff=1.0)}
SPECS = {kind: SAESpec(kind, 16, 60, **knobs) for kind, knobs in KNOBS.items()}
ARCHITECTURES = {"topk": "topk", "relu_l1": "standard", "gated": "gated"}  # the others are thresholds by then: jumprelu
SCALE = 3.7


@pytest.fixture(params=SPECS.values(), ids=SPECS)
def trained(request):
    x = torch.randn(640, 16, generator=torch.Generator().manual_seed(0)) + 0.4
    x *= (16 / x.square().sum(1).mean()).sqrt()
    trainable = Trainable.create(request.param, 0, InputSample.of(x))
    for batch in x.split(64):
        trainable.step(batch, 1e-2)
    return trainable.sae, x


def test_the_export_of_raw_activations_equals_the_training_time_function(trained, tmp_path):
    sae, x = trained
    export.save(sae, SCALE, tmp_path, {"hook_name": "blocks.1.hook_resid_post"})
    raw = export.load(tmp_path)
    assert torch.allclose(raw.reconstruct(x / SCALE) * SCALE, sae.reconstruct(x), atol=1e-5)
    assert torch.allclose(raw.encode(x / SCALE) * SCALE, sae.encode(x), atol=1e-5)
    assert torch.equal(raw.W_enc, sae.W_enc) and torch.equal(raw.W_dec, sae.W_dec)
    assert raw.W_enc.T.is_contiguous()


def test_a_forward_pass_as_saelens_writes_it_gives_the_same_reconstruction(trained, tmp_path):
    """SAELens 6.54, its inference classes: subtract b_dec if the flag says so, activate, decode; nothing else is on."""
    sae, x = trained
    export.save(sae, SCALE, tmp_path, {})
    cfg, w = json.loads((tmp_path / "cfg.json").read_text()), load_file(tmp_path / "sae_weights.safetensors")
    architecture = ARCHITECTURES.get(sae.kind.name, "jumprelu")
    assert cfg["architecture"] == architecture
    vectors = {"gated": ("b_gate", "b_mag", "r_mag"), "jumprelu": ("b_enc", "threshold")}.get(architecture, ("b_enc",))
    assert {name: tuple(tensor.shape) for name, tensor in w.items()} == {
        "W_enc": (16, 60), "W_dec": (60, 16), "b_dec": (16,), **dict.fromkeys(vectors, (60,))
    }  # fmt: skip
    x_raw = x / SCALE
    w["b_enc"] = w.get("b_enc", w.get("b_gate"))
    projected = (x_raw - w["b_dec"] if cfg["apply_b_dec_to_input"] else x_raw) @ w["W_enc"]
    pre_acts = projected + w["b_enc"]
    if cfg["architecture"] == "topk":
        assert cfg["rescale_acts_by_decoder_norm"] is False
        values, columns = pre_acts.topk(cfg["k"], dim=1)
        acts = torch.zeros_like(pre_acts).scatter_(1, columns, values.relu())
    elif cfg["architecture"] == "jumprelu":
        acts = pre_acts.relu() * (pre_acts > w["threshold"])
    elif cfg["architecture"] == "gated":
        acts = (pre_acts > 0) * (projected * w["r_mag"].exp() + w["b_mag"]).relu()
    else:
        assert "k" not in cfg
        acts = pre_acts.relu()
    assert torch.allclose((acts @ w["W_dec"] + w["b_dec"]) * SCALE, sae.reconstruct(x), atol=1e-5)


def test_cfg_holds_what_saelens_reads_and_carries_our_metadata(trained, tmp_path):
    export.save(trained[0], SCALE, tmp_path, {"hook_name": "blocks.1.hook_resid_post", "model_name": "tiny", "run_id": "r1"})
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    assert (cfg["d_in"], cfg["d_sae"], cfg["dtype"]) == (16, 60, "float32")
    assert cfg["normalize_activations"] == cfg["reshape_activations"] == "none"
    metadata = cfg["metadata"]
    assert int(metadata["sae_lens_version"].split(".")[0]) >= 6
    assert (metadata["hook_name"], metadata["model_name"], metadata["run_id"]) == ("blocks.1.hook_resid_post", "tiny", "r1")
    assert metadata["saescale"]["scale"] == SCALE


def test_saving_leaves_the_sae_in_training_as_it_was(trained, tmp_path):
    sae, _ = trained
    before = sae.clone()
    export.save(sae, SCALE, tmp_path, {})
    for name, tensor in sae.params().items():
        assert torch.equal(tensor, before.params()[name])


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_that_cannot_be_folded_is_refused(trained, tmp_path, scale):
    with pytest.raises(ValueError, match="cannot be folded"):
        export.save(trained[0], scale, tmp_path, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "keep"), [("sae_weights.safetensors", 3000), ("sae_weights.safetensors", 4), ("cfg.json", 9)])
def test_a_file_that_was_cut_off_is_refused_by_its_name(trained, tmp_path, name, keep):
    export.save(trained[0], SCALE, tmp_path, {})
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        export.load(tmp_path)


def test_metadata_that_is_not_json_is_refused_before_anything_is_written(trained, tmp_path):
    with pytest.raises(TypeError):
        export.save(trained[0], SCALE, tmp_path, {"model": object()})
    assert not list(tmp_path.iterdir())


def test_loading_a_folder_without_an_export_or_of_another_maker_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match="cfg.json is missing"):
        export.load(tmp_path)
    export.save(trained[0], SCALE, tmp_path, {})
    (tmp_path / "cfg.json").write_text('{"architecture": "topk", "metadata": {}}')
    with pytest.raises(ValueError, match="not written by saescale"):
        export.load(tmp_path)
