"""Random-weight models of each family: what LanguageModel reads is what transformer-lens and transformers read."""

import json
import shutil

import pytest
import torch

from saescale.activations import sites
from saescale.activations.folder import BUNDLED
from saescale.activations.lm import Bridged, LanguageModel
from saescale.activations.lm_shape import shape_of

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 64, "max_position_embeddings": 64, "head_dim": 8, "bos_token_id": 0, "eos_token_id": 0,
         "pad_token_id": 0}
SETTINGS = {
    "gpt2": {"vocab_size": 97, "n_positions": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0},
    "gpt_neox": {k: v for k, v in SMALL.items() if k not in ("num_key_value_heads", "head_dim")},
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"), SMALL),
}
HOOKS = [f"blocks.{layer}.{site}" for layer in range(3)
         for site in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """The folder of a family's random model, made once; its tokenizer is the bundled one."""
    made = {}

    def folder(family):
        if family not in made:
            from transformers import AutoConfig, AutoModelForCausalLM

            made[family] = tmp_path_factory.mktemp(family)
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SETTINGS[family])).save_pretrained(made[family])
            for file in BUNDLED.glob("tokenizer*"):
                shutil.copy(file, made[family])
        return made[family]
    return folder


@pytest.fixture(scope="module")
def ids():
    return torch.randint(1, 97, (3, 20), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", sites.LAYOUTS)
def test_every_hook_and_the_logits_are_those_of_transformer_lens(folder_of, ids, family):
    lm = LanguageModel(folder_of(family), HOOKS[0])
    bridge = Bridged(folder_of(family), {"dtype": torch.float32, "attn_implementation": "eager", "device": "cpu"})
    with torch.no_grad():
        expected, found = bridge.at(ids, HOOKS), lm.at(ids, HOOKS)
        assert set(found) == set(HOOKS)
        for name in HOOKS:
            assert torch.allclose(found[name], expected[name], rtol=0, atol=1e-6), name
        assert torch.allclose(lm.logits(ids), bridge.logits(ids, HOOKS[0], None), rtol=0, atol=1e-5)
        rows = expected[HOOKS[-1]]
        assert torch.allclose(lm.forward.unembedded(rows), bridge.unembedded(rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2", "qwen2"])
def test_hidden_states_are_those_of_plain_transformers(folder_of, ids, family):
    from transformers import AutoModelForCausalLM

    lm = LanguageModel(folder_of(family), "blocks.1.hook_resid_post")
    plain = AutoModelForCausalLM.from_pretrained(folder_of(family), dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        said = plain(ids, output_hidden_states=True)
        assert torch.equal(lm.activations(ids), said.hidden_states[2])
        assert torch.equal(lm.forward.logits(ids, lm.hook_name, None), said.logits)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
@pytest.mark.parametrize("hook_name", ["blocks.1.hook_resid_pre", "blocks.1.hook_attn_out", "blocks.2.hook_mlp_out"])
def test_the_layers_above_see_the_replacement_at_every_site(folder_of, ids, family, hook_name):
    lm = LanguageModel(folder_of(family), hook_name)
    bridge = Bridged(folder_of(family), {"dtype": torch.float32, "attn_implementation": "eager", "device": "cpu"})
    with torch.no_grad():
        patched = bridge.logits(ids, hook_name, lambda value: 3 * value)
    expected = -patched[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    assert torch.allclose(lm.token_losses(ids, lambda value: 3 * value), expected, atol=1e-5)
    assert not torch.allclose(lm.token_losses(ids), expected, atol=1e-3)


def test_several_hooks_of_one_forward_are_those_of_a_forward_each(folder_of, ids):
    lm = LanguageModel(folder_of("llama"), HOOKS[0])
    together = lm.at(ids, ["blocks.2.hook_mlp_out", "blocks.0.hook_attn_out"])
    for name, value in together.items():
        assert torch.equal(value, lm.at(ids, [name])[name])


def test_nothing_above_the_last_hook_is_computed(folder_of, ids):
    lm, seen = LanguageModel(folder_of("llama"), HOOKS[0]), []
    for layer, block in enumerate(lm.forward.module.model.layers):
        block.register_forward_pre_hook(lambda *_, layer=layer: seen.append(layer))
    lm.at(ids, ["blocks.1.hook_attn_out", "blocks.0.hook_resid_post"])
    assert seen == [0, 1]


def test_a_family_without_a_layout_is_read_through_transformer_lens_alike(folder_of, ids, monkeypatch):
    plain = LanguageModel(folder_of("llama"), "blocks.1.hook_mlp_out")
    monkeypatch.delitem(sites.LAYOUTS, "llama")
    bridged = LanguageModel(folder_of("llama"), "blocks.1.hook_mlp_out")
    assert isinstance(bridged.forward, Bridged)
    assert torch.equal(bridged.activations(ids), plain.activations(ids))
    assert torch.allclose(bridged.token_losses(ids, torch.zeros_like), plain.token_losses(ids, torch.zeros_like), atol=1e-6)
    with pytest.raises(ValueError, match="blocks.1.hook_nothing.*does not exist in this model. Its block has: .*hook_mlp_out"):
        bridged.at(ids, ["blocks.1.hook_nothing"])
    with pytest.raises(ValueError, match="lm.attention='sdpa'.*Set lm.attention=eager"):
        LanguageModel(folder_of("llama"), "blocks.1.hook_mlp_out", attention="sdpa")


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_the_faster_attention_gives_the_same_up_to_rounding(folder_of, ids, family):
    hook = "blocks.2.hook_resid_post"
    eager, sdpa = LanguageModel(folder_of(family), hook), LanguageModel(folder_of(family), hook, attention="sdpa")
    assert torch.allclose(eager.activations(ids), sdpa.activations(ids), atol=1e-5)


@pytest.mark.parametrize("family", sites.LAYOUTS)
def test_parameters_counted_from_the_config_are_those_of_the_model(folder_of, family):
    shape = shape_of(json.loads((folder_of(family) / "config.json").read_text()))
    lm = LanguageModel(folder_of(family), HOOKS[0])
    assert shape.n_parameters == lm.n_parameters
    block = lm.forward.module.get_submodule(f"{sites.LAYOUTS[family].blocks}.0")
    assert shape.per_layer == sum(p.numel() for p in block.parameters())
