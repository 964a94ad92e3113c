"""Loss against dictionary size at convergence, and the tokens it takes to get there.

Stop rule: a size has converged at the first D where one more doubling, the one that led to D, lowered ln loss by less than
`eps` (relative improvement per doubling of tokens). Between horizons ln loss is taken as linear in ln D. A size whose longest
horizon still improves faster is left out and named: it is not at convergence.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

EPS = 0.01


def converged(table: pd.DataFrame | Mapping, eps: float = EPS) -> tuple[pd.DataFrame, list[float]]:
    """(one row per converged size: N, D of convergence, loss there, horizons; sizes that have not converged).

    `table` has N, D, loss; runs with equal N and D are averaged in ln loss. Errors: `ValueError` for missing columns, eps outside
    (0, 1), or no size with two horizons a doubling apart.
    """
    frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame(dict(table))
    if missing := [name for name in ("N", "D", "loss") if name not in frame.columns]:
        raise ValueError(f"Convergence needs the columns N, D and loss; {', '.join(missing)} is missing from the table.")
    if not 0 < eps < 1:
        raise ValueError(f"eps={eps} is not a relative improvement per doubling: choose a number between 0 and 1, such as {EPS}.")
    found, open_ = [], []
    for n, group in frame.groupby("N"):
        means = np.log(group["loss"]).groupby(group["D"]).mean().sort_index()
        stop = _stop(np.log(means.index.to_numpy(float)), means.to_numpy(float), eps)
        if stop is None:
            open_.append(float(n))
        else:
            found.append({"N": float(n), "D": float(np.exp(stop[0])), "loss": float(np.exp(stop[1])), "horizons": len(means)})
    if not found:
        raise ValueError(f"No size has converged (less than {eps:.1%} per doubling of tokens): train longer, or raise eps.")
    return pd.DataFrame(found), open_


def _stop(ln_d: np.ndarray, ln_y: np.ndarray, eps: float) -> tuple[float, float] | None:
    """(ln D, ln loss) at convergence, or None."""
    at = ln_d[ln_d >= ln_d[0] + np.log(2) - 1e-9]
    if not len(at):
        return None
    gain = np.interp(at - np.log(2), ln_d, ln_y) - np.interp(at, ln_d, ln_y)
    slow = np.flatnonzero(gain < eps)
    if not len(slow):
        return None
    i = int(slow[0])
    stop = at[i]
    if i > 0 and gain[i - 1] > gain[i]:
        stop = at[i - 1] + (gain[i - 1] - eps) / (gain[i - 1] - gain[i]) * (at[i] - at[i - 1])
    return float(stop), float(np.interp(stop, ln_d, ln_y))
