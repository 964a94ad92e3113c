"""Where the hooks of a language model lie in transformers' own modules, and forwards that stop once they have passed.

transformer-lens wraps every module, splits fused matrices and calls its hook points on each: 10 to 50 % of a small model's
forward. The same values come out of plain modules; tests hold them equal to transformer-lens for every family below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """Names of modules: the list of blocks, in a block what adds attention's and the MLP's output to the residual stream, and the
    norm before the unembedding."""

    blocks: str
    attn_out: str
    mlp_out: str
    final_norm: str


PRE_NORM = Layout("model.layers", "self_attn", "mlp", "model.norm")
# model_type of config.json -> layout. Families that normalise what they add take it after the norm, as transformer-lens does.
LAYOUTS = {
    "gpt2": Layout("transformer.h", "attn", "mlp", "transformer.ln_f"),
    "gpt_neox": Layout("gpt_neox.layers", "attention", "mlp", "gpt_neox.final_layer_norm"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), PRE_NORM),
    "gemma2": Layout("model.layers", "post_attention_layernorm", "post_feedforward_layernorm", "model.norm"),
}


class Reached(Exception):
    """Every hook of this forward has passed."""


def first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def module_of(model: nn.Module, layout: Layout, hook_name: str) -> tuple[nn.Module, bool]:
    """(the module, whether the hook is its input) of `blocks.LAYER.SITE`."""
    _, layer, site = hook_name.split(".")
    block = model.get_submodule(f"{layout.blocks}.{layer}")
    if site in ("hook_resid_pre", "hook_resid_post"):
        return block, site == "hook_resid_pre"
    return block.get_submodule(getattr(layout, site.removeprefix("hook_"))), False


@contextmanager
def watched(model: nn.Module, layout: Layout, hook_name: str, see: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """While open, `see` gets the value at the hook in every forward; what it returns, if anything, goes on upwards instead."""
    module, is_input = module_of(model, layout, hook_name)

    def before(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        value = see(args[0] if args else kwargs["hidden_states"])
        if value is None:
            return None
        return ((value, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": value})

    def after(_module: nn.Module, _args: tuple, output: Any) -> Any:
        value = see(first(output))
        if value is None:
            return None
        return (value, *output[1:]) if isinstance(output, tuple) else value

    handle = module.register_forward_pre_hook(before, with_kwargs=True) if is_input else module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def caught(model: nn.Module, layout: Layout, hook_names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """While open, a forward fills the mapping with the value at each hook and ends by raising Reached at the last of them."""
    found: dict[str, Tensor] = {}

    def see(name: str, value: Tensor) -> None:
        found[name] = value
        if len(found) == len(hook_names):
            raise Reached

    with ExitStack() as stack:
        for name in hook_names:
            stack.enter_context(watched(model, layout, name, lambda value, name=name: see(name, value)))
        yield found
