"""Parameters of a language model, counted from config.json alone: exact for the families of activations/sites.py (tests build
each), so that a plan can say what an 8B model needs before a byte of its weights is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TIED = {"gpt2": True, "gpt_neox": False, "gemma": True, "gemma2": True}  # where config.json is silent; false for the others


@dataclass(frozen=True)
class Shape:
    """Parameters: of one block, of everything that is not a block, of the unembedding where it is not tied."""

    n_layers: int
    per_layer: int
    around: int
    unembedding: int

    @property
    def n_parameters(self) -> int:
        return self.n_layers * self.per_layer + self.around + self.unembedding

    def flops_to(self, layer: int) -> int:
        """Of one token's forward through block `layer`: two per weight; looking an embedding up costs none."""
        return 2 * self.per_layer * (layer + 1)


def shape_of(config: Mapping[str, Any]) -> Shape | None:
    """None for a family that is not known here."""
    family = config.get("model_type")
    if family == "gpt2":
        return _gpt2(config)
    if family == "gpt_neox":
        return _gpt_neox(config)
    if family in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"):
        return _llama_like(family, config)
    return None


def _unembedding(family: str, config: Mapping[str, Any], size: int) -> int:
    return 0 if config.get("tie_word_embeddings", TIED.get(family, False)) else size


def _gpt2(c: Mapping[str, Any]) -> Shape:
    d, n_ctx, vocabulary = c["n_embd"], c.get("n_positions") or c["n_ctx"], c["vocab_size"]
    inner = c.get("n_inner") or 4 * d
    per_layer = 4 * d * d + 4 * d + 2 * d * inner + inner + d + 4 * d
    return Shape(c["n_layer"], per_layer, (vocabulary + n_ctx) * d + 2 * d, _unembedding("gpt2", c, vocabulary * d))


def _gpt_neox(c: Mapping[str, Any]) -> Shape:
    d, inner, vocabulary = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    biases = 4 * d if c.get("attention_bias", True) else 0
    per_layer = 4 * d * d + biases + 2 * d * inner + inner + d + 4 * d
    return Shape(c["num_hidden_layers"], per_layer, vocabulary * d + 2 * d, _unembedding("gpt_neox", c, vocabulary * d))


def _llama_like(family: str, c: Mapping[str, Any]) -> Shape:
    d, inner, heads, vocabulary = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"], c["vocab_size"]
    d_head = c.get("head_dim") or d // heads
    queries, keys = heads * d_head, (c.get("num_key_value_heads") or heads) * d_head
    per_layer = 2 * d * queries + 2 * d * keys + 3 * d * inner + (4 if family == "gemma2" else 2) * d
    if family == "qwen2":
        per_layer += queries + 2 * keys
    elif c.get("attention_bias"):
        per_layer += queries + 2 * keys + d
    if c.get("mlp_bias"):
        per_layer += 2 * inner + d
    if family == "qwen3":
        per_layer += 2 * d_head
    return Shape(c["num_hidden_layers"], per_layer, vocabulary * d + d, _unembedding(family, c, vocabulary * d))
