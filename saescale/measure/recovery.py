"""How many features of a synthetic corpus a dictionary holds: the true directions are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from saescale.activations.synthetic import true_directions
from saescale.sae.model import SAE

PRESENT_COSINE = 0.7  # a feature is present when some latent's decoder direction is at least this close to its own
CHUNK = 1024


@torch.no_grad()
def best_decoder_cosines(W_dec: Tensor, directions: Tensor) -> Tensor:
    """float32 [n_features]: the largest cosine of each direction [n_features, d_in] with a row of W_dec [n_latents, d_in]."""
    rows = torch.nn.functional.normalize(W_dec, dim=1)
    return torch.cat([(part @ rows.T).amax(1) for part in directions.split(CHUNK)])


def recovery(sae: SAE, science: Mapping[str, Any]) -> dict[str, float]:
    """n_features, and how many of them are present: best decoder cosine above PRESENT_COSINE."""
    cosines = best_decoder_cosines(sae.W_dec, true_directions(science))
    return {"n_features": len(cosines), "n_features_present": int((cosines > PRESENT_COSINE).sum())}
