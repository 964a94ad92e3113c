import math

import numpy as np
import pytest
import torch

from saescale.measure import metrics


def test_a_ratio_and_its_error_by_hand():
    """Documents 0 and 1 with sums (3, 2) and (5, 2): R = 2, residuals -1 and 1, se = sqrt(2 / 1 * 2) / 4 = 0.5."""
    found = metrics.ratio(torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.0, 1.0, 2.0]), torch.tensor([7, 7, 9]))
    assert found.value == pytest.approx(2) and found.se == pytest.approx(0.5)


def test_the_error_of_a_single_document_is_not_a_number():
    assert math.isnan(metrics.ratio(torch.ones(4), torch.ones(4), torch.zeros(4, dtype=torch.int64)).se)


def test_fvu_by_hand():
    x, x_hat = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    assert metrics.fvu(x, x_hat, torch.tensor([1.0, 0.0]), torch.tensor([0, 1])).value == pytest.approx(1 / 2)


def test_ce_recovered_by_hand():
    """zero 8, clean 2, SAE 3 nats on average: 5 of the 6 nats are recovered."""
    clean, spliced, zero = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0]), torch.tensor([7.0, 9.0])
    assert metrics.ce_recovered(clean, spliced, zero, torch.tensor([0, 1])).value == pytest.approx(5 / 6)


def test_the_error_agrees_with_leaving_out_one_document_at_a_time():
    r = np.random.default_rng(0)
    documents = np.repeat(np.arange(60), r.integers(5, 80, 60))
    top = torch.from_numpy(r.gamma(2.0, 1 + r.random(60)[documents], len(documents)))
    bottom = torch.from_numpy(r.gamma(4.0, 1.0, len(documents)))
    found = metrics.ratio(top, bottom, torch.from_numpy(documents))
    left_out = [float(top[documents != d].sum() / bottom[documents != d].sum()) for d in range(60)]
    jackknife = math.sqrt(59 / 60 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2))
    assert found.se == pytest.approx(jackknife, rel=0.1)
    independent = float(found.value * np.sqrt(np.var(top.numpy()) / len(top)) / top.mean())
    assert found.se > 2 * independent  # tokens of a document are not independent


def test_the_error_of_a_ratio_to_a_negative_sum_is_positive():
    """A layer that does harm: zeroing it lowers the loss by 2 nats, so what is recovered has a negative denominator."""
    clean, spliced, zero = torch.tensor([5.0, 3.0]), torch.tensor([4.0, 2.5]), torch.tensor([2.0, 2.0])
    found = metrics.ce_recovered(clean, spliced, zero, torch.tensor([0, 1]))
    assert found.value == pytest.approx(2.5 / 4)
    assert found.se == pytest.approx(math.sqrt(2 * (0.125**2 + 0.125**2)) / 4)


def test_the_ratio_of_no_token_at_all_is_not_a_number():
    none = torch.zeros(0)
    found = metrics.ratio(none, none, none.long())
    assert math.isnan(found.value) and math.isnan(found.se)
