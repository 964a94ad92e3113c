import pytest

from saescale.activations.occurrences import split_name
from saescale.campaign import inventories
from saescale.campaign.compose import group_choices


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A project whose conf/concepts/mine.yaml says what it is given."""
    (tmp_path / "conf" / "concepts").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "conf" / "concepts" / "mine.yaml").write_text(text)
        return inventories.read("mine")

    return write


def test_the_shipped_inventories_hold_names_that_can_be_found_a_hundred_or_more_where_a_category_has_them():
    wanted = {"english": {"elements": 118, "countries": 150, "cities": 100, "animals": 100, "foods": 100, "london_boroughs": 33},
              "stories": {"first_names": 100, "household": 100},
              "python": {"modules": 100, "exceptions": 60, "functions": 60, "dunder": 100, "keywords": 35}}
    for inventory, least in wanted.items():
        found = inventories.read(inventory)
        assert {c: len(found["categories"][c]) >= n for c, n in least.items()} == dict.fromkeys(least, True)
        for names in found["categories"].values():
            assert all(split_name(n) for n in names)
        assert set(found["ambiguous"]) <= {n for names in found["categories"].values() for n in names}
    assert inventories.read("english")["closed"] == ["elements", "london_boroughs"]
    assert inventories.read("words")["every_word"] == {"category": "words", "per_bin": 100}


def test_a_plain_list_is_a_category_called_as_its_file(mine):
    assert mine("[tea, coffee]")["categories"] == {"mine": ["tea", "coffee"]}


def test_one_category_of_an_inventory_can_be_chosen_alone():
    found = inventories.chosen(["english.london_boroughs", "stories"])
    assert list(found[0]["categories"]) == ["london_boroughs"]
    assert found[0]["closed"] == ["london_boroughs"]
    assert "first_names" in found[1]["categories"]


@pytest.mark.parametrize(("wanted", "said"), [
    (["nope"], "there is no inventory 'nope'"), (["english.nope"], "has no category 'nope'. It has: elements"),
    (["english", "english"], "english twice"), (["english", "english.foods"], "the category 'foods' is in two")])
def test_an_inventory_that_is_not_there_or_chosen_twice_is_refused(wanted, said):
    with pytest.raises(ValueError, match=said):
        inventories.chosen(wanted)


@pytest.mark.parametrize(("text", "said"), [
    ("[tea, tea, coffee]", "mine names tea twice"), ("[tea, no]", "has the entry False"), ("[tea, 7]", "has the entry 7"),
    ("tea", "neither a list of names nor a mapping"), ("[tea", "cannot be read"), ("{}", "has no categories"),
    ("{categories: {a: tea}}", "a is not a list of names"),
    ("{categories: {a: [tea]}, close: [a]}", "close is not a known setting"),
    ("{categories: {a: [tea]}, closed: [b]}", "names no category"),
    ("{categories: {a: [tea]}, prompt: 'a {name} b'}", "must end with"),
    ("{categories: {a: [tea]}, spaced: maybe}", "must be true or false"),
    ("{categories: {a: [tea]}, every_word: {category: w}}", "no categories beside it")])
def test_an_inventory_that_cannot_be_read_is_refused_in_one_sentence(mine, text, said):
    with pytest.raises(ValueError, match=said):
        mine(text)


def test_inventories_are_data_and_no_group_of_settings():
    assert "concepts" not in group_choices()
