"""Where latents go when features differ in how often they fire: the allocation model of Michaud, Gorton and McGrath (2025).

Feature i fires with p_i; n_i latents leave the share (1 + n_i) ** -beta of its energy. A dictionary of N latents divides them so
that L = sum p_i (1 + n_i) ** -beta is least. By Lagrange n_i = (p_i / mu) ** (1 / (1 + beta)) - 1 where that is positive, else 0.
With p_i ~ i ** -(1 + alpha), far from the ends,

    alpha < beta (benign)          features discovered D ~ N,                               L ~ N ** -alpha
    beta < alpha (pathological)    D ~ N ** ((1 + beta) / (1 + alpha)), the rest tiles,     L ~ N ** -beta

In a finite range the exponents are those of this exact solution, a few per cent away: compare a measurement with `exponents`,
not with the limit. A feature that one latent holds whole is beta -> infinity (`discrete`): D = N, L = what was not discovered.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SIMULATED, BLOCK = 20_000, 1_000  # tokens of `limited`, at once


class Allocation(NamedTuple):
    """Of each size N: features that get at least one latent, and the loss relative to none at all."""

    discovered: np.ndarray
    loss: np.ndarray


def allocate(p: np.ndarray, beta: float, sizes: np.ndarray, tail: float = 0.0) -> Allocation:
    """The best division of `sizes` [size] latents over features of rates p [feature], by Lagrange, exact for real n_i.

    `tail` is the summed rate of features beyond the list. Raises ValueError for rates that do not fall or are not positive, and
    for a size that would reach the end of the list.
    """
    p, sizes = np.asarray(p, np.float64), np.asarray(sizes, np.float64)
    if not (p > 0).all() or not (np.diff(p) <= 0).all():
        raise ValueError("rates must be positive and sorted, the most frequent feature first.")
    root = p ** (1 / (1 + beta))
    summed = np.cumsum(root)
    enters = summed / root - np.arange(1, len(p) + 1)  # N at which feature i gets its first share of a latent
    if sizes.max() > enters[-1]:
        raise ValueError(f"{sizes.max():g} latents reach the end of {len(p)} features: list more of them, or fewer latents.")
    last = np.searchsorted(enters, sizes, side="right")  # features with a share
    mu_root = summed[last - 1] / (sizes + last)  # mu ** (1 / (1 + beta))
    discovered = np.searchsorted(-root, -2 * mu_root, side="right")  # n_i >= 1
    outside = p.sum() - np.cumsum(p)[last - 1] + tail
    return Allocation(discovered, (mu_root**beta * summed[last - 1] + outside) / (p.sum() + tail))


def discrete(p: np.ndarray, sizes: np.ndarray) -> Allocation:
    """One latent per feature, the most frequent first: what is left is the summed rate of the rest."""
    p, sizes = np.asarray(p, np.float64), np.minimum(np.asarray(sizes), len(p))
    return Allocation(sizes, 1 - np.cumsum(p)[sizes - 1] / p.sum())


def limited(p: np.ndarray, k: int, sizes: np.ndarray, magnitudes: tuple[float, float], seed: int = 0) -> np.ndarray:
    """float64 [size]: the share of energy that `discrete` leaves when a token may use at most k latents, by simulation.

    Features fire independently with p [feature], with magnitudes uniform between the two; of those held, the k largest of each
    token are reconstructed whole. What a dictionary has to leave even if its directions are perfect and do not interfere.
    """
    rng, p = np.random.default_rng(seed), np.asarray(p, np.float64)
    total, left = 0.0, np.zeros(len(sizes))
    for _ in range(SIMULATED // BLOCK):
        energy = np.where(rng.random((BLOCK, len(p))) < p, rng.uniform(*magnitudes, (BLOCK, len(p))) ** 2, 0.0)
        total += energy.sum()
        for i, n in enumerate(sizes):
            held = energy[:, :n]
            kept = held if n <= k else np.partition(held, n - k, axis=1)[:, n - k :]
            left[i] += energy.sum() - kept.sum()
    return left / total


def exponents(sizes: np.ndarray, found: Allocation) -> tuple[float, float]:
    """(exponent of D, exponent of L) by least squares of logarithms over these sizes."""
    ln_n = np.log(np.asarray(sizes, np.float64))
    return tuple(float(np.polyfit(ln_n, np.log(y), 1)[0]) for y in found)
