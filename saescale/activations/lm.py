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
    def token_losses(self, tokens: Tensor, replace: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Cross-entropy in nats of predicting token p+1 at position p, float32 [sequence, position - 1].

        `replace` maps the activations [sequence, position, d_in] at the hook to what the layers above see instead.
        """
        hooks = []
        if replace is not None:
            hooks = [(self.hook_name, lambda value, hook: replace(value.float()).to(value.dtype))]  # noqa: ARG005
        logits = self.bridge.run_with_hooks(tokens, fwd_hooks=hooks, return_type="logits")
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), tokens[:, 1:].flatten().long(), reduction="none",
        ).view(tokens.shape[0], -1)
