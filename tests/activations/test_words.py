import re
from collections import Counter

import numpy as np
import pytest

from saescale.activations.words import decoded_pieces, find_words, read_vocabulary

PIECES = ["<s>", " is", "is", "inst", "ance", "(", " ", "_x", "self", ".", "\ufffd", "1", " self", "n't", "._", "\n"]
ID = {piece: i for i, piece in enumerate(PIECES)}


def words_of(*pieces, segment=None, vocabulary=None):
    tokens = np.array([ID[p] for p in pieces])
    found = find_words(tokens, np.zeros(len(tokens)) if segment is None else np.array(segment),
                       vocabulary or read_vocabulary(PIECES, special_ids=[0]))  # fmt: skip
    return found, [(found.names[n], int(at)) for n, at in zip(found.name, found.last, strict=True)]


def test_a_word_is_the_run_of_tokens_that_spells_one_identifier_and_stands_at_its_last():
    _, found = words_of("(", "is", "inst", "ance", "(", "self", "_x", " self", ".")
    assert found == [("isinstance", 3), ("self_x", 6), ("self", 7)]


def test_a_leading_space_starts_a_new_word_and_is_not_part_of_its_name():
    found, pairs = words_of("(", "is", " is", "inst", "ance", " ", "is", "\n")
    assert pairs == [("is", 1), ("isinstance", 4), ("is", 6)]
    assert found.n_tokens[found.names.index("isinstance")] == 3


def test_signs_end_a_word_and_digits_belong_to_it_but_do_not_begin_it():
    _, found = words_of("(", "inst", "1", "ance", ".", "is", "(", "1", "self", ".", "1", "(")
    assert found == [("inst1ance", 3), ("is", 5)]


CUTS = "\ufffd is inst (|( is inst \ufffd|._ is inst (|( is inst n't|<s> is inst (|( is inst <s>|is inst (|( is inst"


@pytest.mark.parametrize("cut", [tuple(case.split()) for case in CUTS.split("|")])
def test_a_word_that_may_be_cut_is_left_out(cut):
    assert words_of(*cut)[1] == []


def test_a_leading_space_shows_that_nothing_was_cut_in_front():
    assert words_of("\ufffd", " is", "inst", "(")[1] == [("isinst", 2)]


def test_a_word_never_crosses_a_change_of_segment_and_its_halves_are_no_words():
    pieces = ("(", "is", "inst", "ance", "(", "self", ".")
    assert words_of(*pieces, segment=[0, 0, 0, 1, 1, 1, 1])[1] == [("self", 5)]
    assert words_of(*pieces)[1] == [("isinstance", 3), ("self", 5)]


def test_spellings_of_one_word_share_a_name_with_the_commonest_and_the_shortest_length():
    found, _ = words_of("(", "is", "inst", "ance", "(", "is", "inst", "ance", "(", "self", " is", "inst", "ance", "(")
    pieces = [*PIECES, "isinst"]
    more = np.array([ID["("], 16, ID["ance"], ID["("], *[ID[p] for p in ("is", "inst", "ance", "(")] * 2])
    both = find_words(more, np.zeros(len(more)), read_vocabulary(pieces))
    assert both.names == ["isinstance"]
    assert (both.n_tokens.tolist(), both.fewest_tokens.tolist()) == ([3], [2])
    assert found.fewest_tokens[found.names.index("isinstance")] == 3


def test_a_commonest_spelling_that_is_the_shorter_one_gives_the_length_too():
    pieces = [*PIECES, "isinst"]
    short = [16, ID["ance"], ID["("]]
    tokens = np.array([ID["("], *short * 2, *[ID[p] for p in ("is", "inst", "ance", "(")]])
    found = find_words(tokens, np.zeros(len(tokens)), read_vocabulary(pieces))
    assert (found.names, found.n_tokens.tolist()) == (["isinstance"], [2])


def test_sentencepiece_spaces_are_read_as_spaces():
    vocabulary = read_vocabulary(["\u2581the", "re", "\u2581", "."])
    found = find_words(np.array([0, 1, 0, 3]), np.zeros(4), vocabulary)
    assert [found.names[n] for n in found.name] == ["there", "the"]
    assert found.last.tolist() == [1, 2]


class Pieces(list):
    def convert_ids_to_tokens(self, ids):
        return [self[i] for i in ids]


def test_byte_level_and_sentencepiece_vocabularies_decode_to_the_same_pieces():
    byte_level = Pieces(["\u0120is", "is", "\u010a", "\u00c3\u00a9", "\u00c3", "\u0120\u0120"])
    assert decoded_pieces(byte_level) == [" is", "is", "\n", "\u00e9", "\ufffd", "  "]
    sentencepiece = Pieces(["\u2581is", "is", "<0x0A>", "\u00e9", "<0xC3>", "\u2581\u2581"])
    assert decoded_pieces(sentencepiece) == decoded_pieces(byte_level)


def test_counts_by_token_sequence_equal_a_slow_count_in_the_text():
    rng = np.random.default_rng(0)
    pieces = [" ab", "ab", "c", "_", "a", " ", ".", " .", "7", "\n", " c"]
    tokens = np.concatenate([[6], rng.integers(0, len(pieces), 20_000), [6]])
    found = find_words(tokens, np.zeros(len(tokens)), read_vocabulary(pieces))
    text = "".join(pieces[t] for t in tokens)
    # A space starts a word; inside a run of letters there is none, so runs of letters in the text are the words.
    pattern = r"(?<![a-z_0-9])[a-z_][a-z_0-9]*"
    slow = Counter(re.findall(pattern, text))
    fast = {found.names[i]: int(n) for i, n in enumerate(np.bincount(found.name))}
    assert fast == slow
    ends = [m.end() for m in re.finditer(pattern, text)]
    assert np.cumsum([len(pieces[t]) for t in tokens])[found.last].tolist() == ends


def test_an_empty_and_a_mismatched_stream():
    empty = find_words(np.zeros(0, dtype=int), np.zeros(0), read_vocabulary(PIECES))
    assert (empty.names, len(empty.last)) == ([], 0)
    with pytest.raises(ValueError, match="one number per token"):
        find_words(np.zeros(3, dtype=int), np.zeros(2), read_vocabulary(PIECES))
