"""Best learning rates: where each cell's grid of rates had its lowest loss, and whether that was at an edge of the grid."""

import numpy as np

from analysis.rows import Rows


def edge_cells(rows: Rows) -> list[dict]:
    """Cells (N, D) whose best learning rate is the lowest or highest tried: {"N", "D", "lr", "edge", "rates"}; their optimum
    lies outside what was tried or at its border. Runs with equal N, D and lr are averaged in ln loss."""
    out = []
    n, d, lr = (rows.columns[name] for name in ("N", "D", "lr"))
    for size, tokens in np.unique(np.stack([n, d], axis=1), axis=0):
        here = (n == size) & (d == tokens)
        rates, at = np.unique(lr[here], return_inverse=True)
        best = int(np.argmin(np.bincount(at, rows.ln_y[here]) / np.bincount(at)))
        if best in (0, len(rates) - 1):
            edge = "lowest" if best == 0 else "highest"
            out.append({"N": float(size), "D": float(tokens), "lr": float(rates[best]), "edge": edge, "rates": len(rates)})
    return out
