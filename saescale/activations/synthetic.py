"""Synthetic activations: superposed sparse features whose directions are known. No language model.

    x = sum over firing features i of m_i * g_i + noise,    g_i = f_i, or a point of the unit sphere of a space of its own

f_i are random unit directions; a feature on a manifold has manifold_dim of them, orthogonal to each other, and g_i is uniform on
their sphere at every firing (manifold_dim = 2: a circle). m_i is uniform in [magnitude_low, magnitude_high]. Feature of rank i
fires at rate min(max_rate, c * i ** -zipf_exponent), c such that the rates sum to mean_l0; with one_at_a_time exactly one fires
at every token, chosen by these rates, which then sum to 1.
With hierarchy_roots = r, features 0 .. r-1 are the roots and the parent of feature i is (i - r) // hierarchy_branching; a
child fires only with its parent, with probability rate_i / rate_parent, so every feature keeps its rate.

Everything is a function of (seed, number of the forward batch): batches can be read in any order, and held-out batches are
those from HELD_OUT on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

HELD_OUT = 1 << 32  # number of the first held-out forward batch
TRUTH, DRAWS = 0, 1  # what a random stream is for


@dataclass(frozen=True)
class Truth:
    """directions float32 [n_features, d_in]; more [manifold_dim - 1, n_features, d_in], the other axes of a feature's space, zero
    for a feature that is a ray; rates float64 [n_features]."""

    directions: Tensor
    more: Tensor
    rates: np.ndarray

    @property
    def second(self) -> Tensor:
        """float32 [n_features, d_in]: the second axis, zero for a ray."""
        return self.more[0]

    def part_along(self, rows: Tensor, features: Tensor | slice = slice(None)) -> Tensor:
        """float32 [feature, row]: the part of each unit row [row, d_in] in a feature's space; for a ray the signed cosine."""
        along = self.directions[features] @ rows.T
        curved = (self.second[features] != 0).any(1, keepdim=True)
        squares = along.square() + sum((axis[features] @ rows.T).square() for axis in self.more)
        return torch.where(curved, squares.sqrt(), along)


def truth(science: Mapping[str, Any]) -> Truth:
    """What is known of the features, regenerated from a science block."""
    a = science["activations"]
    n, d = a["n_features"], a["d_in"]
    r = _generator(a["seed"], TRUTH)
    first = _unit(r.standard_normal((n, d)))
    second = r.standard_normal((n, d))
    curved = r.permutation(n) < round(a["manifold_fraction"] * n)
    axes = [first]
    for drawn in (second, *(r.standard_normal((n, d)) for _ in range(a.get("manifold_dim", 2) - 2))):
        drawn[~curved] = 0.0
        for axis in axes:
            drawn -= (drawn * axis).sum(1, keepdims=True) * axis
        axes.append(_unit(drawn))
    return Truth(torch.from_numpy(first).float(), torch.from_numpy(np.stack(axes[1:])).float(), rates(a))


def rates(a: Mapping[str, Any]) -> np.ndarray:
    """float64 [n_features]: the share of tokens each feature fires on, by rank."""
    shape = np.arange(1, a["n_features"] + 1, dtype=np.float64) ** -a["zipf_exponent"]
    low, high = 0.0, a["max_rate"] / shape[-1]
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle * shape, a["max_rate"]).sum() < a["mean_l0"] else (low, middle)
    return np.minimum(high * shape, a["max_rate"])


