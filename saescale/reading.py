"""What a person may say of what is read: the language model (`conf/lm/`) and the documents (`conf/data/`)."""

from __future__ import annotations

import re
from dataclasses import dataclass

ACTIVATION_DTYPES = ("bfloat16", "float16", "float32")
LM_DTYPES = ("bfloat16", "float16", "float32")
ATTENTIONS = ("eager", "sdpa")  # as transformers names them; sdpa is faster and rounds otherwise
PACKINGS = ("cut", "pack_eos", "pack_bos", "pack_bare")
HOOK_SITES = ("hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out")


@dataclass(frozen=True)
class LMConfig:
    """The language model: `path` of a Hugging Face folder or `name` on the hub (both null: the bundled one) at `revision`;
    `hook_name` (null: middle layer; `blocks.*.SITE`: every layer); `attention`: transformers' implementation; `device` or device
    map it runs on (null: where the SAEs train), which is no science."""

    path: str | None
    hook_name: str | None
    dtype: str
    name: str | None = None
    revision: str | None = None
    attention: str = "eager"
    device: str | None = None


@dataclass(frozen=True)
class DataConfig:
    """`path` is where the documents are now; the science block knows them by their hash. `text_field`, `document_separator`,
    `subset`, `split` and `revision` say how to read them (activations/corpora.py); `packing`, `prepend_bos` and
    `exclude_special_tokens` what is made of them (activations/tokenise.py). Documents with a name of `oversample` come
    `oversample_factor` times in the training stream."""

    corpus: str
    path: str | None
    held_out_fraction: float
    n_ctx: int
    batch_sequences: int
    max_train_tokens: int | None
    activation_dtype: str
    text_field: str = "text"
    document_separator: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    packing: str = "cut"
    prepend_bos: bool = True
    exclude_special_tokens: bool = False
    oversample: tuple[str, ...] = ()
    oversample_factor: int = 1


def choices(lm: LMConfig, data: DataConfig) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Settings of which one of a few must be chosen: (given, allowed)."""
    return {"data.activation_dtype": (data.activation_dtype, ACTIVATION_DTYPES), "lm.dtype": (lm.dtype, LM_DTYPES),
            "lm.attention": (lm.attention, ATTENTIONS), "data.packing": (data.packing, PACKINGS)}


def check_hook(hook: str | None) -> None:
    if hook is not None and not re.fullmatch(rf"blocks\.(\*|0|[1-9][0-9]*)\.({'|'.join(HOOK_SITES)})", hook):
        raise ValueError(f"lm.hook_name={hook!r} is not known. Give blocks.LAYER.SITE with LAYER a number from 0 and SITE one "
                         f"of: {', '.join(HOOK_SITES)}, blocks.*.SITE for every layer, or null for the middle of the model.")
