"""Where the intervals come from: seed noise by a wild cluster bootstrap, and the scatter of budgets around a law."""

import numpy as np

from analysis.valleys import Cells, vertices

PRIOR_DOF = 4  # weight of the pooled seed variance beside a cell's own, in degrees of freedom
WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])


def residuals(cells: Cells) -> tuple[np.ndarray, float]:
    """Deviation of each row [row] from its cell's mean, scaled for the bootstrap, and the pooled seed sd.

    m = runs in the cell, s^2 its variance with m - 1 degrees of freedom. Two seeds say almost nothing about one cell,
    so s^2 is moderated, ((m - 1) s^2 + 4 pooled^2) / (m - 1 + 4), keeping signs and ratios of the deviations; the
    factor sqrt(m / (m - 1)) then makes the variance of the bootstrapped cell mean s^2 / m (plain resampling of two
    seeds gives half of it). A run alone in its cell gets the pooled sd; all are 0 when no cell has two runs.
    """
    at = (cells.row_budget, cells.row_size)
    raw = cells.row_ln_y - cells.ln_y[at]
    dof = cells.count - 1
    squares = np.zeros(cells.count.shape)
    np.add.at(squares, at, raw**2)
    pooled2 = squares.sum() / dof[dof > 0].sum() if (dof > 0).any() else 0.0
    own = np.maximum(dof, 1)
    stretch = (squares + PRIOR_DOF * pooled2) / (own + PRIOR_DOF) / np.where(squares > 0, squares / own, np.inf)
    scaled = raw * np.sqrt(stretch * (own + 1) / own)[at]
    return np.where(dof[at] > 0, scaled, np.sqrt(pooled2)), float(np.sqrt(pooled2))


def draw_cell_means(cells: Cells, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Bootstrap draws of the cell means, [draw, budget, size]; NaN where nothing was trained.

    Wild cluster bootstrap: each trunk_id draws ONE of Webb's six weights (mean 0, variance 1), which multiplies the
    scaled residuals of all its runs; branches of one trunk therefore move together, whatever budgets it covers, and no
    draw loses a budget or a size. (Resampling two trunks with replacement gives three outcomes per size.)
    """
    scaled, _ = residuals(cells)
    weights = WEBB[rng.integers(0, len(WEBB), size=(draws, int(cells.row_trunk.max()) + 1))]
    shape = cells.ln_y.shape
    flat = cells.row_budget * shape[1] + cells.row_size
    spread = np.zeros((len(scaled), shape[0] * shape[1]))
    spread[np.arange(len(scaled)), flat] = scaled / cells.count.ravel()[flat]
    return cells.ln_y[None] + (weights[:, cells.row_trunk] @ spread).reshape(draws, *shape)


def draw_vertices(cells: Cells, means: np.ndarray, bracketed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ln n_opt and ln loss at it for each draw, [draw, bracketed budget]; NaN where the draw is not bracketed.

    The lowest size is sought anew in each draw, so the choice of the three points is part of the interval.
    """
    ln_n = np.log(cells.sizes)
    ln_opt, ln_low = [], []
    for budget in bracketed:
        keep = cells.count[budget] > 0
        x, y = vertices(ln_n[keep], means[:, budget][:, keep])
        ln_opt.append(x)
        ln_low.append(y)
    return np.stack(ln_opt, axis=1), np.stack(ln_low, axis=1)


def draw_scatter(law_residuals: np.ndarray, dof: int, seed_variance: np.ndarray, shape, rng) -> np.ndarray:
    """Extra noise per draw and budget, [draw, budget]: what seeds do not explain of the scatter around a law.

    Variance by moments, tau^2 = max(0, RSS / dof - mean seed variance of the points), with a chi-square draw of its
    own (dof degrees of freedom), which gives Student's tails: four budgets leave only two.
    """
    if dof < 1:
        return np.zeros(shape)
    tau2 = max(0.0, float((law_residuals**2).sum() / dof - np.mean(seed_variance)))
    tau = np.sqrt(tau2 * dof / rng.chisquare(dof, size=shape[0]))
    return tau[:, None] * rng.standard_normal(shape)


def interval(draws: np.ndarray) -> tuple[float | None, float | None]:
    """95 % percentile interval of the finite draws, or (None, None) when fewer than 20 are left."""
    finite = draws[np.isfinite(draws)]
    if len(finite) < 20:
        return None, None
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)
