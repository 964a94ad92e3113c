"""The language model: plain transformers where its family is known (sites.py), else transformer-lens (the only file that
imports it; 3.9 and 4.x share this interface)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from saescale.activations import sites
from saescale.activations.folder import LMFolder
from saescale.sae.device import chosen

Replace = Callable[[Tensor], Tensor]


class Forward(Protocol):
    """A model that can be read at hooks."""

    module: nn.Module

    def at(self, tokens: Tensor, hook_names: Sequence[str]) -> dict[str, Tensor]: ...

    def logits(self, tokens: Tensor, hook_name: str, replace: Replace | None) -> Tensor: ...

    def unembedded(self, rows: Tensor) -> Tensor: ...


def wanted(science: Mapping[str, Any], execution: Mapping[str, Any]) -> tuple[Path, str, str, str, str]:
    """The arguments of a run's LanguageModel, where this job runs it: where it trains, unless lm.device says otherwise."""
    lm = science["lm"]
    device = execution.get("lm_device") or str(chosen(execution.get("device", "cpu")))
    return Path(execution["lm_path"]), lm["hook_name"], lm["dtype"], device, lm.get("attention", "eager")


class LanguageModel:
    """A causal LM read at one hook or several.

    `revision` identity and folder checks are the planner's (activations/folder.py); this only runs it. `attention` is
    transformers' name of the implementation; `device` may be a device or, with accelerate, a device map such as `auto`.
    """

    def __init__(self, path: Path, hook_name: str, dtype: str = "float32", device: str = "cpu", attention: str = "eager") -> None:
        from transformers.utils import logging

        logging.disable_progress_bar()  # one that the terminal shows is enough
        layout = sites.LAYOUTS.get(LMFolder(path).config.get("model_type"))
        how = {"dtype": getattr(torch, dtype), "attn_implementation": attention, "device": device}
        self.forward: Forward = Bridged(path, how) if layout is None else Plain(path, layout, how)
        self.hook_name = hook_name
        self.n_parameters = sum(p.numel() for p in self.forward.module.parameters())
        self.device = next(self.forward.module.parameters()).device
        self._one_at_a_time = Lock()  # a thread that reads ahead must not run into the hooks of an evaluation

    @torch.no_grad()
    def at(self, tokens: Tensor, hook_names: Sequence[str]) -> dict[str, Tensor]:
        """[sequence, position, d_in] in the model's dtype at each hook, on its device; nothing above the last is computed."""
        with self._one_at_a_time:
            return self.forward.at(tokens.to(self.device), hook_names)

    def activations(self, tokens: Tensor) -> Tensor:
        """float32 [sequence, position, d_in] at the hook, on the tokens' device."""
        return self.at(tokens, [self.hook_name])[self.hook_name].float().to(tokens.device)

    @torch.no_grad()
    def logits(self, tokens: Tensor, replace: Replace | None = None) -> Tensor:
        """float32 [sequence, position, vocabulary], on the tokens' device.

        `replace` maps the activations [sequence, position, d_in] at the hook to what the layers above see instead.
        """
        def patch(value: Tensor) -> Tensor:
            return replace(value.float().to(tokens.device)).to(value)

        with self._one_at_a_time:
            logits = self.forward.logits(tokens.to(self.device), self.hook_name, replace and patch)
        return logits.float().to(tokens.device)

    @torch.no_grad()
    def token_losses(self, tokens: Tensor, replace: Replace | None = None) -> Tensor:
        """Cross-entropy in nats of predicting token p+1 at position p, float32 [sequence, position - 1]; `replace` as above."""
        return torch.nn.functional.cross_entropy(
            self.logits(tokens, replace)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten().long(), reduction="none",
        ).view(tokens.shape[0], -1)

    @torch.no_grad()
    def direct_logits(self, directions: Tensor) -> Tensor:
        """What directions [m, d_in] of the residual stream add to the logits along the direct path: [m, vocabulary], mean 0 each.

        Each direction at root mean square 1 goes through the final norm as if it were all of the stream, less what nothing at all
        gives (the norm's bias). A final norm divides by one positive number per token, so this is the order of the true effects;
        what the layers between the hook and the end make of the direction is left out.
        """
        rows = directions / directions.square().mean(1, keepdim=True).sqrt().clamp_min(1e-30)
        both = torch.cat([rows, torch.zeros_like(rows[:1])])[None]
        out = self.forward.unembedded(both)[0].float().to(directions.device)
        effects = out[:-1] - out[-1]
        return effects - effects.mean(1, keepdim=True)


