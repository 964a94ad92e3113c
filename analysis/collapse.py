"""Do the presence curves of all dictionaries fall onto one? A share of what separate curves gain, and a likelihood-ratio test."""

from collections.abc import Callable

import numpy as np
from scipy.stats import chi2


def collapse(data, joint: np.ndarray, one: np.ndarray, fit: Callable) -> dict:
    """`data`: presence.Observations; joint: coefficients on (ln f, ln n); one: on ln f + ln n; fit: presence.fit_logistic.

    collapse_share = (lnL of one curve in f * n_alive - lnL of frequency alone) / (lnL of separate curves - the same).
    collapse_p: likelihood-ratio test of the joint law (one slope, thresholds n^-q) against an intercept and a slope for each
    dictionary, 2 sizes - 3 degrees of freedom. It takes pairs as independent, so presence that concepts share across
    dictionaries makes it too strict: a large p speaks for the collapse, a small one wants a look at the curves.
    """
    sizes = np.unique(data.ln_n)

    def best(mask: np.ndarray) -> float:
        coef = fit(data.ln_f[mask][:, None], data.present[mask], np.ones((1, mask.sum())))[0]
        return log_likelihood(data.present[mask], coef[0] + coef[1] * data.ln_f[mask])

    alone = best(np.ones(len(data.present), dtype=bool))
    separate = sum(best(data.ln_n == n) for n in sizes)
    gained = log_likelihood(data.present, one[0] + one[1] * (data.ln_f + data.ln_n)) - alone
    together = log_likelihood(data.present, joint[0] + joint[1] * data.ln_f + joint[2] * data.ln_n)
    free = 2 * len(sizes) - 3
    return {
        "collapse_share": gained / (separate - alone) if separate > alone + 1e-9 else None,
        "collapse_statistic": max(0.0, 2 * (separate - together)),
        "collapse_df": free,
        "collapse_p": float(chi2.sf(max(0.0, 2 * (separate - together)), free)) if free > 0 else None,
    }


def log_likelihood(present: np.ndarray, logit: np.ndarray) -> float:
    return float(-np.logaddexp(0.0, np.where(present > 0, -logit, logit)).sum())
