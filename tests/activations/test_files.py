import gzip
import json

import pytest

from saescale.activations.files import Files
from saescale.activations.text import is_held_out

TEXTS = ["one story\nof two lines\n", "zwei Größen\n", "third\n"]


def read(path, **how):
    return [d.text for d in Files(str(path), **how).reader()]


def write(path, texts):
    """`texts` in the format the name asks for."""
    raw = "".join(texts).encode()
    if ".jsonl" in path.name:
        raw = "".join(json.dumps({"content": t, "n": i}) + "\n" for i, t in enumerate(texts)).encode()
    if path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.table({"content": texts, "n": [1] * len(texts)}), path)
        return
    if path.suffix == ".gz":
        raw = gzip.compress(raw)
    if path.suffix == ".zst":
        raw = pytest.importorskip("zstandard").compress(raw)
    path.write_bytes(raw)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_rows_are_documents_whatever_the_file_is_packed_in(tmp_path, name):
    write(tmp_path / name, TEXTS)
    assert read(tmp_path, text_field="content") == TEXTS


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst"])
def test_a_text_file_is_one_document_or_several_between_separator_lines(tmp_path, name):
    write(tmp_path / name, [TEXTS[0], "<|end|>\n", TEXTS[1], "<|end|>\n", TEXTS[2]])
    assert len(read(tmp_path)) == 1
    assert read(tmp_path / name, separator="<|end|>") == TEXTS


def test_a_folder_and_a_glob_give_the_same_files_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/x.txt", "a.txt", "c.txt", "ignored.csv"):
        (tmp_path / name).write_text(name)
    assert read(tmp_path) == ["a.txt", "b/x.txt", "c.txt"] == read(f"{tmp_path}/**/*.txt")
    assert read(f"{tmp_path}/[ab]*/*.txt") == ["b/x.txt"]


def test_copies_fall_on_the_same_side_of_the_split_wherever_they_lie(tmp_path):
    for i in range(30):
        for copy in ("first", "second"):
            (tmp_path / f"{copy}{i}.txt").write_text(f"document number {i}")
    sides = {}
    for d in Files(str(tmp_path)).reader():
        sides.setdefault(d.text, set()).add(is_held_out(d.key, 0.5))
    assert all(len(s) == 1 for s in sides.values()) and len({next(iter(s)) for s in sides.values()}) == 2


def test_the_identity_follows_bytes_names_and_how_they_are_read_and_not_the_folder(tmp_path):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("x")
    same = {Files(str(tmp_path / f)).sha256() for f in ("here", "there")}
    (tmp_path / "there" / "a.txt").write_text("y")
    others = {Files(str(tmp_path / "there")).sha256(), Files(str(tmp_path / "here"), separator="-").sha256(),
              Files(str(tmp_path / "here"), text_field="t").sha256()}
    assert len(same) == 1 and len(same | others) == 4


def test_reading_goes_on_from_any_document(tmp_path):
    write(tmp_path / "a.jsonl", TEXTS)
    write(tmp_path / "b.jsonl.gz", ["fourth", "fifth"])
    corpus = Files(str(tmp_path), text_field="content")
    whole = [d.name for d in corpus.reader()]
    for n in range(1, 5):
        reader = corpus.reader()
        rows = iter(reader)
        begun = [next(rows).name for _ in range(n)]
        assert begun + [d.name for d in corpus.reader(reader.state())] == whole


@pytest.mark.parametrize(("name", "raw", "said"), [
    ("a.txt", b"fine\nGr\xf6\xdfe\n", r"a.txt, line 2: byte 0xf6 is not UTF-8. Convert the file"),
    ("a.jsonl", b'{"text": "x"}\n{"text": \n', r"a.jsonl, line 2 is not JSON"),
    ("a.jsonl", b'{"text": "x"}\n{"text": "a\\ud83d"}\n', r"a.jsonl, line 2 has half a character in the field 'text': \\ud83d"),
    ("a.jsonl", b'{"body": "x", "n": 3}\n', r"has no text in the field 'text'. Set data.text_field to one of.*: body"),
    ("a.txt.gz", gzip.compress(b"x" * 9999)[:20], r"a.txt.gz is cut off or damaged"),
    ("a.txt.gz", b"no gzip", r"a.txt.gz is cut off or damaged"),
    ("a.parquet", b"no parquet", r"a.parquet is not a whole Parquet file"),
    ("a.txt", b"\n \n", r"holds no text: its 1 files are empty"),
])
def test_a_file_that_is_not_what_it_should_be_is_named_with_what_to_do(tmp_path, name, raw, said):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ValueError, match=said) as e:
        read(tmp_path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["a.txt.zst", "a.jsonl.zst"])
def test_a_zst_file_is_read_to_the_end_of_its_last_frame_and_one_that_ends_within_is_refused(tmp_path, monkeypatch, name):
    zstandard = pytest.importorskip("zstandard")
    monkeypatch.setattr("saescale.activations.files.ZSTD_BYTES", 7)
    lines = [json.dumps({"text": f"document {i} " * 9}) + "\n" for i in range(60)]
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    frames = [zstandard.compress("".join(part).encode()) for part in (lines[:40], lines[40:])]
    whole = skipped.join(frames)
    (tmp_path / name).write_bytes(whole)
    assert len(read(tmp_path)) == (60 if "jsonl" in name else 1)
    for torn in (whole[:-3], whole[:len(frames[0]) // 2], whole[:9] + b"\xff" * 9 + whole[18:], b"no zstd"):
        (tmp_path / name).write_bytes(torn)
        with pytest.raises(ValueError, match=rf"{name} is cut off or damaged \(.*\). Fetch it again"):
            read(tmp_path)


def test_a_path_that_names_no_readable_file_is_refused_with_the_kinds(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    for path in (tmp_path, tmp_path / "*.txt", tmp_path / "nowhere.jsonl"):
        with pytest.raises(ValueError, match=r"names no file that can be read.*\.jsonl"):
            Files(str(path))
    with pytest.raises(ValueError, match="a.csv' is of no known kind"):
        Files(str(tmp_path / "a.csv"))
    with pytest.raises(ValueError, match="data.path is missing"):
        Files("???")
