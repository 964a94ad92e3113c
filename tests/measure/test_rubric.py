"""Grades by string match, worked by hand."""

import numpy as np
import torch

from saescale.activations.occurrences import Occurrences
from saescale.measure.concepts import Dictionary
from saescale.measure.rubric import LEVELS, NEAR, grade, grades, strengths


def found(last, n_tokens=2):
    last = np.array(last)
    return Occurrences(["x"], last, np.zeros(len(last), np.int32), np.ones(len(last), bool), np.array([n_tokens], np.int32),
                       np.array([n_tokens], np.int32), np.array([0], np.int32))  # fmt: skip


def test_a_token_is_graded_by_where_the_name_stands():
    documents = np.repeat([0, 1], [20, 5])
    out = grades(found([5]), 0, documents, documents)
    assert out[5] == 3 and out[4] == 2 and out[3] == 1  # the end of the name, its other token, before it
    assert (out[6:6 + NEAR] == 2).all() and (out[6 + NEAR:20] == 1).all() and (out[20:] == 0).all()


def test_what_is_near_does_not_reach_into_the_next_sequence_and_a_name_wins_over_being_near_one():
    documents, sequences = np.zeros(12, int), np.repeat([0, 1], [6, 6])
    out = grades(found([4, 6], n_tokens=1), 0, documents, sequences)
    assert out.tolist() == [1, 1, 1, 1, 3, 2, 3, 2, 2, 2, 2, 2]
    assert grades(found([5], n_tokens=1), 0, documents, sequences).tolist() == [1] * 5 + [3] + [1] * 6


def test_shares_are_by_strength_relative_to_the_latents_maximum():
    strength = np.array([[10.0, 9.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=np.float32)
    shares = grade(strength, np.array([[3, 0, 1, 3], [3, 3, 3, 3]], dtype=np.int8))
    assert shares.count.tolist() == [[1, 0, 0, 0, 2], [0] * LEVELS]
    assert shares.share[0, 4].tolist() == [0.5, 0, 0, 0.5] and shares.share[0, 0].tolist() == [0, 0, 1, 0]
    assert np.isnan(shares.share[0, 1]).all() and np.isnan(shares.share[1]).all()


def test_strengths_are_those_of_the_latents_asked_for_in_their_order():
    x = torch.tensor([[1.0, 0.0, 3.0], [0.0, 2.0, 0.0]])
    out = strengths(Dictionary(lambda rows: rows, 3), np.array([2, 0, 2]), [x, x[:1]])
    assert out.tolist() == [[3, 0, 3], [1, 0, 1], [3, 0, 3]]
