"""Do the presence curves of all dictionaries fall onto one, and is it alive or all latents that rescale frequency?"""

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.stats import chi2, norm

from analysis.logistic import fit_logistic, log_likelihoods, score_test
from analysis.presence_data import Observations

GRID = 200  # points of the collapsed axis at which isotonic curves are compared


def collapse(data: Observations, joint: np.ndarray, one: np.ndarray) -> dict:
    """joint: coefficients on (ln f, ln n_alive); one: on ln f + ln n_alive.

    collapse_share = (lnL of one curve in f * n_alive - lnL of frequency alone) / (lnL of separate curves - the same).
    collapse_p: likelihood-ratio test of the joint law (one slope, thresholds n^-q) against an intercept and a slope for each
    dictionary, 2 sizes - 3 degrees of freedom. It takes pairs as independent, so presence that concepts share across
    dictionaries makes it wrong; collapse_clustered tests the same with its variance over concepts: quote that one.
    distance: mean absolute distance between the isotonic curves of two sizes, over all pairs of sizes, where both have
    concepts: against f * n_alive, and against f alone. No form of curve is assumed; noise alone keeps it above 0.
    """
    size = data.size
    n_sizes = int(size.max()) + 1

    def best(mask: np.ndarray) -> float:
        coef = fit_logistic(data.ln_f[mask][:, None], data.present[mask], np.ones((1, mask.sum())))[0]
        return log_likelihoods(data.present[mask], coef[0] + coef[1] * data.ln_f[mask]).sum()

    alone = best(np.ones(len(data.present), dtype=bool))
    separate = sum(best(size == s) for s in range(n_sizes))
    gained = log_likelihoods(data.present, one[0] + one[1] * (data.ln_f + data.ln_n)).sum() - alone
    together = log_likelihoods(data.present, joint[0] + joint[1] * data.ln_f + joint[2] * data.ln_n).sum()
    free = 2 * n_sizes - 3
    statistic = max(0.0, 2 * float(separate - together))
    return {
        "collapse_share": float(gained / (separate - alone)) if separate > alone + 1e-9 else None,
        "collapse_statistic": statistic,
        "collapse_df": free,
        "collapse_p": float(chi2.sf(statistic, free)) if free > 0 else None,
        "collapse_clustered": _own_curves(data)._asdict(),
        "distance": {"collapsed": _distance(data, data.ln_f + data.ln_n), "by_frequency": _distance(data, data.ln_f)},
    }


def _own_curves(data: Observations):
    """Score test, clustered by concept, of own offsets (from the third size on) and own slopes (from the second) of sizes."""
    own = (data.size[:, None] == np.arange(1, data.size.max() + 1)).astype(float)
    centred = data.ln_f - data.ln_f.mean()
    more = np.concatenate([own[:, 1:], own * centred[:, None]], axis=1)
    return score_test(np.stack([data.ln_f, data.ln_n], axis=1), more, data.present, data.concept)


def _distance(data: Observations, u: np.ndarray) -> float | None:
    """Mean |difference| of isotonic presence curves over u, over all pairs of sizes and the stretch they share."""
    curves = []
    for s in range(int(data.size.max()) + 1):
        order = np.argsort(u[data.size == s], kind="stable")
        curves.append((u[data.size == s][order], isotonic_regression(data.present[data.size == s][order]).x))
    apart = []
    for i, (x, y) in enumerate(curves):
        for x2, y2 in curves[:i]:
            low, high = max(x[0], x2[0]), min(x[-1], x2[-1])
            if low < high:
                grid = np.linspace(low, high, GRID)
                apart.append(np.abs(np.interp(grid, x, y) - np.interp(grid, x2, y2)).mean())
    return float(np.mean(apart)) if apart else None


def scalers(data: Observations) -> dict:
    """Alive against all latents as the size in the law, by log-likelihood: free exponents, and one curve in f * size.

    `gain` is lnL with alive minus lnL with all latents; z divides it by its standard error over concepts (Vuong 1989), so
    |z| < 2 means that these data do not tell the two apart. q_total is the exponent with all latents, alive_share
    n_alive / n_latents of each size, smallest first.
    """
    ln_total = data.ln_n if data.ln_total is None else data.ln_total

    def fitted(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        coef = fit_logistic(x, data.present, np.ones((1, len(data.present))))[0]
        return coef, log_likelihoods(data.present, coef[0] + x @ coef[1:])

    (_, alive), (coef, total) = (fitted(np.stack([data.ln_f, ln_size], axis=1)) for ln_size in (data.ln_n, ln_total))
    (_, alive_one), (_, total_one) = (fitted((data.ln_f + ln_size)[:, None]) for ln_size in (data.ln_n, ln_total))
    shares = np.bincount(data.size, weights=np.exp(data.ln_n - ln_total)) / np.bincount(data.size)
    return {
        "q_total": float(coef[2] / coef[1]),
        "joint": _gain(np.bincount(data.concept, weights=alive - total)),
        "one_curve": _gain(np.bincount(data.concept, weights=alive_one - total_one)),
        "alive_share": [float(share) for share in shares],
    }


def _gain(of_concept: np.ndarray) -> dict:
    gain, spread = float(of_concept.sum()), float(of_concept.std() * np.sqrt(len(of_concept)))
    z = gain / spread if spread > 1e-9 else 0.0
    return {"gain": gain, "z": z, "p": float(2 * norm.sf(abs(z)))}
