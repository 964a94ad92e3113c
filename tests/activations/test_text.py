import pytest

from saescale.activations.text import Document, corpus_hash, drop_near_duplicates, is_held_out, load_documents, text_files

LINES = [f"value_{i} = compute_something({i})" for i in range(20)]


def document(name, lines):
    return Document(name, "\n".join(lines))


def test_the_split_depends_on_the_name_alone_and_holds_out_about_the_fraction_asked_for():
    names = [f"package/module_{i}.py" for i in range(4000)]
    held = [n for n in names if is_held_out(n, 0.08)]
    assert 0.06 < len(held) / 4000 < 0.10
    assert [is_held_out(n, 0.08) for n in ("json/decoder.py", "argparse.py", "ast.py")] == [False, True, False]
    assert set(held) <= {n for n in names if is_held_out(n, 0.2)}  # a larger fraction only adds


def test_a_document_that_repeats_half_of_an_earlier_one_is_dropped_and_one_that_repeats_less_stays():
    original = document("a.py", LINES)
    copy = document("b.py", LINES[:10] + [f"other_{i} = something_else({i})" for i in range(10)])
    cousin = document("c.py", LINES[:9] + [f"third_{i} = something_else({i})" for i in range(11)])
    assert [d.name for d in drop_near_duplicates([original, copy, cousin])] == ["a.py", "c.py"]


def test_short_lines_do_not_make_documents_alike():
    a = document("a.py", ["import os", "x = 1", *LINES[:1]])
    b = document("b.py", ["import os", "x = 1", "something_entirely_different()"])
    assert len(list(drop_near_duplicates([a, b]))) == 2


def test_the_hash_knows_names_texts_and_where_one_ends():
    hashes = {corpus_hash(d) for d in ([Document("a", "bc")], [Document("ab", "c")], [Document("a", "bd")],
                                       [Document("a", "b"), Document("c", "")])}
    assert len(hashes) == 4
    assert corpus_hash([Document("a", "bc")]) == corpus_hash([Document("a", "bc")])


def test_text_files_are_read_by_name_below_the_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("z.txt", "sub/a.py", "ignored.md"):
        (tmp_path / name).write_text(f"text of {name}")
    assert [d.name for d in text_files(str(tmp_path))] == ["sub/a.py", "z.txt"]


def test_missing_or_empty_folders_and_unknown_corpora_are_refused_with_the_choices(tmp_path):
    for nothing in (None, "???"):
        with pytest.raises(ValueError, match="data.path is missing"):
            text_files(nothing)
    with pytest.raises(ValueError, match="is not a folder"):
        text_files(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="holds no .txt or .py files"):
        text_files(str(tmp_path))
    with pytest.raises(ValueError, match="Choose one of: python_stdlib, text_files"):
        load_documents("wikipedia")
