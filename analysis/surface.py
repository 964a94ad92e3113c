"""A law on a table's rows, ready to be solved: ln y and its exact first and second derivatives, for many points at once.

Inside, a point is [ln coefficients (or levels), exponents]. A law whose every ln term is affine in the exponents (all the
built-in ones but `broken`) has constant features D, so its derivatives are matrix products; others go through jets. The
features of affine laws are centred, a linear change M of the parameters, so that the search is well scaled.
"""

import math
from dataclasses import dataclass

import numpy as np

from analysis import formula
from analysis.laws import Law

_BOUND_LOW_SHARE, _BOUND_HIGH_SHARE = 0.1, 0.9
_CENTRED = 1e8  # condition number beyond which dividing the columns did not centre the features but flattened them
_GONE = 25.0  # a centred coefficient this far (in ln) below the lowest y is as good as zero


@dataclass(frozen=True)
class Surface:
    """law on rows. heads: names or cells of the linear part [t]; q exponents.

    features [term, row, p] and offsets [term, row]: ln term = offset + features . point, when affine, else None.
    back [p, p]: point in the law's own parameters = back @ point inside. low, high [p]: bounds inside.
    """

    law: Law
    columns: dict[str, np.ndarray]
    heads: tuple[str, ...]
    features: np.ndarray | None
    offsets: np.ndarray | None
    back: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def size(self) -> int:
        return len(self.back)

    @property
    def n_rows(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def power_at(self) -> int | None:
        """Index of the exponent on the whole sum."""
        return len(self.heads) + self.law.exponents.index(self.law.power) if self.law.power else None

    def ln_terms(self, points: np.ndarray) -> list[np.ndarray]:
        """ln of every term [term][problem, row] at points [problem, p], before the power."""
        if self.features is not None:
            return [points @ f.T + o for f, o in zip(self.features, self.offsets, strict=True)]
        shape = (len(points), self.n_rows)
        return [np.broadcast_to(points[:, t, None] + jet.value, shape) for t, jet in enumerate(self.jets(points))]

    def jets(self, points: np.ndarray) -> list[formula.Jet]:
        """ln of every term without its coefficient, as jets in the exponents."""
        first = len(self.heads)
        values = dict(self.columns)
        for i, name in enumerate(self.law.exponents):
            values[name] = formula.variable(points[:, first + i, None], first + i)
            values[name] = formula.exp(values[name]) if self.logged[i] else values[name]
        return [formula.ln(formula.jet(formula.evaluate(text, values))) for text in self.law.terms.values()]

    def outside(self, points: np.ndarray) -> np.ndarray:
        """Points in the law's own parameters, coefficients in ln."""
        return points @ self.back.T

    @property
    def logged(self) -> np.ndarray:
        """Exponents that are searched for in ln: the positive ones of laws that are not affine, whatever their size."""
        affine = self.features is not None
        return np.array([not affine and self.law.positive(name) for name in self.law.exponents], bool)

    def natural(self, points: np.ndarray) -> np.ndarray:
        """[problem, param] in the order of law.params: coefficients themselves, levels left out."""
        own = self.outside(points)
        with np.errstate(over="ignore"):
            linear = np.exp(own[:, : len(self.heads)]) if not self.law.levels else own[:, :0]
            rest = own[:, len(self.heads) :]
            rest = np.where(self.logged, np.exp(np.where(self.logged, rest, 0.0)), rest)
        return np.concatenate([linear, rest], axis=1)


def surface(law: Law, columns: dict[str, np.ndarray], ln_y: np.ndarray) -> Surface:
    """The law on these rows. `columns`: name -> positive values [row]; ln_y [row] sets where a term counts as gone."""
    heads = _cells(law, columns)[0] if law.levels else tuple(law.terms)
    affine = _affine(law, columns)
    size = len(heads) + len(law.exponents)
    back = np.eye(size)
    features = offsets = None
    if affine is not None:
        slopes, offsets = affine
        features = np.zeros((len(law.terms), len(slopes[0]), size))
        for t, slope in enumerate(slopes):
            features[t, :, len(heads) :] = slope
            if law.levels:
                features[t, np.arange(len(slope)), _cells(law, columns)[1]] = 1.0
            else:
                features[t, :, t] = 1.0
        if not law.levels:
            back = _centring(law, columns, features)
            features = features @ back
    low, high = _bounds(law, columns, heads, affine is not None)
    if len(heads) > 1 and not law.power and not np.array_equal(back, np.eye(size)):
        low[: len(heads)] = ln_y.min() - _GONE
    return Surface(law, columns, heads, features, offsets, back, low, high)


def _cells(law: Law, columns: dict[str, np.ndarray]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the distinct combinations of the level columns, and the one of each row."""
    values, at = np.unique(np.stack([columns[name] for name in law.levels], axis=1), axis=0, return_inverse=True)
    return tuple(",".join(f"{name}={v:g}" for name, v in zip(law.levels, row, strict=True)) for row in values), at.ravel()


def _affine(law: Law, columns: dict[str, np.ndarray]) -> tuple[list[np.ndarray], np.ndarray] | None:
    """(features [row, exponent], offset [row]) of each ln term if it is affine in the exponents, else None.

    Read from the jets at two points: the bend is zero and the slope the same at both.
    """
    names, slopes, offsets = law.exponents, [], []
    for text in law.terms.values():
        at = [_term_jet(text, names, columns, seed) for seed in (0.37, 0.59)]
        found = [np.stack([np.broadcast_to(j.slope.get(i, 0.0), j.value.shape) for i in range(len(names))], -1)
                 if names else np.zeros((*j.value.shape, 0)) for _, j in at]
        scale = 1e-9 * (1 + max(np.abs(s).max(initial=0.0) for s in found))
        bent = any(np.abs(d).max() > scale * (1 + np.abs(j.value).max()) for _, j in at for d in j.bend.values())
        if bent or np.abs(found[0] - found[1]).max(initial=0.0) > scale:
            return None
        point, jet = at[0]
        slopes.append(found[0])
        offsets.append(jet.value - found[0] @ point)
    return slopes, np.stack(offsets)


def _term_jet(text: str, names: tuple[str, ...], columns: dict, seed: float) -> tuple[np.ndarray, formula.Jet]:
    point = np.array([seed + 0.11 * i for i in range(len(names))])
    rows = len(next(iter(columns.values())))
    values = columns | {name: formula.variable(np.full(rows, v), i) for i, (name, v) in enumerate(zip(names, point, strict=True))}
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        jet = formula.ln(formula.jet(formula.evaluate(text, values)))
    return point, formula.Jet(np.broadcast_to(jet.value, (rows,)), jet.slope, jet.bend)


def _centring(law: Law, columns: dict, features: np.ndarray) -> np.ndarray:
    """M with features @ M = the same features of columns divided by their geometric means, or with each term's mean taken off.

    Solved by least squares over the rows of all terms at once; exact when the law holds the main effects of its products.
    """
    shifted = {name: values / math.exp(np.log(values).mean()) for name, values in columns.items()}
    wanted = features.copy()
    for t, slope in enumerate(_affine(law, shifted)[0]):
        wanted[t, :, len(law.terms) :] = slope
    back, used = np.eye(features.shape[-1]), np.abs(features).max(axis=(0, 1)) > 0
    flat, target = (array[:, :, used].reshape(-1, used.sum()) for array in (features, wanted))
    found, _, rank, _ = np.linalg.lstsq(flat, target, rcond=1e-12)
    exact = rank == used.sum() and np.abs(flat @ found - target).max() <= 1e-8 * (1 + np.abs(target).max())
    if exact and np.linalg.cond(found) < _CENTRED:
        back[np.ix_(used, used)] = np.where(np.abs(found) < 1e-9, 0.0, found)
    else:  # a column beside a constant, as in (D + 1e9)**-beta: take the mean slope of each term into its coefficient
        back[: len(law.terms), len(law.terms) :] = -features[:, :, len(law.terms) :].mean(axis=1)
    return back


def inner_range(values: np.ndarray) -> tuple[float, float]:
    """The middle 80 % of a column's logarithmic range, where a break may lie."""
    low, high = np.log(values.min()), np.log(values.max())
    return math.exp(low + _BOUND_LOW_SHARE * (high - low)), math.exp(low + _BOUND_HIGH_SHARE * (high - low))


def _bounds(law: Law, columns: dict, heads: tuple[str, ...], affine: bool) -> tuple[np.ndarray, np.ndarray]:
    low, high = [-np.inf] * len(heads), [np.inf] * len(heads)
    for name, span in law.ranges.items():
        if isinstance(span, str):
            bounds = inner_range(columns[span])
        else:
            bounds = (0.0, 2.0 * span[1]) if span[0] > 0 else (-np.inf, np.inf)
        if not affine and law.positive(name):
            bounds = (math.log(bounds[0]) if bounds[0] > 0 else -np.inf, math.log(bounds[1]))
        low.append(bounds[0])
        high.append(bounds[1])
    return np.array(low), np.array(high)
