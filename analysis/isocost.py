"""Where a fitted surface L(N, D) is lowest on a curve of equal cost, for the estimate and for every draw."""

import math

import numpy as np

from analysis import formula
from analysis.compute import Cost
from analysis.result import FitResult

GRID, REFINED = 241, 3
REACH = math.log(1e4)  # how far beyond the measured sizes an optimum is sought


def loss(fit: FitResult, params: dict, n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """The law at sizes n and tokens d; params name -> number or [draw, 1]."""
    values = {"N": n, "D": d} | params
    total = sum(values[name] * formula.evaluate(text, values) for name, text in fit.law.terms.items())
    return total ** values[fit.law.power] if fit.law.power else total + 0.0 * n


def parameters(fit: FitResult) -> tuple[dict, dict]:
    """(estimate as [1, 1], draws as [draw, 1]) by name."""
    names = fit.law.params
    return ({name: np.array([[fit.params[name]]]) for name in names},
            {name: fit.draws[:, i, None] for i, name in enumerate(names)} if fit.draws.size else {})  # fmt: skip


def optimum(fit: FitResult, params: dict, cost: Cost, flops: float) -> tuple[np.ndarray, np.ndarray]:
    """ln N* and ln loss there [draw] at a cost of `flops`; NaN where the loss falls to the edge of what is searched.

    A grid in ln N over the fitted sizes (moved with compute) and REACH beyond, refined around the lowest node.
    Errors: `ValueError` for a law without both N and D.
    """
    if not {"N", "D"} <= set(fit.law.columns):
        raise ValueError(f"The law {fit.law.name!r} does not know both N and D, so it says nothing on how to spend compute.")
    low, high = (math.log(edge) for edge in fit.spans["N"])
    spent = [math.log(flops / cost.flops(*pair)) for pair in zip(fit.spans["N"], fit.spans["D"], strict=True)]
    low, high = low + min(0.0, spent[0]) - REACH, high + max(0.0, spent[1]) + REACH
    count = len(next(iter(params.values())))
    at = np.broadcast_to(np.linspace(low, high, GRID), (count, GRID))
    step, inside = (high - low) / (GRID - 1), np.ones(count, bool)
    for turn in range(REFINED):
        n = np.exp(at)
        with np.errstate(all="ignore"):
            value = np.log(loss(fit, params, n, cost.tokens(flops, n)))
        best = np.argmin(np.where(np.isfinite(value), value, np.inf), axis=1)
        inside &= (best > 0) & (best < at.shape[1] - 1) if turn == 0 else True
        centre = at[np.arange(count), best]
        if turn < REFINED - 1:
            at = centre[:, None] + step * np.linspace(-1, 1, 41)
            step /= 20
    middle = np.clip(best, 1, at.shape[1] - 2)
    y = np.stack([value[np.arange(count), middle + i] for i in (-1, 0, 1)])
    bend = y[0] - 2 * y[1] + y[2]
    with np.errstate(all="ignore"):
        shift = np.where(bend > 0, 0.5 * (y[0] - y[2]) / bend, 0.0)
    x = at[np.arange(count), middle] + np.clip(shift, -1, 1) * step
    return np.where(inside, x, np.nan), np.where(inside, y[1], np.nan)


def path(fit: FitResult, params: dict, cost: Cost, flops: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) [draw]: mean slopes of ln N* and ln D* in ln C between two costs; exact for power laws without overhead."""
    ends = [optimum(fit, params, cost, c)[0] for c in flops]
    width = math.log(flops[1] / flops[0])
    tokens = [np.log(cost.tokens(c, np.exp(x))) for c, x in zip(flops, ends, strict=True)]
    return (ends[1] - ends[0]) / width, (tokens[1] - tokens[0]) / width
