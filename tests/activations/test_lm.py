import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from saescale.activations.folder import BUNDLED, LMFolder
from saescale.activations.lm import LanguageModel
from saescale.activations.text import is_held_out, python_stdlib


def plain(path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def reference():
    return plain(BUNDLED)


@pytest.fixture(scope="module")
def ids():
    return torch.cat([torch.zeros(3, 1, dtype=torch.long),
                      torch.randint(1, 1024, (3, 19), generator=torch.Generator().manual_seed(0))], 1)


def encode(folder, text):
    return Tokenizer.from_file(str(folder.path / "tokenizer.json")).encode(text, add_special_tokens=False).ids


@torch.no_grad()
def hidden(model, ids):
    return model(ids, output_hidden_states=True).hidden_states


def assert_same_activations(lm, model, ids, layer):
    expected, found = hidden(model, ids)[layer + 1], lm.activations(ids)
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_activations_at_the_hook_are_the_hidden_states_of_plain_transformers(lm, reference, ids):
    assert_same_activations(lm, reference, ids, layer=1)


def test_the_hook_decides_the_layer(reference, ids):
    assert_same_activations(LanguageModel(BUNDLED, "blocks.0.hook_resid_post"), reference, ids, layer=0)


def test_parameters_are_counted_once(lm):
    assert lm.n_parameters == json.loads((BUNDLED / "training.json").read_text())["parameters"]


def test_token_losses_are_minus_the_log_probability_of_the_next_token(lm, reference, ids):
    with torch.no_grad():
        probabilities = reference(ids).logits.double().softmax(-1)
    expected = [[-np.log(float(probabilities[s, p, ids[s, p + 1]])) for p in range(19)] for s in range(3)]
    found = lm.token_losses(ids)
    assert found.shape == (3, 19)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_replacing_the_activations_by_themselves_leaves_every_loss(lm, ids):
    assert torch.allclose(lm.token_losses(ids, lambda value: value.clone()), lm.token_losses(ids), atol=1e-6)


def test_the_layers_above_see_what_replaces_the_activations(lm, reference, ids):
    """Zeros at the hook, against a plain forward whose second block is made to answer zeros."""
    handle = reference.model.layers[1].register_forward_hook(lambda _m, _i, out: torch.zeros_like(out))
    with torch.no_grad():
        logits = reference(ids).logits
    handle.remove()
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(3, -1)
    assert torch.allclose(lm.token_losses(ids, torch.zeros_like), expected, atol=1e-4)


def test_the_bundled_model_predicts_held_out_text_1_5_nats_better_than_unigram_frequencies(lm):
    held_out = [d.text for d in python_stdlib() if is_held_out(d.name, 0.08)]
    documents = [encode(LMFolder(BUNDLED), text) for text in held_out]
    share = np.bincount(np.concatenate(documents)) / sum(map(len, documents))
    entropy = -float((share[share > 0] * np.log(share[share > 0])).sum())

    windows = [[0, *ids[i:i + 255]] for ids in documents for i in range(0, len(ids) - 255, 255)]
    some = torch.tensor(windows)[torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))[:32]]
    losses = lm.token_losses(some).double()
    loss, se = float(losses.mean()), float(losses.mean(1).std() / 32**0.5)

    said = json.loads((BUNDLED / "training.json").read_text())
    assert abs(entropy - said["unigram_entropy_held_out_nats_per_token"]) < 0.1
    assert abs(loss - said["loss_held_out_nats_per_token"]) < 4 * se + 0.1
    assert loss + 2 * se < entropy - 1.5
    assert said["loss_held_out_nats_per_token"] <= said["unigram_entropy_held_out_nats_per_token"] - 1.5


OTHER = "lm/stories260K"


STORY = ("Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big "
         "dog. The dog was very happy and wanted to play with her.")


@pytest.mark.skipif(not os.environ.get("SAESCALE_DATA"), reason="SAESCALE_DATA names no folder with other language models")
def test_another_model_folder_gives_the_hidden_states_of_plain_transformers():
    folder = LMFolder(Path(os.environ["SAESCALE_DATA"]) / OTHER)
    lm = LanguageModel(folder.path, folder.hook(None))
    ids = torch.tensor([[folder.bos_token_id, *encode(folder, STORY)]])
    assert_same_activations(lm, plain(folder.path), ids, layer=int(folder.hook(None).split(".")[1]))
    assert lm.token_losses(ids).mean() < 2.5
    assert lm.token_losses(ids, torch.zeros_like).mean() > lm.token_losses(ids).mean() + 1


def test_zeroing_the_activations_costs_the_bundled_model_more_than_a_nat(lm):
    ids = torch.tensor([[0, *encode(LMFolder(BUNDLED), "def __init__(self, name):\n    self.name = name\n    return None\n")]])
    assert lm.token_losses(ids, torch.zeros_like).mean() > lm.token_losses(ids).mean() + 1


@torch.no_grad()
def test_the_direct_effect_of_a_direction_goes_through_the_final_norm_to_the_logits(lm, reference):
    """By hand for this model with an RMSNorm: gain times the direction at root mean square 1, unembedded, centred."""
    directions = torch.randn(4, 128, generator=torch.Generator().manual_seed(0))
    found = lm.direct_logits(directions)
    unit = directions / directions.square().mean(1, keepdim=True).sqrt()
    expected = (unit * reference.model.norm.weight) @ reference.lm_head.weight.T
    expected -= expected.mean(1, keepdim=True)
    assert torch.allclose(found, expected, atol=1e-3)
    assert torch.allclose(lm.direct_logits(3 * directions), found, atol=1e-4)


@torch.no_grad()
def test_direct_effects_are_what_a_direction_adds_after_the_last_layer():
    """At the last block nothing but norm and unembedding is left: a tiny step along the direction moves logits in that order."""
    lm = LanguageModel(BUNDLED, "blocks.3.hook_resid_post")
    ids = torch.randint(1, 1024, (1, 8), generator=torch.Generator().manual_seed(1))
    direction = torch.randn(128, generator=torch.Generator().manual_seed(2))
    moved = (lm.logits(ids, lambda value: value + 0.05 * direction) - lm.logits(ids))[0]
    moved = moved - moved.mean(1, keepdim=True)
    expected = lm.direct_logits(direction[None])[0]
    r = torch.stack([torch.corrcoef(torch.stack([row, expected]))[0, 1] for row in moved])
    assert (r > 0.9).all()
