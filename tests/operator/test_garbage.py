"""Long-lived objects are set aside from the cycle collector, and new cycles are still collected."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Iterator

import pytest

from controller import garbage


class Knot:
    """A cycle of one."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


async def test_what_lives_long_is_set_aside_and_new_cycles_are_collected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(garbage, "EVERY_REAL_S", 0.01)
    monkeypatch.setattr(garbage, "WHOLE_EVERY", 2)
    task = asyncio.create_task(garbage.set_aside())
    await asyncio.sleep(0)
    assert gc.get_freeze_count() > 0
    knot = weakref.ref(Knot())
    for _ in range(500):
        if knot() is None:
            break
        await asyncio.sleep(0.01)
    assert knot() is None
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
