import errno
import os
from pathlib import Path

import pytest

from saescale.records.store import Damaged, Store, append_line, read_json, read_lines, write_bytes, write_json


def test_what_is_written_is_read_back(tmp_path):
    write_json(tmp_path / "a" / "b.json", {"x": [1, None, 0.1]})
    assert read_json(tmp_path / "a" / "b.json") == {"x": [1, None, 0.1]}
    assert read_json(tmp_path / "absent.json") is None


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, 1)

    def full(_fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as e:
        write_json(path, 2)
    assert e.value.filename == str(path)  # so that the message can say of which file
    assert read_json(path) == 1 and [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_reader_never_sees_a_part(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_bytes(path, b"old")
    seen = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append(path.read_bytes()), fsync(fd)))
    with path.open("rb") as reader:
        write_bytes(path, b"new" * 1000)
        assert reader.read() == b"old"  # renamed over, never written into
    assert seen == [b"old"] and path.read_bytes() == b"new" * 1000


def test_files_get_the_permissions_the_umask_leaves_so_that_a_group_can_share_a_store(tmp_path):
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "x.json", 1)
    finally:
        os.umask(before)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("raw", [b'{"a": 1', b"", b"\xff\xfe", b"nonsense"])
def test_a_torn_json_file_is_damaged_and_says_where(tmp_path, raw):
    (tmp_path / "x.json").write_bytes(raw)
    with pytest.raises(Damaged, match=r"x\.json is damaged"):
        read_json(tmp_path / "x.json")


def test_a_number_that_is_not_finite_is_never_written(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"fvu": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_a_torn_last_line_is_dropped_and_the_next_one_is_kept_whole(tmp_path):
    path = tmp_path / "m.jsonl"
    append_line(path, {"step": 1})
    with path.open("a") as f:
        f.write('{"step": 2, "lo')
    assert read_lines(path) == [{"step": 1}]
    append_line(path, {"step": 3})
    append_line(path, {"step": 4})
    assert read_lines(path) == [{"step": 1}, {"step": 3}, {"step": 4}]


def test_no_lines_are_no_rows(tmp_path):
    assert read_lines(tmp_path / "absent.jsonl") == []


def test_a_store_that_cannot_be_written_is_refused_with_its_path(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"the store .*/file/runs cannot be written .* with --store"):
        Store(tmp_path / "file" / "runs").require_writable()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, a file system where not even root makes a folder")
def test_a_file_system_without_new_folders_is_refused():
    with pytest.raises(ValueError, match="cannot be written"):
        Store(Path("/proc/saescale")).require_writable()
