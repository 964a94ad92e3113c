"""What a job reads of one science block, each part opened when asked for: corpus, activations, stream, language model.

Activations have three sources with one interface (activations/live.py: Source). `cache` reads what was harvested, `live` runs
the language model here; both give the same bits. `synthetic` draws, and has neither corpus nor language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from saescale.activations import tokens
from saescale.activations.cache import CacheSource, check_spec, input_scale, sample
from saescale.activations.live import LiveSource, Source
from saescale.activations.lm import LanguageModel, wanted
from saescale.activations.oversample import repeats
from saescale.activations.stream import Stream
from saescale.activations.synthetic import SyntheticSource
from saescale.records.store import Store, read_json, write_json
from saescale.sae.model import InputSample
from saescale.sources import is_synthetic

PRE_BIAS_TOKENS = 32768


@dataclass(frozen=True)
class Inputs:
    store: Store
    science: dict[str, Any]
    execution: dict[str, Any]

    @cached_property
    def corpus(self) -> tokens.Corpus:
        return tokens.read(self.store.corpus_dir(self.execution["corpus_key"]))

    def source(self, split: str) -> Source:
        if is_synthetic(self.science):
            return SyntheticSource(self.science, split)
        if self.execution.get("source") == "live":
            return LiveSource(self.lm, getattr(self.corpus, split), self.science["data"]["activation_dtype"])
        folder = self.store.activations_dir(self.execution["cache_key"])
        check_spec(folder, self.science)
        return CacheSource(folder, split, getattr(self.corpus, split), self.science["data"])

    @cached_property
    def train_source(self) -> Source:
        return self.source("train")

    @cached_property
    def scale(self) -> float:
        """The input scalar, computed once per cache and kept beside its shards."""
        path = self.store.activations_dir(self.execution["cache_key"]) / "scale.json"
        found = read_json(path)
        if found is None:
            found = {"scale": input_scale(self.train_source, self.science["lm"]["d_in"])}
            write_json(path, found)
        return found["scale"]

    @cached_property
    def sample(self) -> InputSample:
        """What initialisation needs, from the first PRE_BIAS_TOKENS activations at mean square norm d_in."""
        return InputSample.of(sample(self.train_source, PRE_BIAS_TOKENS) * self.scale)

    @cached_property
    def repeats(self) -> np.ndarray | None:
        """How often each activation of the training split comes in an epoch; None: once."""
        data = self.science["data"]
        if not data.get("oversample"):
            return None
        return repeats(self.corpus.train, Path(self.execution["lm_path"]), data["oversample"], data["oversample_factor"])

    @cached_property
    def stream(self) -> Stream:
        return Stream(self.train_source, self.science["data"]["data_seed"], self.scale, repeats=self.repeats)

    @cached_property
    def lm(self) -> LanguageModel | None:
        if is_synthetic(self.science):
            return None
        return LanguageModel(*wanted(self.science, self.execution))
