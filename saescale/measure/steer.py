"""Steering: clamp a latent while the language model runs, and see what it then writes.

A dictionary splits what stands at its hook into its reconstruction and an error, x = SAE(x) + error. Clamping latent i to v puts
v in the place of its activation f_i(x) and keeps the error, so that nothing else changes:

    x' = x + (v - f_i(x)) W_dec[i]

v is a multiple (`scale`) of the latent's maximum over a text; 0 ablates it, and a scale of f_i(x) / maximum changes nothing. It
is done at every position but the first, which no dictionary here has read. Source: Templeton et al. 2024, "Influence on
Behavior".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saescale.activations.lm import LanguageModel
from saescale.sae.model import SAE

Replace = Callable[[Tensor], Tensor]
SPACED = 9  # scales that LOW..HIGH stands for where no step is given


def parse_scales(text: str) -> list[float]:
    """Scales as a person types them: `-10..10` (nine, evenly spaced), `-10..10/5` (in steps of 5), or `-5,0,2.5`."""
    said = (f"--scale {text} is no list of scales: give LOW..HIGH, LOW..HIGH/STEP or numbers with commas, such as -10..10, "
            "-10..10/5 or -5,0,5.")
    try:
        if ".." not in text:
            return [_finite(part) for part in text.split(",")]
        span, _, step = text.partition("/")
        low, high = (_finite(part) for part in span.split(".."))
        width = _finite(step) if step else (high - low) / (SPACED - 1)
    except ValueError as e:
        raise ValueError(said) from e
    if not low < high or width <= 0 or (high - low) / width > 200:
        raise ValueError(said)
    return [round(low + i * width, 10) for i in range(int((high - low) / width + 1e-9) + 1)]


def _finite(text: str) -> float:
    value = float(text)
    if not abs(value) < float("inf"):
        raise ValueError(text)
    return value


def activation(sae: SAE, latent: int, x: Tensor) -> Tensor:
    """f_latent [...] of raw activations x [..., d_in]."""
    rows = x.reshape(-1, x.shape[-1])
    pairs = sae.encode_pairs(rows)
    of = pairs.latents == latent
    out = torch.zeros(len(rows), dtype=pairs.values.dtype)
    out[pairs.tokens[of]] = pairs.values[of]
    return out.view(x.shape[:-1])


def push(direction: Tensor, amount: Tensor) -> Replace:
    """The hook that adds amount [sequence, position] times direction [d_in] at every position but the first."""
    def replace(value: Tensor) -> Tensor:
        out = value.clone()
        out[:, 1:] += amount[:, 1:, None] * direction
        return out

    return replace


def clamp(sae: SAE, latent: int, targets: Tensor) -> Replace:
    """The hook that clamps a latent to targets [sequence] or [sequence, position]; NaN leaves it as it is."""
    def replace(value: Tensor) -> Tensor:
        wanted = targets[:, None] if targets.ndim == 1 else targets
        return push(sae.W_dec[latent], (wanted - activation(sae, latent, value)).nan_to_num(nan=0.0))(value)

    return replace


@torch.inference_mode()
def generate(lm: LanguageModel, rows: Tensor, replace: Replace, how: Mapping[str, Any]) -> Tensor:
    """What the model writes after rows [row, position] under a hook: [row, n_new]. `how`: n_new, temperature, seed.

    temperature 0 takes the likeliest token. Above 0 tokens are drawn with the same random numbers in every row, so that rows
    differ by what steering did and not by luck.
    """
    given, r = rows.shape[1], torch.Generator().manual_seed(how["seed"])
    for _ in range(how["n_new"]):
        logits = lm.logits(rows, replace)[:, -1]
        if how["temperature"] > 0:
            gumbel = -torch.log(-torch.log(torch.rand(logits.shape[1], generator=r).clamp(1e-30, 1 - 1e-7)))
            logits = logits / how["temperature"] + gumbel
        rows = torch.cat([rows, logits.argmax(1, keepdim=True)], 1)
    return rows[:, given:]


def prompt_ids(tokenizer: Any, text: str, bos: int | None, room: int) -> list[int]:
    """Token ids of a prompt behind BOS. Raises ValueError when it spells nothing, or fills more than `room` positions."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    unknown = tokenizer.unk_token_id
    if not ids or (unknown is not None and all(i == unknown for i in ids)):
        raise ValueError(f"--prompt {text!r} has no token of this model's vocabulary: give some text it can read.")
    if len(ids) + 1 > room:
        raise ValueError(f"--prompt has {len(ids)} tokens and the model reads {room} together with what it is to write: "
                         "give a shorter prompt or fewer --tokens-out.")
    return [*([] if bos is None else [bos]), *ids]


def steered_texts(lm: LanguageModel, sae: SAE, latent: int, highest: float, scales: Sequence[float], prompt: list[int],
                  tokenizer: Any, how: Mapping[str, Any]) -> list[dict[str, Any]]:
    """[{scale, text}]: what the model writes after the prompt; scale null is the model left alone, and comes first."""
    targets = torch.tensor([float("nan"), *(s * highest for s in scales)])
    written = generate(lm, torch.tensor(prompt).repeat(len(targets), 1), clamp(sae, latent, targets), how)
    before = tokenizer.decode(prompt)
    texts = [tokenizer.decode([*prompt, *row])[len(before):] for row in written.tolist()]
    return [{"scale": s, "text": text} for s, text in zip([None, *scales], texts, strict=True)]
