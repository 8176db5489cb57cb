"""Bytes by digest on disk: nothing in the directory is trusted, and nothing depends on it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from controller.policies import DiskCache


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_bytes_are_found_by_their_digest_also_by_the_next_process(tmp_path: Path) -> None:
    DiskCache(tmp_path / "cache").put(b"weights")
    later = DiskCache(tmp_path / "cache")
    assert later.get(digest(b"weights")) == b"weights"
    assert later.get("sha256:" + digest(b"weights")) == b"weights"
    assert later.get(digest(b"others")) is None


@pytest.mark.parametrize("wrong", ["", "../../etc/passwd", "sha256:..", "0" * 63])
def test_what_is_no_digest_names_no_file(tmp_path: Path, wrong: str) -> None:
    assert DiskCache(tmp_path).get(wrong) is None


def test_a_file_that_does_not_hold_what_its_name_says_is_dropped(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    cache.put(b"weights")
    path = tmp_path / f"{digest(b'weights')}.onnx"
    path.write_bytes(b"weight")
    assert cache.get(digest(b"weights")) is None
    assert not path.exists()
    cache.put(b"weights")
    assert cache.get(digest(b"weights")) == b"weights"


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, most_bytes=25)
    for age, data in ((300, b"a" * 10), (200, b"b" * 10)):
        cache.put(data)
        path = tmp_path / f"{digest(data)}.onnx"
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    assert cache.get(digest(b"a" * 10)) is not None
    cache.put(b"c" * 10)
    assert cache.get(digest(b"a" * 10)) is not None
    assert cache.get(digest(b"b" * 10)) is None
    assert cache.get(digest(b"c" * 10)) is not None


def test_what_a_killed_process_left_unfinished_is_cleared_away_in_time(tmp_path: Path) -> None:
    old, new, foreign = tmp_path / "x.part", tmp_path / "y.part", tmp_path / "notes.txt"
    for path in (old, new, foreign):
        path.write_bytes(b"half")
    os.utime(old, (1e9, 1e9))
    os.utime(foreign, (1e9, 1e9))
    DiskCache(tmp_path).put(b"weights")
    assert (old.exists(), new.exists(), foreign.exists()) == (False, True, True)


def test_a_directory_that_cannot_be_written_is_said_once_and_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no directory")
    cache = DiskCache(tmp_path / "file" / "cache")
    cache.put(b"weights")
    cache.put(b"others")
    assert cache.get(digest(b"weights")) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_without_a_directory_nothing_is_kept() -> None:
    cache = DiskCache("")
    cache.put(b"weights")
    assert cache.get(digest(b"weights")) is None
