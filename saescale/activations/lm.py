"""The language model, through transformer-lens (the only file that imports it; 3.9 and 4.x share this interface)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor


class LanguageModel:
    """A causal LM read at one hook.

    `revision` identity and folder checks are the planner's (activations/folder.py); this only runs it.
    """

    def __init__(self, path: Path, hook_name: str, dtype: str = "float32", device: str = "cpu") -> None:
        from transformer_lens.model_bridge import TransformerBridge
        from transformers.utils import logging

        logging.disable_progress_bar()  # one that the terminal shows is enough
        self.bridge = TransformerBridge.boot_transformers(str(path), device=device, dtype=getattr(torch, dtype))
        self.bridge.eval()
        self.hook_name = hook_name
        self.stop_at_layer = int(hook_name.split(".")[1]) + 1
        self.n_parameters = sum(p.numel() for p in self.bridge.parameters())

    @torch.no_grad()
    def activations(self, tokens: Tensor) -> Tensor:
        """float32 [sequence, position, d_in] at the hook; layers above it are not computed."""
        _, cache = self.bridge.run_with_cache(tokens, names_filter=self.hook_name, stop_at_layer=self.stop_at_layer)
        return cache[self.hook_name].float()

    @torch.no_grad()
    def logits(self, tokens: Tensor, replace: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """float32 [sequence, position, vocabulary].

        `replace` maps the activations [sequence, position, d_in] at the hook to what the layers above see instead.
        """
        hooks = []
        if replace is not None:
            hooks = [(self.hook_name, lambda value, hook: replace(value.float()).to(value.dtype))]  # noqa: ARG005
        return self.bridge.run_with_hooks(tokens, fwd_hooks=hooks, return_type="logits").float()

    @torch.no_grad()
    def token_losses(self, tokens: Tensor, replace: Callable[[Tensor], Tensor] | None = None) -> Tensor:
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
        both = torch.cat([rows, torch.zeros_like(rows[:1])]).to(self.bridge.cfg.dtype)[None]
        out = self.bridge.unembed(self.bridge.ln_final(both))[0].float()
        effects = out[:-1] - out[-1]
        return effects - effects.mean(1, keepdim=True)