class SyntheticSource:
    """One split of a synthetic corpus: a source of activations, and of what evaluation asks of tokens.

    Tokens are independent, so each is a document of its own.
    """

    def __init__(self, science: Mapping[str, Any], split: str) -> None:
        self.settings, self.truth = science["activations"], truth(science)
        self.dtype = getattr(torch, science["data"]["activation_dtype"])
        size = self.settings["batch_tokens"]
        wanted = self.settings["n_tokens"] if split == "train" else science["eval"]["n_tokens"]
        self.first = 0 if split == "train" else HELD_OUT
        self.counts = np.full(-(-wanted // size), size, dtype=np.int64)
        self.n_batches, self.n_tokens = len(self.counts), int(self.counts.sum())
        self._bags = torch.cat([self.truth.directions, *self.truth.more])

    def batches_for(self, n_tokens: int) -> int:
        return min(-(-n_tokens // self.settings["batch_tokens"]), self.n_batches)

    def flat(self, n_batches: int | None = None) -> SimpleNamespace:
        n = (self.n_batches if n_batches is None else n_batches) * self.settings["batch_tokens"]
        return SimpleNamespace(documents=np.arange(n, dtype=np.int64))

    def fired(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(token, feature) of everything that fires in a forward batch: what `batch` of it is the sum of."""
        return self.firings(_generator(self.settings["seed"], DRAWS, self.first + index))

    def batch(self, index: int) -> Tensor:
        """float32 [batch_tokens, d_in], unscaled, rounded to the activation dtype."""
        a, n = self.settings, len(self.truth.rates)
        r = _generator(a["seed"], DRAWS, self.first + index)
        tokens, features = self.firings(r)
        magnitudes = r.uniform(a["magnitude_low"], a["magnitude_high"], len(tokens))
        weights, columns = [magnitudes], [features]
        if a["manifold_fraction"] > 0:
            points = self._points(r, features)
            weights = [magnitudes * along for along in points]
            columns = [features + i * n for i in range(len(points))]
        x = torch.zeros(a["batch_tokens"], a["d_in"])
        starts = torch.from_numpy(np.searchsorted(tokens, np.arange(a["batch_tokens"] + 1)))
        for weight, column in zip(weights, columns, strict=True):
            x += torch.embedding_bag(self._bags, torch.from_numpy(column), starts, mode=0, include_last_offset=True,
                                     per_sample_weights=torch.from_numpy(weight).float())[0]
        if a["noise"] > 0:
            x += torch.from_numpy(r.standard_normal(x.shape, dtype=np.float32)) * (a["noise"] / a["d_in"] ** 0.5)
        return x.to(self.dtype).float()

    def _points(self, r: np.random.Generator, features: np.ndarray) -> list[np.ndarray]:
        """Where on its manifold each firing is, by axis of the feature's space: [firing] each; a ray has its first axis alone."""
        curved = (self.truth.second != 0).any(1).numpy()[features]
        if len(self.truth.more) == 1:
            angles = np.where(curved, r.uniform(0, 2 * np.pi, len(features)), 0.0)
            return [np.cos(angles), np.sin(angles)]
        points = _unit(r.standard_normal((len(features), 1 + len(self.truth.more))))
        points[~curved] = np.eye(1, points.shape[1])
        return list(points.T)

    def firings(self, r: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(token, feature) of everything that fires in one forward batch, by token and then feature."""
        a, n = self.settings, len(self.truth.rates)
        if a.get("one_at_a_time"):
            chance = np.cumsum(self.truth.rates)
            return np.arange(a["batch_tokens"]), np.searchsorted(chance / chance[-1], r.random(a["batch_tokens"]), side="right")
        roots = a["hierarchy_roots"] or n
        token, feature = self._independent(r, self.truth.rates[:roots])
        tokens, features = [token], [feature]
        while roots < n and len(token):
            child = roots + feature[:, None] * a["hierarchy_branching"] + np.arange(a["hierarchy_branching"])
            fires = r.random(child.shape)
            exists = child < n
            child = np.where(exists, child, 0)
            fires = exists & (fires < self.truth.rates[child] / self.truth.rates[feature][:, None])
            token, feature = np.nonzero(fires)[0], child[fires]
            token = tokens[-1][token]
            tokens.append(token)
            features.append(feature)
        both = np.sort(np.concatenate(tokens) * n + np.concatenate(features))
        return both // n, both % n

    def _independent(self, r: np.random.Generator, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Independent firings at these rates. A cell of a Poisson field of intensity -ln(1 - p) is hit with probability p."""
        size = self.settings["batch_tokens"]
        hits = r.poisson(-np.log1p(-chance) * size)
        feature = np.repeat(np.arange(len(chance)), hits)
        cells = np.unique(r.integers(0, size, len(feature)) * len(chance) + feature)
        return cells // len(chance), cells % len(chance)


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1.0)