class Plain:
    """transformers' own modules with hooks on them."""

    def __init__(self, path: Path, layout: sites.Layout, how: dict[str, Any]) -> None:
        from transformers import AutoModelForCausalLM

        device = how["device"]
        placed = {"device_map": device} if is_map(device) else {}
        self.module = AutoModelForCausalLM.from_pretrained(
            path, dtype=how["dtype"], attn_implementation=how["attn_implementation"], local_files_only=True,
            use_safetensors=True, **placed).eval()
        if not placed:
            self.module.to(device)
        self.layout = layout

    def at(self, tokens: Tensor, hook_names: Sequence[str]) -> dict[str, Tensor]:
        with sites.caught(self.module, self.layout, hook_names) as found, suppress(sites.Reached):
            self.module(tokens, use_cache=False)
        return found

    def logits(self, tokens: Tensor, hook_name: str, replace: Replace | None) -> Tensor:
        with sites.watched(self.module, self.layout, hook_name, replace or (lambda _value: None)):
            return self.module(tokens, use_cache=False).logits

    def unembedded(self, rows: Tensor) -> Tensor:
        head = self.module.get_output_embeddings()
        return head(self.module.get_submodule(self.layout.final_norm)(rows.to(head.weight)))


class Bridged:
    """Through transformer-lens, for families sites.py does not know."""

    def __init__(self, path: Path, how: dict[str, Any]) -> None:
        from transformer_lens.model_bridge import TransformerBridge

        if how["attn_implementation"] != "eager":
            raise ValueError(f"lm.attention={how['attn_implementation']!r} is not for {path.name}: it is run through "
                             "transformer-lens, which computes attention eagerly. Set lm.attention=eager.")
        placed = {"device_map": how["device"]} if is_map(how["device"]) else {"device": how["device"]}
        self.module = TransformerBridge.boot_transformers(str(path), dtype=how["dtype"], **placed)
        self.module.eval()

    def at(self, tokens: Tensor, hook_names: Sequence[str]) -> dict[str, Tensor]:
        names = list(hook_names)
        for name in names:
            known(self.module, name)
        last = max(int(name.split(".")[1]) for name in names)
        _, cache = self.module.run_with_cache(tokens, names_filter=names, stop_at_layer=last + 1)
        return {name: cache[name] for name in names}

    def logits(self, tokens: Tensor, hook_name: str, replace: Replace | None) -> Tensor:
        hooks = [] if replace is None else [(hook_name, lambda value, hook: replace(value))]  # noqa: ARG005
        return self.module.run_with_hooks(tokens, fwd_hooks=hooks, return_type="logits")

    def unembedded(self, rows: Tensor) -> Tensor:
        return self.module.unembed(self.module.ln_final(rows.to(next(self.module.parameters()))))


def known(bridge: Any, hook_name: str) -> None:
    """Raise ValueError when the model has no such hook, with the sites its blocks do have."""
    there = set(bridge.hook_dict) | set(bridge.hook_aliases if hasattr(bridge, "hook_aliases") else ())
    block = hook_name.rpartition(".")[0]
    block_aliases = getattr(bridge.blocks[int(hook_name.split(".")[1])], "hook_aliases", {})
    there |= {f"{block}.{name}" for name in block_aliases}
    if hook_name not in there:
        sites_there = sorted(name.removeprefix(f"{block}.") for name in there if name.rpartition(".")[0] == block)
        raise ValueError(f"lm.hook_name={hook_name!r} does not exist in this model. Its block has: {', '.join(sites_there)}.")


def is_map(device: str) -> bool:
    """`auto`, `balanced` ... spread the weights over devices; `cpu`, `cuda:1` ... are one."""
    return device in ("auto", "balanced", "balanced_low_0", "sequential")
