"""What is minimised: a sum over rows of weight * rho(residual), residual = ln y of the law - ln y of the row.

All three are Huber's loss at some threshold d, in units of d^2 so that tolerances mean something: `squared` is d = infinity
(in units of 1), `lad` a d far below the residuals, reached through a falling sequence.
"""

from dataclasses import dataclass

import numpy as np

KINDS = ("huber", "lad", "squared")
TUNING = 1.345  # Huber's: 95 % efficient for normal residuals, in units of their sd
MAD_TO_SD = 1.4826
LAD_LAST, LAD_ROUGH = 1e-5, 1e-2  # LAD's threshold in units of the residuals' scale: final, and good for a scale


@dataclass(frozen=True)
class Objective:
    """kind and threshold; `delta` is in ln y, infinite for `squared`."""

    kind: str
    delta: float = np.inf

    @property
    def unit(self) -> float:
        return self.delta if np.isfinite(self.delta) else 1.0

    def rho(self, residual: np.ndarray) -> np.ndarray:
        """Loss in units of delta^2."""
        z = residual / self.unit
        if not np.isfinite(self.delta):
            return 0.5 * z * z
        inner = np.minimum(np.abs(z), 1.0)
        return inner * (np.abs(z) - 0.5 * inner)

    def parts(self, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(psi, psi', psi / residual) in units of delta^2: slope, curvature and the reweighted least squares' weight."""
        if not np.isfinite(self.delta):
            one = np.ones_like(residual)
            return residual, one, one
        z = residual / self.delta
        psi = np.clip(z, -1.0, 1.0)
        size = np.maximum(np.abs(z), 1.0)
        return psi / self.delta, (size <= 1.0) / self.delta**2, 1.0 / (size * self.delta**2)

    def inside(self, residual: np.ndarray) -> float:
        """Share of residuals within the threshold."""
        return float((np.abs(residual) <= self.delta).mean())


def scale(residual: np.ndarray, n_params: int) -> float:
    """Robust sd: 1.4826 times the median of the n - p + 1 largest |residuals| (a LAD fit makes p of them zero)."""
    sizes = np.sort(np.abs(residual))[max(0, min(n_params - 1, len(residual) - 1)) :]
    return max(MAD_TO_SD * float(np.median(sizes)), 1e-12)


def check(kind: str, delta: float | None) -> None:
    if kind not in KINDS:
        raise ValueError(f"There is no objective {kind!r}: choose one of {', '.join(KINDS)}.")
    if delta is not None and kind != "huber":
        raise ValueError(f"delta={delta} belongs to the huber objective, not to {kind}: leave it out or choose huber.")
    if delta is not None and not (np.isfinite(delta) and delta > 0):
        raise ValueError(f"delta={delta} is not a threshold: give a positive number in units of ln y, such as 1e-3.")
