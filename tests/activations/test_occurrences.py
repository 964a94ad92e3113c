import re
from collections import Counter

import numpy as np
import pytest

from saescale.activations.occurrences import find_names, split_name
from saescale.activations.words import find_words, read_vocabulary

PIECES = [" New", " York", " Yo", "rk", "York", "-", ".", "\n", " ", " cat", "cat", "os", "path", ",", " b", "ase", "64", "egory"]


def found_in(text_tokens, names, segment=None):
    tokens = np.array([PIECES.index(p) for p in text_tokens])
    segment = np.zeros(len(tokens)) if segment is None else np.array(segment)
    vocabulary = read_vocabulary(PIECES)
    return find_names(names, tokens, segment, vocabulary, find_words(tokens, segment, vocabulary))


def at(found):
    return [(found.names[i], int(last)) for i, last in zip(found.name, found.last, strict=True)]


def test_a_name_of_several_words_stands_at_its_last_token_and_its_words_are_not_counted_in_it():
    found = found_in(["\n", " New", " York", " Yo", "rk", " New", " Yo", "rk", "."], ["York", "New York"])
    assert at(found) == [("New York", 2), ("York", 4), ("New York", 7)]
    assert found.n_tokens.tolist() == [2, 2]
    assert found.fewest_tokens.tolist() == [2, 2]


def test_what_joins_the_words_of_a_name_is_part_of_it():
    tokens = [" cat", "-", "cat", " ", "os", ".", "path", ",", " cat", " cat", "\n", "os", "-", "path", "\n"]
    assert at(found_in(tokens, ["cat-cat", "os.path", "cat cat"])) == [("cat-cat", 2), ("os.path", 6), ("cat cat", 9)]
    assert at(found_in(["\n", "os", ".", " cat", "\n"], ["os. cat", "os.cat"])) == [("os. cat", 3)]


def test_a_name_never_crosses_a_change_of_segment_and_is_not_found_inside_a_longer_word():
    assert at(found_in([" New", " York", "."], ["New York"], [0, 1, 1])) == []
    assert at(found_in([" cat", "egory", ".", " cat", "."], ["cat"])) == [("cat", 3)]
    assert at(found_in([" b", "ase", "64", ".", " b", "ase", "."], ["base64", "base"])) == [("base64", 2), ("base", 5)]


def test_occurrences_between_spaces_are_counted_apart():
    found = found_in(["\n", "cat", " cat", " cat", ".", " cat", "\n", "cat", " New"], ["cat", "New"])
    assert found.count.tolist() == [5, 0]  # the last word may be cut
    assert found.space_count.tolist() == [1, 0]


def test_the_commonest_last_token_of_a_name_is_known_and_absent_names_have_none():
    found = found_in([" Yo", "rk", " Yo", "rk", " York", "."], ["York", "cat"])
    assert PIECES[found.last_token[0]] == "rk"
    assert (found.last_token[1], found.n_tokens[1], found.count[1]) == (-1, 0, 0)
    assert found.fewest_tokens[0] == 1


def test_names_equal_a_slow_search_in_the_text():
    rng = np.random.default_rng(0)
    pieces = [" ab", "ab", "c", " c", "a", " ", ".", "-", "\n", "7"]
    tokens = np.concatenate([[6], rng.integers(0, len(pieces), 30_000), [6]])
    segment, vocabulary = np.zeros(len(tokens)), read_vocabulary(pieces)
    names = ["ab", "c", "ab c", "ab-c", "ab c ab", "abc"]
    found = find_names(names, tokens, segment, vocabulary, find_words(tokens, segment, vocabulary))
    text = "".join(pieces[t] for t in tokens)
    # Longest first, each over what the longer ones left; the two sides of a joint count as one token between at most.
    slow = {}
    for name in sorted(names, key=lambda n: -len(split_name(n))):
        slow[name] = [m.end() for m in re.finditer(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", text)]
        if len(split_name(name)) > 1:
            text = re.sub(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", lambda m: "#" * len(m[0]), text)
    ends = np.cumsum([len(pieces[t]) for t in tokens])[found.last]
    assert Counter(zip(found.name.tolist(), ends.tolist(), strict=True)) == Counter(
        (names.index(name), end) for name, places in slow.items() for end in places)


@pytest.mark.parametrize("name", ["", "!", "7up", "a.", ".b", "New 7"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="is not a name"):
        split_name(name)


def test_a_name_asked_for_twice_is_refused():
    with pytest.raises(ValueError, match="'cat' is asked for twice"):
        found_in([" cat", "."], ["cat", "cat"])
