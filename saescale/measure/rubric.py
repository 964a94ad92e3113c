"""A rubric by string match: how close to its name a concept's latent fires, by how strongly.

Templeton et al. (2024) let a model grade activations from 0 (irrelevant) to 3 (cleanly identifies) and plot the grades against
the strength of the activation. Nobody reads contexts here; what stands in the text decides:

    3   at the last token of the name, where a model has just read it
    2   at another token of the name, or at most NEAR tokens after its end, in the same sequence
    1   elsewhere in a document that has the name
    0   in a document without it

Grade 3 is a claim about a word and not about an idea: a latent for all vehicles that fires at "bus" gets 0 for the concept "car".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saescale.activations.occurrences import Occurrences
from saescale.measure.concepts import Dictionary
from saescale.measure.firings import active

NEAR = 8
GRADES = (3, 2, 1, 0)
LEVELS = 5  # equal intervals of activation as a share of the latent's maximum


class Graded(NamedTuple):
    """Of each concept and interval of strength: `share` float64 [concept, level, grade of GRADES], nan where nothing fired; and
    `count` int64 [concept, level], how often the latent fired there."""

    share: np.ndarray
    count: np.ndarray


def grades(found: Occurrences, name: int, documents: np.ndarray, sequences: np.ndarray) -> np.ndarray:
    """int8 [token] of one name; `documents` and `sequences` [token] say where a token stands."""
    last = found.last[found.name == name]
    out = np.isin(documents, np.unique(documents[last])).astype(np.int8)
    for step in range(-int(found.n_tokens[name]) + 1, NEAR + 1):
        at = last + step
        here = (at >= 0) & (at < len(out))
        at, of = at[here], last[here]
        out[at[sequences[at] == sequences[of]]] = 2
    out[last] = 3
    return out


def strengths(dictionary: Dictionary, latents: np.ndarray, blocks: Iterable[Tensor]) -> np.ndarray:
    """float32 [wanted, token]: activations of `latents` (int64 [wanted], which may repeat) over the blocks [token, d_in]."""
    unique, where = np.unique(latents, return_inverse=True)
    rank = np.full(dictionary.n_latents, -1, dtype=np.int64)
    rank[unique] = np.arange(len(unique))
    parts = []
    for x in blocks:
        with torch.inference_mode():
            row, latent, value = active(dictionary.encode(x))
        part = np.zeros((len(unique), len(x)), dtype=np.float32)
        kept = rank[latent] >= 0
        part[rank[latent[kept]], row[kept]] = value[kept]
        parts.append(part)
    return np.concatenate(parts, axis=1)[where]


def grade(strength: np.ndarray, graded: np.ndarray) -> Graded:
    """`strength` float32 [concept, token] of each concept's latent, `graded` int8 [concept, token] of each concept's name."""
    n = len(strength)
    count = np.zeros((n, LEVELS, len(GRADES)), dtype=np.int64)
    for concept in range(n):
        on = np.flatnonzero(strength[concept] > 0)
        if len(on):
            level = np.minimum((strength[concept, on] / strength[concept].max() * LEVELS).astype(int), LEVELS - 1)
            np.add.at(count[concept], (level, GRADES[0] - graded[concept, on].astype(int)), 1)
    total = count.sum(axis=2)
    with np.errstate(invalid="ignore"):
        return Graded(count / np.where(total > 0, total, np.nan)[:, :, None], total)
