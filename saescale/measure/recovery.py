"""How many features of a synthetic corpus a dictionary holds: the true directions are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saescale.activations.synthetic import Truth, truth
from saescale.sae.model import SAE

PRESENT_COSINE = 0.7  # a feature is present when some latent's decoder direction is at least this close to its own
CHUNK = 1024


@torch.no_grad()
def best_alignment(W_dec: Tensor, known: Truth, asked: Tensor) -> tuple[Tensor, Tensor]:
    """(float32, int64) [feature]: how well the best row of W_dec [n_latents, d_in] points along each asked feature, and which.

    The cosine with the direction of a ray; of a feature on a manifold, the length of the unit row's part in its space.
    """
    rows = torch.nn.functional.normalize(W_dec, dim=1)
    best = [known.part_along(rows, part).max(dim=1) for part in asked.split(CHUNK)]
    return torch.cat([b.values for b in best]), torch.cat([b.indices for b in best])


@torch.no_grad()
def latents_per_feature(W_dec: Tensor, known: Truth) -> np.ndarray:
    """int64 [n_features]: how many rows of W_dec [n_latents, d_in] belong to each feature, to the one whose space holds most of
    the row and at least PRESENT_COSINE of its length."""
    rows = torch.nn.functional.normalize(W_dec, dim=1)
    parts = [known.part_along(some).max(dim=0) for some in rows.split(CHUNK)]
    value, feature = (torch.cat([getattr(part, name) for part in parts]) for name in ("values", "indices"))
    return np.bincount(feature[value >= PRESENT_COSINE].numpy(), minlength=len(known.directions))


def recovery(sae: SAE, science: Mapping[str, Any]) -> dict[str, float]:
    """n_features, and how many of them are present: some latent's direction aligned with it by PRESENT_COSINE or more."""
    known = truth(science)
    found, _ = best_alignment(sae.W_dec, known, torch.arange(len(known.directions)))
    return {"n_features": len(found), "n_features_present": int((found > PRESENT_COSINE).sum())}
