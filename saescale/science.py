"""From what a person said to what is hashed: the science block of a run, every rule resolved to a number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from saescale import kinds
from saescale.config import Config
from saescale.flops import tokens_for


class TooShort(ValueError):
    """A horizon of less than one step."""


def horizon_tokens(c: Config, d_in: int) -> int:
    """Tokens of the run, a multiple of batch_tokens: as given, or solved from the budget and rounded to the nearest step.

    Raises TooShort when that is less than one step.
    """
    wanted = c.train.n_tokens if c.train.n_tokens is not None else tokens_for(c.budget.flops or 0, d_in, c.sae.n_latents)
    steps = round(wanted / c.train.batch_tokens)
    if steps < 1:
        raise TooShort(f"its horizon of {wanted:.3g} tokens is less than one step of train.batch_tokens="
                       f"{c.train.batch_tokens}; raise budget.flops or lower train.batch_tokens")
    return steps * c.train.batch_tokens


def learning_rate(c: Config) -> float:
    """lr(n) = train.lr * (lr_reference_latents / n_latents) ** lr_power; constant when no reference is given."""
    if c.train.lr_reference_latents is None:
        return c.train.lr
    return float(f"{c.train.lr * (c.train.lr_reference_latents / c.sae.n_latents) ** c.train.lr_power:.6g}")


def dead_after_tokens(c: Config) -> int:
    """A latent silent for this many training tokens is dead (topk): default min(10M, 100 * n_latents / k)."""
    given = c.train.dead_after_tokens
    return given if given is not None else default_dead_after_tokens(c.sae.n_latents, c.sae.k)


def default_dead_after_tokens(n_latents: int, k: int | None) -> int:
    return min(10_000_000, 100 * n_latents // k) if k else 10_000_000


def fork_step(steps: int, lr_decay_fraction: float) -> int:
    """First step of a run's decay: before it, the run is its trunk."""
    return steps - round(lr_decay_fraction * steps)


def science_block(c: Config, lm: Mapping[str, Any], corpus: Mapping[str, Any]) -> dict[str, Any]:
    """The hashed half of a run: everything that changes its numbers, nothing that does not.

    `lm` gives revision, hook_name, d_in; `corpus` gives corpus_sha256 and tokenizer_sha256.
    """
    return _block(c, {
        "lm": {"revision": lm["revision"], "hook_name": lm["hook_name"], "d_in": lm["d_in"], "dtype": c.lm.dtype,
               "attention": c.lm.attention},
        "data": {"corpus": c.data.corpus, "corpus_sha256": corpus["corpus_sha256"],
                 "tokenizer_sha256": corpus["tokenizer_sha256"], "held_out_fraction": c.data.held_out_fraction,
                 "n_ctx": c.data.n_ctx, "batch_sequences": c.data.batch_sequences, "max_train_tokens": c.data.max_train_tokens,
                 "activation_dtype": c.data.activation_dtype, "data_seed": c.data_seed,
                 "packing": c.data.packing, "prepend_bos": c.data.prepend_bos,
                 "exclude_special_tokens": c.data.exclude_special_tokens, **mix(c)},
    }, dict(vars(c.eval)))


def mix(c: Config) -> dict[str, Any]:
    """Which documents come several times in the training stream: the names they hold, and how often."""
    names, factor = sorted(set(c.data.oversample)), c.data.oversample_factor
    if factor < 1 or (factor > 1) != bool(names):
        raise ValueError(f"data.oversample={names} and data.oversample_factor={factor} do not go together: give names and a "
                         "factor of 2 or more, or neither ([] and 1).")
    return {"oversample": names, "oversample_factor": factor}


def synthetic_science_block(c: Config) -> dict[str, Any]:
    """The same for activations=synthetic: no language model and no text, whose settings stay out of the identity."""
    return _block(c, {
        "lm": {"revision": None, "hook_name": None, "d_in": c.activations.d_in, "dtype": None},
        "data": {"activation_dtype": c.data.activation_dtype, "data_seed": c.data_seed},
        "activations": c.activations.block(),
    }, {"n_tokens": c.eval.n_tokens, "ce_tokens": None})


def _block(c: Config, inputs: dict[str, Any], held_out: dict[str, Any]) -> dict[str, Any]:
    d_in = inputs["lm"]["d_in"]
    return inputs | {
        "sae": sae_block(c, d_in),
        "train": {"n_tokens": horizon_tokens(c, d_in), "batch_tokens": c.train.batch_tokens, "lr": learning_rate(c),
                  "lr_warmup_tokens": c.train.lr_warmup_tokens, "lr_decay_fraction": c.train.lr_decay_fraction,
                  "sparsity_warmup_tokens": sparsity_warmup_tokens(c, d_in), "dead_after_tokens": dead_after_tokens(c),
                  "grad_clip": c.train.grad_clip, "beta1": c.train.beta1, "beta2": c.train.beta2, "eps": c.train.eps,
                  "precision": c.train.precision, "seed": c.seed},
        "eval": held_out,
    }


def sae_block(c: Config, d_in: int) -> dict[str, Any]:
    """The kind's settings; `warmup` is left out, since train.sparsity_warmup_tokens says what it comes to."""
    settings = vars(c.sae) | {"k_aux": k_aux(c, d_in), "bandwidth": bandwidth(c, d_in)}
    del settings["warmup"]
    return settings


def sparsity_warmup_tokens(c: Config, d_in: int) -> int:
    """Tokens of the sparsity ramp: as given, or the horizon, which makes a run alone on its trunk (the horizon is in its id).

    0 for kinds that keep k, whose sparsity has no coefficient to warm up: the setting must not tell two equal runs apart.
    """
    if kinds.KINDS[c.sae.kind].keeps_k:
        return 0
    return horizon_tokens(c, d_in) if c.sae.warmup == "horizon" else c.train.sparsity_warmup_tokens


def k_aux(c: Config, d_in: int) -> int | None:
    """Latents of the auxiliary loss: as given, or the power of two nearest d_in / 2 (Gao et al. 2024); kinds with AuxK only."""
    if "k_aux" not in kinds.KINDS[c.sae.kind].settings:
        return None
    return c.sae.k_aux if c.sae.k_aux is not None else default_k_aux(d_in, c.sae.n_latents)


def bandwidth(c: Config, d_in: int) -> float | None:
    """Of the step's estimator at inputs of mean square norm d_in: as given, or as published; JumpReLU kinds only."""
    return c.sae.bandwidth if c.sae.bandwidth is not None else kinds.default_bandwidth(c.sae.kind, d_in)


def default_k_aux(d_in: int, n_latents: int) -> int:
    return min(2 ** round(math.log2(max(d_in / 2, 1))), n_latents)
