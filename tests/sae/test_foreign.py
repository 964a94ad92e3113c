"""SAEs of others, against what their own code computes, written out."""

import json

import pytest
import torch
from safetensors.torch import save_file

from saescale.sae import foreign

D, N, K = 6, 20, 3


@pytest.fixture
def tensors():
    g = torch.Generator().manual_seed(0)
    return {"W_enc": torch.randn(D, N, generator=g), "b_enc": torch.randn(N, generator=g),
            "W_dec": torch.randn(N, D, generator=g), "b_dec": torch.randn(D, generator=g)}


@pytest.fixture
def x():
    return torch.randn(50, D, generator=torch.Generator().manual_seed(1))


def write(folder, cfg, tensors, name="sae_weights.safetensors"):
    (folder / "cfg.json").write_text(json.dumps(cfg))
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / name)
    return folder


def keep_largest(acts, k):
    kept = torch.zeros_like(acts)
    values, at = acts.topk(k, dim=1)
    return kept.scatter(1, at, values)


def saelens(x, w, architecture, apply_b_dec, rescale=False):
    """SAELens 6.54's inference classes, straightforwardly."""
    x = x - w["b_dec"] if apply_b_dec else x
    if architecture == "gated":
        gate = x @ w["W_enc"] + w["b_gate"] > 0
        acts = gate * torch.relu(x @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"])
    else:
        pre = x @ w["W_enc"] + w["b_enc"]
        norms = w["W_dec"].norm(dim=1)
        acts = {"standard": lambda: torch.relu(pre), "jumprelu": lambda: torch.relu(pre) * (pre > w["threshold"]),
                "topk": lambda: keep_largest(torch.relu(pre * norms if rescale else pre), K)}[architecture]()
        if rescale:
            return acts @ (w["W_dec"] / norms[:, None]) + w["b_dec"]
    return acts @ w["W_dec"] + w["b_dec"]


@pytest.mark.parametrize("apply_b_dec", [True, False])
@pytest.mark.parametrize(("architecture", "rescale"), [("standard", False), ("topk", False), ("topk", True), ("jumprelu", False),
                                                       ("gated", False)])
def test_an_sae_of_saelens_reconstructs_as_saelens_does(tmp_path, tensors, x, architecture, rescale, apply_b_dec):
    g = torch.Generator().manual_seed(2)
    if architecture == "jumprelu":
        tensors["threshold"] = torch.rand(N, generator=g) - 0.2
    if architecture == "gated":
        tensors |= {"b_gate": tensors.pop("b_enc"), "b_mag": torch.randn(N, generator=g), "r_mag": torch.randn(N, generator=g)}
    cfg = {"architecture": architecture, "apply_b_dec_to_input": apply_b_dec, "normalize_activations": "none", "k": K,
           "rescale_acts_by_decoder_norm": rescale, "metadata": {"sae_lens_version": "6.54.12"}}
    expected = saelens(x, tensors, architecture, apply_b_dec, rescale)
    found = foreign.load(write(tmp_path, cfg, tensors))
    assert foreign.origin(tmp_path) == "saelens"
    assert torch.allclose(found.reconstruct(x), expected, atol=1e-5)


def test_an_sae_of_sparsify_reconstructs_as_sparsify_does(tmp_path, tensors, x):
    given = {"encoder.weight": tensors["W_enc"].T, "encoder.bias": tensors["b_enc"], "W_dec": tensors["W_dec"],
             "b_dec": tensors["b_dec"]}
    cfg = {"activation": "topk", "k": K, "num_latents": N, "d_in": D, "transcode": False, "skip_connection": False}
    found = foreign.load(write(tmp_path, cfg, given, "sae.safetensors"))
    assert foreign.origin(tmp_path) == "sparsify"
    assert torch.allclose(found.reconstruct(x), saelens(x, tensors, "topk", apply_b_dec=True), atol=1e-5)


def test_weights_in_half_precision_are_read_as_float32(tmp_path, tensors):
    half = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    found = foreign.load(write(tmp_path, {"architecture": "standard", "apply_b_dec_to_input": False}, half))
    assert found.W_dec.dtype == torch.float32 and torch.equal(found.W_dec, half["W_dec"].float())


@pytest.mark.parametrize(("cfg", "said"), [
    ({"architecture": "temporal"}, "architecture='temporal' is not read. Those that are: standard, topk, jumprelu, gated"),
    ({"architecture": "topk", "k": K, "normalize_activations": "layer_norm"}, "normalize_activations='layer_norm' is not read"),
    ({"architecture": "topk", "k": K, "reshape_activations": "hook_z"}, "reshape_activations='hook_z' is not read"),
    ({"architecture": "gated"}, "lacks the tensors b_gate, b_mag, r_mag of a gated SAE")])
def test_what_no_kind_computes_is_refused_in_one_sentence(tmp_path, tensors, cfg, said):
    with pytest.raises(ValueError, match="SAE|read") as refused:
        foreign.load(write(tmp_path, cfg, tensors))
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(("key", "value"), [("activation", "groupmax"), ("transcode", True), ("skip_connection", True)])
def test_what_sparsify_trains_beyond_topk_autoencoders_is_refused(tmp_path, tensors, key, value):
    with pytest.raises(ValueError, match=f"{key}="):
        foreign.load(write(tmp_path, {"k": K, key: value}, tensors, "sae.safetensors"))


def test_a_folder_without_an_sae_and_damaged_weights_are_refused(tmp_path, tensors):
    with pytest.raises(ValueError, match="cfg.json is missing"):
        foreign.load(tmp_path)
    write(tmp_path, {"architecture": "topk", "k": K}, tensors)
    (tmp_path / "sae_weights.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="is damaged"):
        foreign.load(tmp_path)
    write(tmp_path, {"architecture": "topk", "k": K}, tensors | {"b_enc": torch.zeros(3)})
    with pytest.raises(ValueError, match="b_enc has shape"):
        foreign.load(tmp_path)


def test_a_config_of_saelens_that_does_not_say_whether_b_dec_is_subtracted_means_that_it_is(tmp_path, tensors, x):
    found = foreign.load(write(tmp_path, {"architecture": "standard"}, tensors))
    assert torch.allclose(found.reconstruct(x), saelens(x, tensors, "standard", apply_b_dec=True), atol=1e-5)


def test_a_jumprelu_with_thresholds_below_zero_has_no_negative_activation(tmp_path, tensors, x):
    tensors["threshold"] = torch.full((N,), -2.0)
    found = foreign.load(write(tmp_path, {"architecture": "jumprelu", "apply_b_dec_to_input": True}, tensors))
    assert found.encode_pairs(x).values.min() >= 0
    assert torch.allclose(found.reconstruct(x), saelens(x, tensors, "jumprelu", apply_b_dec=True), atol=1e-5)


@pytest.mark.parametrize(("cfg", "said"), [
    ({"architecture": "topk", "activation_fn_kwargs": {"k": K}}, "k=None is no number of latents per token"),
    ({"architecture": "topk", "k": N + 1}, f"k={N + 1} exceeds the {N} latents"),
    ({"architecture": "jumprelu", "metadata": None}, "lacks the tensors threshold of a jumprelu SAE")])
def test_a_config_that_lacks_what_its_architecture_needs_is_refused_in_one_sentence(tmp_path, tensors, cfg, said):
    with pytest.raises(ValueError, match="k=|lacks") as refused:
        foreign.load(write(tmp_path, cfg, tensors))
    assert said in str(refused.value) and "\n" not in str(refused.value)
