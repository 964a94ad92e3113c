"""What a harvest needs, said before it starts: parameters, memory, time and disk, from config.json alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from saescale.activations.folder import LMFolder
from saescale.activations.hub import HubFolder
from saescale.activations.lm_shape import Shape, shape_of
from saescale.campaign.plan import PlannedRun

PROCESS_BYTES, LIBRARIES_BYTES = 0.3e9, 0.3e9  # measured: Python with torch, and what importing transformers adds
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# One core, float32, measured on two processors: the bundled model, shapes of Pythia-70M and GPT-2, stories260K at 512 tokens
TOKEN_S, FLOPS_PER_S = 5e-6, 80e9
SCORE_S = {"eager": 4.4e-9}  # of one attention score of one head
FUSED_SCORE_S = 1e-9  # of any other implementation
ROW_WIDTHS = 16  # values of d_model kept per token while a block is computed, measured to err upwards


@cache
def opened(path: str, hub_name: str | None) -> LMFolder:
    return HubFolder(Path(path), hub_name) if hub_name else LMFolder(Path(path))


def folder_of(execution: Any) -> LMFolder:
    return opened(execution["lm_path"], (execution.get("lm_hub") or {}).get("name"))


def n_parameters(lm: LMFolder) -> float:
    """Counted from the config, or for an unknown family from the size of its weights' files (nan before they are there)."""
    shape = shape_of(lm.config)
    if shape is not None:
        return shape.n_parameters
    stored = sum(f.stat().st_size for f in lm.path.glob("*.safetensors"))
    return stored / DTYPE_BYTES.get(lm.config.get("dtype") or lm.config.get("torch_dtype") or "float32", 4) or float("nan")


def weights_bytes(lm: LMFolder, dtype: str) -> float:
    return n_parameters(lm) * DTYPE_BYTES[dtype]


def harvest_bytes(run: PlannedRun) -> float:
    """Memory of one harvesting process: no logits are computed, and shards are written as they come."""
    science, lm = run.science, folder_of(run.execution)
    tokens = science["data"]["batch_sequences"] * science["data"]["n_ctx"]
    attention = 3 * tokens * science["data"]["n_ctx"] * n_heads(lm) if science["lm"].get("attention", "eager") == "eager" else 0
    inner = lm.config.get("intermediate_size") or 4 * lm.d_model
    passing = tokens * (ROW_WIDTHS * lm.d_model + 3 * inner) + attention
    return PROCESS_BYTES + LIBRARIES_BYTES + weights_bytes(lm, science["lm"]["dtype"]) + 4 * passing


def n_heads(lm: LMFolder) -> int:
    return lm.config.get("num_attention_heads") or lm.config.get("n_head") or 1


def harvest_seconds(run: PlannedRun, last_layer: int, n_tokens: float) -> float:
    """Of one core, for `n_tokens` through block `last_layer`: weights, and attention to n_ctx tokens."""
    return n_tokens * token_seconds(folder_of(run.execution), run.science, last_layer + 1)


def losses_seconds(run: PlannedRun) -> float:
    """Of one core, for the language model's losses with one SAE in place: all blocks and the unembedding, ce_tokens once."""
    lm = folder_of(run.execution)
    n_layers, unembedding = lm.n_layers, lm.d_model * lm.vocab_size
    return run.science["eval"]["ce_tokens"] * (token_seconds(lm, run.science, n_layers) + 2 * unembedding / FLOPS_PER_S)


def token_seconds(lm: LMFolder, science: Any, n_layers: int) -> float:
    """One token's forward through the first `n_layers` blocks. A family whose shape is not known counts as 12 d_model^2 weights
    a block."""
    shape: Shape | None = shape_of(lm.config)
    n_ctx = science["data"]["n_ctx"]
    flops = 24 * lm.d_model**2 * n_layers if shape is None else shape.flops_to(n_layers - 1)
    attended = n_layers * n_ctx * n_heads(lm) * SCORE_S.get(science["lm"].get("attention", "eager"), FUSED_SCORE_S)
    return TOKEN_S + (flops + 4 * n_layers * n_ctx * lm.d_model) / FLOPS_PER_S + attended


def refuse_too_large(run: PlannedRun, processes: int, limit: float, on_gpu: bool = False, asked: str | None = None) -> None:
    """Raise ValueError when so many harvesting processes do not fit into `limit` bytes: those of the machine, or those that a job
    has `asked` for. Weights on a GPU are not counted, nor those of an unknown family before they are there."""
    if not on_gpu:
        refuse_lm(run, harvest_bytes(run), processes, limit, asked, f"the harvest of {folder_of(run.execution).label}")


def refuse_lm(run: PlannedRun, needed: float, processes: int, limit: float, asked: str | None, what: str) -> None:
    """Raise ValueError when `what`, which holds the run's language model in each process, does not fit; as above."""
    if not needed * processes > limit:
        return
    fewer = f"fewer workers (at most {int(limit // needed)} fit), " if limit >= needed and processes > 1 else ""
    more = "more cluster.job.memory, " if asked else ""
    dtype = run.science["lm"]["dtype"]
    half = "lm.dtype=bfloat16, " if dtype == "float32" else ""
    each = f" in each of {processes} processes" if processes > 1 else ""
    said = f"its job asks for {asked}" if asked else f"{limit / 1e9:.1f} GB are there"
    raise ValueError(f"{what} needs about {needed / 1e9:.1f} GB of memory{each} "
                     f"({n_parameters(folder_of(run.execution)) / 1e9:.2f}G parameters in {dtype}) and {said}. "
                     f"Use {fewer}{more}{half}smaller data.batch_sequences, or a smaller model. Nothing was started.")
