"""A finished dictionary opened to be read: its weights, the text it is looked at on, its language model, each when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saescale.activations.folder import LMFolder
from saescale.activations.inputs import Inputs
from saescale.activations.live import LiveSource, Source
from saescale.activations.lm import LanguageModel
from saescale.activations.shards import missing_shards
from saescale.activations.tokens import TokenSplit
from saescale.measure.contexts import SPLITS, Text, open_tokenizer
from saescale.records.store import Store
from saescale.sae import export
from saescale.sae.model import SAE, init
from saescale.sae.spec import SAESpec

TRAIN_TOKENS = 400_000  # of the training text, where no number is given


def use_threads(execution: dict[str, Any]) -> None:
    """As many threads as the run was trained with: part of what makes numbers the same again."""
    torch.set_num_threads(execution["threads"])


@dataclass(frozen=True)
class Subject:
    """`split` and `n_tokens` say which text: the held-out tokens the run was evaluated on (None), or the first of either split.

    All SAEs here take raw activations, as exported.
    """

    store: Store
    run_id: str
    science: dict[str, Any]
    execution: dict[str, Any]
    split: str = "held_out"
    n_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"--text {self.split} is not known: choose one of {', '.join(SPLITS)}.")
        if self.n_tokens is not None and self.n_tokens < 1:
            raise ValueError(f"--tokens {self.n_tokens} is out of range: it must be at least 1.")

    @cached_property
    def folder(self) -> LMFolder:
        """The model's folder. Raises ValueError when it is missing, not whole, or no longer the model that was trained on."""
        folder = LMFolder(Path(self.execution["lm_path"]))
        if folder.revision != self.science["lm"]["revision"]:
            raise ValueError(f"{folder.path} holds another model than {self.run_id} was trained on: its files have changed. "
                             "Put the model back, or launch the sweep with this one.")
        return folder

    @cached_property
    def inputs(self) -> Inputs:
        return Inputs(self.store, self.science, self.execution)

    @cached_property
    def lm(self) -> LanguageModel:
        return LanguageModel(self.folder.path, self.science["lm"]["hook_name"], self.science["lm"]["dtype"])

    @cached_property
    def tokenizer(self) -> Any:
        return open_tokenizer(str(self.folder.path))

    @cached_property
    def tokens(self) -> TokenSplit:
        return getattr(self.inputs.corpus, self.split)

    @cached_property
    def n_batches(self) -> int:
        default = TRAIN_TOKENS if self.split == "train" else self.science["eval"]["n_tokens"]
        return self.tokens.batches_for(self.n_tokens or default)

    @cached_property
    def text(self) -> Text:
        return Text.of(self.tokens, self.n_batches, self.tokenizer)

    @property
    def said(self) -> dict[str, Any]:
        """The text as a card names it."""
        return {"corpus": self.science["data"]["corpus"], "split": self.split, "n_tokens": len(self.text)}

    @cached_property
    def source(self) -> Source:
        """The harvested activations; where some are not there (live runs, another share of the text), the very same computed."""
        if self.execution.get("source") != "live":
            folder = self.store.activations_dir(self.execution["cache_key"])
            if not missing_shards(folder, self.split, self.tokens, int(self.tokens.batch_token_counts[:self.n_batches].sum())):
                return self.inputs.source(self.split)
        return LiveSource(self.lm, self.tokens, self.science["data"]["activation_dtype"])

    def blocks(self, seen: Callable[[int], None] = lambda _: None) -> Iterator[Tensor]:
        """Raw activations [token, d_in] of the text, a forward batch at a time; `seen` is told how many were given before."""
        for i in range(self.n_batches):
            seen(i)
            yield self.source.batch(i)

    @cached_property
    def sae(self) -> SAE:
        return export.load(self.store.run_dir(self.run_id))

    def untrained(self, seed: int | None = None) -> SAE:
        """What this dictionary was before its first step; with another seed, what it might have been."""
        seed = self.science["train"]["seed"] if seed is None else seed
        return export.unscaled(init(SAESpec.of(self.science), seed, self.inputs.sample), self.inputs.scale)
