"""Folders of compiled code: one for each state of the sources, and none taken from under another process."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sim import codecache


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(codecache, "_home", lambda: tmp_path)
    monkeypatch.setattr(codecache.sys, "modules", {})
    monkeypatch.setenv(codecache.VARIABLE, "")
    return tmp_path


def folders(home: Path) -> set[str]:
    return {path.name for path in home.iterdir()}


def test_code_of_other_sources_stays_while_somebody_may_run_it(home: Path) -> None:
    used, unused = home / f"{codecache.PREFIX}used", home / f"{codecache.PREFIX}unused"
    used.mkdir()
    unused.mkdir()
    past = time.time() - codecache.UNUSED_S - 60
    os.utime(unused, (past, past))
    codecache.keep_code_by_sources()
    assert folders(home) == {used.name, Path(os.environ[codecache.VARIABLE]).name}


def test_beginning_with_a_folder_keeps_it(home: Path) -> None:
    codecache.keep_code_by_sources()
    mine = Path(os.environ[codecache.VARIABLE])
    past = time.time() - codecache.UNUSED_S - 60
    os.utime(mine, (past, past))
    codecache.keep_code_by_sources()
    assert mine.stat().st_mtime > past + 60
    assert folders(home) == {mine.name}


def test_a_folder_of_the_users_own_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(codecache.VARIABLE, str(home / "mine"))
    codecache.keep_code_by_sources()
    assert os.environ[codecache.VARIABLE] == str(home / "mine")
    assert folders(home) == set()


def test_each_state_of_the_sources_has_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sim").mkdir()
    file = tmp_path / "sim" / "one.py"
    file.write_text("1")
    monkeypatch.setattr(codecache, "ROOT", tmp_path)
    before = codecache.state_of_the_sources()
    assert codecache.state_of_the_sources() == before
    file.write_text("12")
    assert codecache.state_of_the_sources() != before
