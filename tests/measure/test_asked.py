import dataclasses
from collections import Counter

import numpy as np
import pytest

from saescale.activations.words import read_vocabulary
from saescale.measure.asked import Text, ask, frequencies, frequency_range, frequent_words
from saescale.measure.places import choose_places, document_halves


def test_all_tokens_of_a_document_share_a_half_and_about_half_of_the_documents_is_chosen():
    halves = document_halves(np.repeat(np.arange(4000), 3)).reshape(4000, 3)
    assert (halves == halves[:, :1]).all()
    assert 0.47 < halves[:, 0].mean() < 0.53
    assert 0.44 < (halves[1:, 0] == halves[:-1, 0]).mean() < 0.56


def stream(counts, tokens_per_word=2):
    """A token stream of `[.] w w` groups: word i (token 1+2i then 2+2i) occurs counts[i] times, shuffled."""
    names = [f"{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(len(counts))]
    pieces = ["."] + [p for name in names for p in (name, "z" if tokens_per_word == 2 else ".")]
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    tokens = np.stack([np.zeros_like(order), 1 + 2 * order, 2 + 2 * order], axis=1).reshape(-1)
    return np.append(tokens, 0), pieces


def text_of(counts, tokens_per_word=2):
    tokens, pieces = stream(counts, tokens_per_word)
    return Text.of(tokens, np.zeros(len(tokens)), read_vocabulary(pieces))


def alternate(n):
    """Halves of word groups in turn, so that each half gets about half of every word."""
    return (np.arange(n) // 3) % 2 == 0


def inventory(**given):
    return {"name": "made", "prompt": "The {name}", "spaced": True, "closed": [], "ambiguous": [], "categories": {},
            "every_word": None} | given


def asked(inventories, train, scored=None, **given):
    scored = scored or train
    options = {"limits": (0, 1), "min_tokens": 2, "encode": lambda _: [1]} | given
    return ask(inventories, train, scored, alternate(len(scored.tokens)), **options)


def test_frequency_is_counted_in_the_training_text_and_concepts_come_rarest_first():
    found = asked([inventory(categories={"made": ["acz", "aaz", "abz"]})], text_of([30, 60, 90]), text_of([200, 200, 200]))
    assert found.table[["concept", "count", "n_name_tokens"]].values.tolist() == [["aaz", 30, 2], ["abz", 60, 2], ["acz", 90, 2]]
    assert found.table["frequency"][0] == pytest.approx(30 / (3 * 180 + 1))
    assert found.table["prompt"][0] == "The aaz"
    assert found.found.count.tolist() == [200] * 3
    assert found.categories["made"] == {"inventory": "made", "closed": False, "n_names": 3, "n_counted": 3, "n_asked": 3,
                                        "n_scored": 3}


def test_a_name_that_never_occurs_has_no_tokens_or_one_token_is_left_out_and_said():
    train = text_of([30, 60])
    pieces = train.vocabulary.pieces
    single = Text.of(np.append(train.tokens, [len(pieces), 0] * 30), np.zeros(len(train.tokens) + 60),
                     read_vocabulary([*pieces, " one"]))
    found = asked([inventory(categories={"made": ["aaz", "one", "never", "\u4e2d"]})], single,
                  encode=lambda text: None if text == "\u4e2d" else [1])
    assert found.table["concept"].tolist() == ["aaz"]
    assert {row["concept"]: row["reason"] for row in found.left_out} == {
        "one": "has a spelling of 1 token, fewer than concepts.min_tokens=2", "never": "never occurs in the training text",
        "\u4e2d": "cannot be spelled by the tokenizer"}
    assert "one" in asked([inventory(categories={"made": ["one"]})], single, min_tokens=1).table["concept"].tolist()
    with pytest.raises(ValueError, match="none of the 1 names of made can be scored, the first because it never occurs"):
        asked([inventory(categories={"made": ["never"]})], single)


def test_a_name_in_two_categories_listed_as_ambiguous_or_commoner_in_small_letters_is_flagged():
    pieces = [".", " Tu", "rkey", " tu", " ca", "t", "do", "g"]
    tokens = np.array([0, 1, 2, 0] * 20 + [0, 3, 2, 0] * 21 + [0, 4, 5, 0] * 20 + [0, 6, 7, 0] * 20)
    text = Text.of(tokens, np.zeros(len(tokens)), read_vocabulary(pieces))
    found = asked([inventory(categories={"countries": ["Turkey"], "animals": ["cat", "dog"]}, ambiguous=["dog"]),
                   inventory(categories={"pets": ["cat"]})], text)
    flags = found.table.set_index(["category", "concept"])["ambiguous"].to_dict()
    assert flags == {("countries", "Turkey"): True, ("animals", "dog"): True, ("animals", "cat"): True, ("pets", "cat"): True}
    rare = Text.of(tokens[:80 + 76], np.zeros(156), text.vocabulary)
    assert not asked([inventory(categories={"countries": ["Turkey"]})], rare).table["ambiguous"][0]


def test_frequency_is_that_of_the_training_mix_where_documents_come_several_times():
    text = text_of([30, 60])
    last = text.words.last[text.words.name == text.words.names.index("aaz")]
    times = np.ones(len(text.tokens), dtype=np.int64)
    times[np.concatenate([last, last - 1, last - 2])] = 4
    mixed = dataclasses.replace(text, repeats=times)
    found = asked([inventory(categories={"made": ["aaz", "abz"]})], mixed)
    assert found.table[["concept", "count"]].values.tolist() == [["abz", 60], ["aaz", 120]]
    assert found.table["frequency"][1] == pytest.approx(120 / (3 * (60 + 120) + 1))
    assert found.found.count.tolist() == [30, 60]


def test_counts_between_spaces_are_missing_for_code():
    prose, code = (asked([inventory(categories={"made": ["aaz"]}, spaced=spaced)], text_of([30])) for spaced in (True, False))
    assert prose.table["space_frequency"].tolist() == [0.0]
    assert np.isnan(code.table["space_frequency"][0])


def test_every_word_inventories_ask_about_the_words_in_the_range():
    train = text_of([10, 100, 1000])
    f = 100 / len(train.tokens)
    every = inventory(every_word={"category": "words", "per_bin": 5})
    assert asked([every], train, text_of([200] * 3), limits=(f * 0.9, f * 1.1)).table["concept"].tolist() == ["abz"]
    with pytest.raises(ValueError, match="no word of 2 or more tokens"):
        asked([every], train, limits=(0.9, 1.0))


def chosen(train, scored=None, limits=(0, 1), half=None, **given):
    scored = (scored or train).words
    return frequent_words(train, scored, alternate(scored.n_stream) if half is None else half, limits, **given)


def test_words_rare_in_a_half_are_left_out():
    text = text_of([200] * 3)
    words = text.words
    one_sided = np.zeros(words.n_stream, dtype=bool)
    one_sided[words.last[words.name == 1][:9]] = True
    one_sided[words.last[words.name == 2][:10]] = True
    assert chosen(text_of([10, 100, 1000]), text, half=one_sided) == ["acz"]


def test_a_run_of_underscores_is_no_concept():
    tokens = np.tile([0, 1, 1, 0, 2, 1], 100)
    text = Text.of(tokens, np.zeros(600), read_vocabulary([".", "_", "ab"]))
    assert chosen(text, half=np.arange(600) < 300) == ["ab_"]


def test_a_word_with_a_single_token_spelling_anywhere_is_no_concept():
    scored = text_of([200])
    tokens = np.array([0, 1, 2, 0, 1, 2, 0, 3, 0])
    train = Text.of(tokens, np.zeros(9), read_vocabulary([".", "aa", "z", "aaz"]))
    assert chosen(train, scored) == []
    short = dataclasses.replace(scored.words, fewest_tokens=np.ones_like(scored.words.fewest_tokens))
    assert chosen(scored, dataclasses.replace(scored, words=short)) == []
    assert chosen(text_of([200, 200], tokens_per_word=1)) == []


def test_a_word_that_the_training_tokens_lack_is_no_concept():
    assert chosen(text_of([50, 90]), text_of([200] * 3), (1e-6, 1)) == ["aaz", "abz"]


def test_no_bin_of_frequency_gets_more_than_its_share_and_the_choice_is_stable():
    text = text_of([40] * 60 + [400] * 5)
    words, first = text.words, chosen(text, per_bin=20)
    count = dict(zip(words.names, np.bincount(words.name).tolist(), strict=True))
    assert Counter(count[name] for name in first) == {40: 20, 400: 5}
    assert chosen(text, per_bin=20) == first
    assert set(first) < set(chosen(text, per_bin=30))


def test_the_frequency_range_follows_the_smallest_and_the_largest_dictionary():
    assert frequency_range([1024, 256, 2048]) == (0.3 / 2048, 3 / 256)
    with pytest.raises(ValueError, match="at least one n_latents"):
        frequency_range([])


def test_a_range_the_sweep_names_stays_when_a_size_is_added():
    assert frequencies({"sizes": [256]}) != frequencies({"sizes": [256, 4096]})
    said = {"frequencies": [1e-5, 0.01]}
    assert frequencies(said | {"sizes": [256]}) == frequencies(said | {"sizes": [256, 4096]}) == (1e-5, 0.01)


def test_the_number_of_places_is_bounded_in_each_half_and_every_pool_is_what_it_says(monkeypatch):
    for name, limit in (("PER_NAME", 20), ("AT_RANDOM", 50), ("PER_ENDING", 7)):
        monkeypatch.setattr(f"saescale.measure.places.{name}", limit)
    text = text_of([100, 300, 8])
    found = text.find(["aaz", "acz"])  # abz ends in another token "z" of its own here
    choosing = alternate(len(text.tokens))
    places = choose_places(found, text.tokens, choosing)
    for side in (places.choosing, ~places.choosing):
        assert (side & (places.name == 0)).sum() == 20
        assert (side & places.at_random).sum() == 50
    assert (places.name == 1).sum() == 8  # all there are
    assert not (places.at_random & (places.name >= 0)).any()
    np.testing.assert_array_equal(places.choosing, choosing[places.token])
    assert places.occurrences.sum(axis=1).sum() == 108
    assert places.others.sum() == len(text.tokens) - 108
    again = choose_places(found, text.tokens, choosing)
    np.testing.assert_array_equal(places.token, again.token)


def test_tokens_that_spell_the_end_of_a_name_and_end_none_are_a_pool_of_their_own():
    pieces = [".", " c", "at", " h", " "]
    tokens = np.array([0, 1, 2, 0, 3, 2] * 30 + [0])
    text = Text.of(tokens, np.zeros(len(tokens)), read_vocabulary(pieces))
    places = choose_places(text.find(["cat"]), tokens, alternate(len(tokens)))
    ends = places.token[places.ending == 0]
    assert set(tokens[ends]) == {2}
    assert set(tokens[ends - 1]) == {3}
    assert len(ends) == 30
