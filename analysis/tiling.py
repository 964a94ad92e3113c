"""How latents are best divided over features that are spheres, when one feature fires at a time and a token gets one latent.

The model of `allocation_model` with what n latents leave of one sphere's energy measured instead of n ** -beta: near n = 1 they
are far apart (on a circle two latents leave one half, not one quarter).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

POINTS = 20_000  # of a sphere, on which its latents are placed
ROUNDS = 25
GRID = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)


class Division(NamedTuple):
    """`latents` int64 [feature]; `loss`, the energy left as a share of all."""

    latents: np.ndarray
    loss: float

    @property
    def discovered(self) -> int:
        return int((self.latents > 0).sum())


def left_on_sphere(dim: int, largest: int, seed: int = 0) -> np.ndarray:
    """float64 [largest + 1]: the mean squared distance of the unit sphere in `dim` dimensions to the nearest of n half-lines.

    A point x read by direction u leaves 1 - max(0, u.x) ** 2. Directions are placed by Lloyd's rounds: a point belongs to the
    direction it has most of, a direction becomes the one its points have most of. Sizes between those tried are interpolated.
    """
    rng = np.random.default_rng(seed)
    x = _unit(rng.standard_normal((POINTS, dim)))
    tried = [n for n in GRID if n < largest] + [largest]
    left = [1.0, *(_placed(x, n, rng) for n in tried)]
    return np.exp(np.interp(np.log1p(np.arange(largest + 1)), np.log1p([0, *tried]), np.log(left)))


def _placed(x: np.ndarray, n: int, rng: np.random.Generator) -> float:
    u = x[rng.choice(len(x), n, replace=False)]
    for _ in range(ROUNDS):
        along = x @ u.T
        nearest, most = along.argmax(axis=1), along.max(axis=1)
        for i in range(n):
            mine = x[(nearest == i) & (most > 0)]
            if len(mine):
                main = np.linalg.eigh(mine.T @ mine)[1][:, -1]
                u[i] = main * np.sign(main @ mine.sum(axis=0))
    return float(1 - (np.maximum((x @ u.T).max(axis=1), 0) ** 2).mean())


def divide(p: np.ndarray, left: np.ndarray, n_latents: int) -> Division:
    """The division of n_latents over features of rates p [feature] that leaves least, n latents leaving left[n] of one.

    Latents go one by one where they help most, which is the optimum since gains are made to fall: `left` is replaced by its lower
    convex hull. Raises ValueError for fewer entries of `left` than a feature may want.
    """
    gains = np.round(-np.diff(_convex(left)), 12)  # equal ones stay equal, so that they are taken together
    order = np.argsort(-np.outer(p, gains), axis=None, kind="stable")[:n_latents]
    latents = np.bincount(order // len(gains), minlength=len(p))
    if n_latents > len(gains) and latents.max() == len(gains):
        raise ValueError(f"a feature wants more than {len(gains)} of {n_latents} latents: give left[n] further.")
    return Division(latents, float((p * left[latents]).sum() / p.sum()))


def _convex(y: np.ndarray) -> np.ndarray:
    """The lower convex hull of y over 0, 1, 2 ..."""
    kept: list[int] = []
    for i, value in enumerate(y):
        while len(kept) > 1 and (y[kept[-1]] - y[kept[-2]]) * (i - kept[-2]) >= (value - y[kept[-2]]) * (kept[-1] - kept[-2]):
            kept.pop()
        kept.append(i)
    return np.interp(np.arange(len(y)), kept, y[kept])


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
