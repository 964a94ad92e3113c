import numpy as np
import pytest
import torch

from saescale.activations import stream as module
from saescale.activations.cache import input_scale
from saescale.activations.stream import Stream


class Numbered:
    """Activations [position, 1000 - position]: every token can be told apart. Batches of uneven length."""

    counts = np.array([5, 9, 7, 8, 6, 9, 9])  # 53 tokens

    def __init__(self):
        self.loads = []

    def batch(self, index):
        self.loads.append(index)
        start = int(self.counts[:index].sum())
        positions = torch.arange(start, start + int(self.counts[index]), dtype=torch.float32)
        return torch.stack([positions, 1000 - positions], 1)


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch):
    monkeypatch.setattr(module, "SEGMENT_BATCHES", 3)


def numbers(stream, position, n):
    return stream.read(position, n)[:, 0].tolist()


def test_any_split_of_the_reads_gives_the_same_rows():
    whole = Stream(Numbered(), 0, 1.0).read(0, 130)
    for sizes in ([1] * 130, [64, 64, 2], [53, 53, 24], [7] * 18 + [4]):
        stream, position, parts = Stream(Numbered(), 0, 1.0), 0, []
        for n in sizes:
            parts.append(stream.read(position, n))
            position += n
        assert torch.equal(torch.cat(parts), whole)


def test_a_read_from_the_middle_needs_nothing_before_it():
    whole = Stream(Numbered(), 0, 1.0).read(0, 130)
    backwards = Stream(Numbered(), 0, 1.0)
    for position in (101, 53, 52, 20, 0):
        assert torch.equal(backwards.read(position, 15), whole[position:position + 15])
    late = Stream(source := Numbered(), 0, 1.0)
    late.read(50, 2)
    assert len(source.loads) <= 3


def test_every_token_comes_exactly_once_in_each_epoch():
    stream = Stream(Numbered(), 0, 1.0)
    first, second = numbers(stream, 0, 53), numbers(stream, 53, 53)
    assert sorted(first) == sorted(second) == list(range(53))
    assert first != second and first != list(range(53))


def test_another_epoch_brings_other_forward_batches_together():
    source, batch_of = Numbered(), np.repeat(np.arange(7), Numbered.counts)
    stream = Stream(source, 0, 1.0)
    first_segments = {frozenset(batch_of[int(n)] for n in numbers(stream, 53 * epoch, 15)) for epoch in range(5)}
    assert all(len(s) <= 3 for s in first_segments) and len(first_segments) > 1


def test_another_data_seed_gives_another_order_of_the_same_tokens():
    one, other = numbers(Stream(Numbered(), 0, 1.0), 0, 53), numbers(Stream(Numbered(), 1, 1.0), 0, 53)
    assert one != other and sorted(one) == sorted(other)


def test_tokens_of_different_forward_batches_are_mixed_within_a_segment():
    source = Numbered()
    batch_of = np.repeat(np.arange(7), source.counts)
    order = [int(batch_of[int(n)]) for n in numbers(Stream(source, 0, 1.0), 0, 20)]
    assert sum(a != b for a, b in zip(order, order[1:], strict=False)) > 6


class Gaussian:
    counts = np.array([400] * 5)

    def batch(self, index):
        return torch.randn(400, 6, generator=torch.Generator().manual_seed(index)) * 3 + 1


def test_the_mean_square_norm_after_the_scale_is_d_in():
    source = Gaussian()
    x = Stream(source, 0, input_scale(source, 6)).read(0, 2000)
    assert float(x.double().square().sum(1).mean()) == pytest.approx(6, rel=1e-6)
