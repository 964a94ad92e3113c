"""One formula each, over the whole fixed held-out set, with a standard error over documents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ratio:
    value: float
    se: float


def ratio(top: Tensor, bottom: Tensor, documents: Tensor) -> Ratio:
    """sum(top) / sum(bottom), both [token], with its standard error over documents.

    Linearised ratio estimator (Cochran 1977, 6.4): se = sqrt(m / (m - 1) * sum_d (A_d - R B_d)^2) / sum_d B_d over the m
    documents' sums A_d, B_d. `documents` [token] are indices; the error of a single document is nan, and all of no token is.
    """
    if not len(documents):
        return Ratio(float("nan"), float("nan"))
    top, bottom = top.double(), bottom.double()
    _, index = torch.unique(documents, return_inverse=True)
    m = int(index.max()) + 1
    a = torch.zeros(m, dtype=torch.float64).index_add_(0, index, top)
    b = torch.zeros(m, dtype=torch.float64).index_add_(0, index, bottom)
    value = a.sum() / b.sum()
    spread = ((a - value * b).square().sum() * m / (m - 1)).sqrt() / b.sum().abs() if m > 1 else torch.tensor(float("nan"))
    return Ratio(float(value), float(spread))


def squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """|x - x_hat|^2 per token: [token, d_in] twice -> float64 [token]."""
    return (x - x_hat).double().square().sum(1)


def fvu(x: Tensor, x_hat: Tensor, mean: Tensor, documents: Tensor) -> Ratio:
    """Fraction of variance unexplained: sum |x - x_hat|^2 / sum |x - mean|^2.

    `mean` [d_in] is taken over the whole held-out set, not over this batch.
    """
    return ratio(squared_error(x, x_hat), squared_error(x, mean), documents)


def ce_recovered(clean: Tensor, with_sae: Tensor, zero: Tensor, documents: Tensor) -> Ratio:
    """(ce_zero_ablated - ce_with_sae) / (ce_zero_ablated - ce_clean), from token losses [token] in nats."""
    return ratio(zero - with_sae, zero - clean, documents)
