"""Is this a minimum, and does every term of the law take part in it? The optimiser's own word is not asked."""

from dataclasses import asdict, dataclass

import numpy as np

from analysis.solve import CERTIFIED, Solution
from analysis.surface import Surface

LEAST_SHARE = 1e-3
LEAST_CURVATURE = 1e-10
AGREEMENT = 1e-9
ROUNDING = 1e-13  # of a residual: differences below are none


@dataclass(frozen=True)
class Certificate:
    """scaled_gradient: largest cosine between psi(residuals) and a column of the Jacobian (ok <= 1e-8); least_curvature: the
    smallest eigenvalue of the scaled Hessian; starts, agreeing_starts: how many reached the same value within 1e-9;
    term_shares: the largest share of y a floor has in any row, and of the excess over the floor any other term has;
    vanished, at_bound: names."""

    scaled_gradient: float
    least_curvature: float
    starts: int
    agreeing_starts: int
    term_shares: dict[str, float]
    vanished: tuple[str, ...]
    at_bound: tuple[str, ...]

    @property
    def status(self) -> str:
        """'ok', 'degenerate' (a term has vanished), 'at_bound' or 'not_converged'."""
        if self.vanished:
            return "degenerate"
        if not (self.scaled_gradient <= CERTIFIED and self.least_curvature > LEAST_CURVATURE):
            return "not_converged"
        return "at_bound" if self.at_bound else "ok"

    def to_dict(self) -> dict:
        return asdict(self) | {"status": self.status}

    @classmethod
    def from_dict(cls, record: dict) -> "Certificate":
        lists = {name: tuple(record[name]) for name in ("vanished", "at_bound")}
        return cls(**{name: value for name, value in record.items() if name != "status"} | lists)


def certify(surface: Surface, solution: Solution, unit: float) -> tuple[int, Certificate]:
    """The best of several starts (its index) and its certificate. `unit`: what the objective measures residuals in (ln y)."""
    best = int(np.argmin(solution.value))
    lowest = solution.value[best]
    agreeing = int((solution.value <= lowest + AGREEMENT * abs(lowest) + surface.n_rows * (ROUNDING / unit) ** 2).sum())
    shares = {name: float(values[0]) for name, values in term_shares(surface, solution.points[best : best + 1]).items()}
    vanished = tuple(name for name, share in shares.items() if share < LEAST_SHARE)
    numbers = (float(solution.cosine[best]), float(solution.lowest[best]), len(solution.value), agreeing)
    return best, Certificate(*numbers, shares, vanished, at_bound(surface, solution.points[best]))


def term_shares(surface: Surface, points: np.ndarray) -> dict[str, np.ndarray]:
    """Term -> [problem]: its largest share over the rows, of y for a floor, of the excess over the floor for the others."""
    law = surface.law
    if len(law.terms) < 2:
        return {}
    sized = dict(zip(law.terms, surface.ln_terms(points), strict=True))
    top = np.maximum.reduce(list(sized.values()))
    sized = {name: np.exp(term - top) for name, term in sized.items()}
    whole = sum(sized.values())
    excess = whole - sized[law.floor] if law.floor else whole
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = {name: term / (whole if name == law.floor else excess) for name, term in sized.items()}
    return {name: np.nan_to_num(share).max(axis=1) for name, share in shares.items()}


def at_bound(surface: Surface, point: np.ndarray) -> tuple[str, ...]:
    """Exponents on the edge of what they may be."""
    first, on = len(surface.heads), (point <= surface.low) | (point >= surface.high)
    return tuple(name for i, name in enumerate(surface.law.exponents) if on[first + i])
