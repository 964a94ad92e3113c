"""ln y of a law with its exact first and second derivatives, for many points at once: matrix products where the law is affine
inside its terms, jets where it is not."""

import numpy as np

from analysis.surface import Surface


def model(surface: Surface, points: np.ndarray):
    """(ln y [problem, row], Jacobian [problem, p, row], bend): bend(a, b) = sum over rows of a J J' + b d2(ln y)."""
    if surface.features is not None:
        return _affine_model(surface, points)
    return _jet_model(surface, points)


def ln_model(surface: Surface, points: np.ndarray) -> np.ndarray:
    """ln y [problem, row]."""
    total = _ln_sum(surface.ln_terms(points))[0]
    return total if surface.power_at is None else total * points[:, surface.power_at, None]


def _ln_sum(ln_terms: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """(ln of the sum of the terms, share of each term in it)."""
    if len(ln_terms) == 1:
        return ln_terms[0], [np.ones_like(ln_terms[0])]
    top = np.maximum.reduce(ln_terms)
    with np.errstate(invalid="ignore"):
        sized = [np.exp(term - top) for term in ln_terms]
    whole = sum(sized[1:], sized[0])
    return top + np.log(whole), [term / whole for term in sized]


def _affine_model(surface: Surface, points: np.ndarray):
    total, shares = _ln_sum(surface.ln_terms(points))
    jacobian = np.zeros((len(points), surface.size, surface.n_rows))
    used = [np.flatnonzero(np.abs(f).max(axis=0) > 0) for f in surface.features]
    for share, f, at in zip(shares, surface.features, used, strict=True):
        for j in at:
            jacobian[:, j] += share * f[:, j]
    products = [(f[:, at, None] * f[:, None, at]).reshape(len(f), -1) for f, at in zip(surface.features, used, strict=True)]

    def second(weight: np.ndarray) -> np.ndarray:
        """Sum over rows and terms of weight share d d', without the outer product of the mean."""
        out = np.zeros((len(points), surface.size, surface.size))
        for share, at, product in zip(shares, used, products, strict=True):
            out[:, at[:, None], at[None, :]] += ((weight * share) @ product).reshape(-1, len(at), len(at))
        return out

    def bend(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if len(shares) == 1:  # ln y is linear in the parameters
            return _outer(jacobian, a)
        return _outer(jacobian, a - b) + second(b)

    return _with_power(surface, points, total, jacobian, bend)


def _jet_model(surface: Surface, points: np.ndarray):
    jets = surface.jets(points)
    shape = (len(points), surface.n_rows)
    total, shares = _ln_sum([np.broadcast_to(points[:, t, None] + j.value, shape) for t, j in enumerate(jets)])
    own = np.zeros((len(jets), len(points), surface.size, surface.n_rows))
    for t, j in enumerate(jets):
        own[t, :, t] = 1.0
        for i, d in j.slope.items():
            own[t, :, i] = d
    jacobian = sum(share[:, None] * d for share, d in zip(shares, own, strict=True))

    def bend(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        out = _outer(jacobian, a - b)
        for share, d, j in zip(shares, own, jets, strict=True):
            out += _outer(d, b * share)
            for (i, k), second in j.bend.items():
                part = (b * share * second).sum(axis=1)
                out[:, i, k] += part
                if i != k:
                    out[:, k, i] += part
        return out

    return _with_power(surface, points, total, jacobian, bend)


def _with_power(surface: Surface, points: np.ndarray, total: np.ndarray, jacobian: np.ndarray, bend):
    """ln y = s total: multiplies values and derivatives through when the law has an outer power s."""
    at = surface.power_at
    if at is None:
        return total, jacobian, bend
    s = points[:, at, None]
    whole = s[:, :, None] * jacobian
    whole[:, at] = total

    def powered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        out = _outer(whole, a) + bend(np.zeros_like(b), s * b)
        cross = (jacobian @ b[:, :, None])[:, :, 0]
        out[:, at] += cross
        out[:, :, at] += cross
        return out

    return s * total, whole, powered


def _outer(jacobian: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return (jacobian * weight[:, None]) @ jacobian.transpose(0, 2, 1)
