"""What a Hugging Face model folder says of itself, read without torch: revision, width, depth, tokenizer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import saescale.bundled_lm
from saescale.records.store import trouble_of_weights

BUNDLED = Path(saescale.bundled_lm.__file__).parent / "weights"


@dataclass(frozen=True)
class LMFolder:
    """A local Hugging Face folder with config.json, tokenizer.json and safetensors weights."""

    path: Path
    required: ClassVar[tuple[str, ...]] = ("config.json", "tokenizer.json", "*.safetensors")

    def __post_init__(self) -> None:
        if not self.path.is_dir():
            raise ValueError(f"the language model folder {self.path} does not exist. Give an existing Hugging Face folder "
                             "with lm=/path/to/folder, or lm=bundled.")
        missing = [f for f in self.required if not list(self.path.glob(f))]
        if missing == ["tokenizer.json"]:
            raise ValueError(f"{self.path} has no tokenizer: it lacks tokenizer.json. Save the model's there with "
                             "AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER).")
        if missing:
            raise ValueError(f"{self.path} is not a whole Hugging Face folder: it lacks {', '.join(missing)}. "
                             "Save model and tokenizer there with save_pretrained.")

    @cached_property
    def config(self) -> dict[str, Any]:
        try:
            return {**json.loads((self.path / "config.json").read_text())}
        except (ValueError, TypeError) as e:
            raise ValueError(f"{self.path}/config.json is cut off or damaged ({e}): it is no JSON object. Save the model "
                             "there again with save_pretrained, or fetch it again.") from e

    @cached_property
    def revision(self) -> str:
        """SHA-256 over config, tokenizer and weights: a moved folder is the same model, a changed one is not.

        Errors: `ValueError` for weights that are cut off; they would be noticed by the workers alone.
        """
        for file in self.path.glob("*.safetensors"):
            if trouble := trouble_of_weights(file):
                raise ValueError(f"{file} is cut off or damaged ({trouble}). Save the model there again with save_pretrained, "
                                 "or fetch it again.")
        h = hashlib.sha256()
        for file in [self.path / "config.json", self.path / "tokenizer.json", *sorted(self.path.glob("*.safetensors"))]:
            with file.open("rb") as f:
                h.update(hashlib.file_digest(f, "sha256").digest())
        return h.hexdigest()

    @cached_property
    def tokenizer_sha256(self) -> str:
        return hashlib.sha256((self.path / "tokenizer.json").read_bytes()).hexdigest()

    def _number(self, *names: str) -> int:
        for name in names:
            if isinstance(self.config.get(name), int):
                return self.config[name]
        raise ValueError(f"{self.path}/config.json has none of {', '.join(names)}: this architecture is not known here.")

    @property
    def d_model(self) -> int:
        return self._number("hidden_size", "n_embd", "d_model")

    @property
    def n_layers(self) -> int:
        return self._number("num_hidden_layers", "n_layer", "num_layers")

    @property
    def n_ctx(self) -> int:
        return self._number("max_position_embeddings", "n_positions", "n_ctx")

    @property
    def vocab_size(self) -> int:
        return self._number("vocab_size")

    @property
    def bos_token_id(self) -> int | None:
        return self.token_id("bos")

    def token_id(self, which: str) -> int | None:
        """Id of the `bos`, `eos` or `pad` token, or None; the first where a model has several."""
        said = self.config.get(f"{which}_token_id")
        said = said[0] if isinstance(said, list) and said else said
        return said if isinstance(said, int) else None

    @property
    def label(self) -> str:
        """What messages call the model."""
        return self.path.name

    def hook(self, hook_name: str | None) -> str:
        """The hook asked for, checked against the depth; the residual stream at the middle of the model when None."""
        if hook_name is None:
            return f"blocks.{max(self.n_layers // 2 - 1, 0)}.hook_resid_post"
        layer = hook_name.split(".")[1]
        if not layer.isdigit() or int(layer) >= self.n_layers:
            raise ValueError(f"lm.hook_name={hook_name!r} names layer {layer}, and {self.label} has layers "
                             f"0 to {self.n_layers - 1}. Choose one of these.")
        return hook_name

    def hooks(self, hook_name: str | None) -> list[str]:
        """The hooks a name stands for: `blocks.*.SITE` is that of every layer."""
        _, star, site = (hook_name or "").partition("blocks.*.")
        return [f"blocks.{layer}.{site}" for layer in range(self.n_layers)] if star else [self.hook(hook_name)]

    def facts(self, hook_name: str | None) -> dict[str, Any]:
        return {"revision": self.revision, "hook_name": self.hook(hook_name), "d_in": self.d_model}
