"""The reader that brings the next block while the present one trains: shown on the processor, where its thread is the same."""

import threading

import pytest
import torch

from saescale.sae.device import CPU
from saescale.training.ahead import Ahead


class Reads:
    """What was read, in order, and by which threads; a block holds its number."""

    def __init__(self, bad=None):
        self.numbers, self.threads, self.bad = [], set(), bad

    def __call__(self, number):
        self.numbers.append(number)
        self.threads.add(threading.current_thread())
        if number == self.bad:
            raise OSError(28, "no space")
        return torch.full((4, 2), float(number))


def upto(last):
    return lambda number: number + 1 if number + 1 < last else None


def test_blocks_are_those_of_a_reader_that_does_not_read_ahead_each_read_once_by_another_thread():
    reads = Reads()
    blocks = Ahead(reads, upto(5), CPU)
    for number in range(5):
        assert torch.equal(blocks.get(number), torch.full((4, 2), float(number)))
    assert reads.numbers == [0, 1, 2, 3, 4] and threading.main_thread() not in reads.threads


def test_the_next_block_is_read_before_it_is_asked_for_and_nothing_beyond_the_last():
    reads, there = Reads(), threading.Event()
    blocks = Ahead(lambda number: (reads(number), there.set() if number == 1 else None)[0], upto(2), CPU)
    blocks.get(0)
    assert there.wait(10) and reads.numbers == [0, 1]
    blocks.get(1)
    blocks.close()
    assert reads.numbers == [0, 1]


def test_a_block_that_was_not_expected_is_the_right_one_all_the_same():
    blocks = Ahead(Reads(), upto(9), CPU)
    blocks.get(0)
    assert float(blocks.get(7)[0, 0]) == 7 and float(blocks.get(3)[0, 0]) == 3


def test_what_goes_wrong_in_the_reading_thread_is_raised_where_the_block_is_asked_for():
    blocks = Ahead(Reads(bad=1), upto(9), CPU)
    blocks.get(0)
    with pytest.raises(OSError, match="no space"):
        blocks.get(1)
