"""One Chromium for a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.page.browser import Browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()
