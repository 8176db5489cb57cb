"""Downloads in the background: nobody waits long, nothing is fetched twice, failures are tried again."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller import downloads as module
from controller.downloads import Downloads
from controller.policies import (
    ArtifactDigestMismatch,
    ArtifactDownloading,
    ArtifactError,
    ArtifactUnreachable,
    DiskCache,
    OnnxPolicy,
    Rules,
)
from tests.policies.models import metadata, model

URL = "https://models.test/a.onnx?key=hidden"


class Server:
    """Stands in for `download`: counts, fails on demand, and waits while it is told to."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked = 0
        self.error: ArtifactError | None = None
        self.open = threading.Event()
        self.open.set()

    def __call__(self, url: str, most_bytes: int, rules: Rules) -> bytes:
        self.asked += 1
        assert self.open.wait(20)
        if self.error is not None:
            raise self.error
        return self.data


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Server]:
    gc.collect()
    made = Server(model(properties=metadata(name=request.node.name[:60])))
    monkeypatch.setattr(module, "download", made)
    monkeypatch.setattr(module, "PATIENCE_REAL_S", 0.05)
    monkeypatch.setattr(module, "FIRST_PAUSE_REAL_S", 0.05)
    yield made
    made.open.set()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def until(
    downloads: Downloads, server: Server, error: type[ArtifactError] | None = None
) -> OnnxPolicy | None:
    """Ask as a preparation would, until it is there, or until this error is what is said."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await downloads.policy(URL, sha256(server.data))
            except ArtifactError as found:
                if error is not None and isinstance(found, error):
                    return None
            await asyncio.sleep(0.01)


async def test_nobody_waits_for_a_slow_server_and_all_share_what_it_gives(server: Server) -> None:
    downloads = Downloads(Rules(), DiskCache())
    server.open.clear()
    with pytest.raises(
        ArtifactDownloading, match=r"https://models.test/a.onnx is being downloaded"
    ) as raised:
        await downloads.policy(URL, sha256(server.data))
    assert "hidden" not in str(raised.value)
    assert raised.value.reason == "ArtifactDownloading"
    many = [downloads.policy(URL, sha256(server.data)) for _ in range(50)]
    assert {type(each) for each in await asyncio.gather(*many, return_exceptions=True)} == {
        ArtifactDownloading
    }
    server.open.set()
    policy = await until(downloads, server)
    assert server.asked == 1
    assert await downloads.policy(URL, sha256(server.data)) is policy


async def test_a_failure_stands_until_another_attempt_has_ended(server: Server) -> None:
    downloads = Downloads(Rules(), DiskCache())
    server.error = ArtifactUnreachable("no connection")
    await until(downloads, server, ArtifactUnreachable)
    server.open.clear()
    said = set()
    async with asyncio.timeout(20):
        while server.asked < 2:
            with pytest.raises(ArtifactError) as raised:
                await downloads.policy(URL, sha256(server.data))
            said.add(type(raised.value))
            await asyncio.sleep(0.01)
    with pytest.raises(ArtifactUnreachable):
        await downloads.policy(URL, sha256(server.data))
    assert said == {ArtifactUnreachable}
    server.error = None
    server.open.set()
    assert await until(downloads, server) is not None


async def test_attempts_are_ever_further_apart(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module.random, "uniform", lambda low, high: 1.0)
    monkeypatch.setattr(module, "FIRST_PAUSE_REAL_S", 10.0)
    job = module._Job()
    pauses = []
    for _ in range(7):
        job.attempt = asyncio.get_running_loop().create_future()
        job.attempt.set_exception(ArtifactUnreachable("no connection"))
        Downloads(Rules(), DiskCache())._settle(job, "https://models.test/a.onnx")
        pauses.append(job.again_at_s - clock[0])
    assert pauses == [10, 20, 40, 80, 160, 300, 300]


async def test_bytes_with_another_digest_are_neither_loaded_nor_kept(server: Server, tmp_path: Path) -> None:
    downloads = Downloads(Rules(), DiskCache(tmp_path))
    asked = sha256(server.data)
    server.data = server.data + b"\0"
    async with asyncio.timeout(20):
        while True:
            with pytest.raises(ArtifactError) as raised:
                await downloads.policy(URL, asked)
            if isinstance(raised.value, ArtifactDigestMismatch):
                break
    assert os.listdir(tmp_path) == []


async def test_what_is_on_disk_is_not_downloaded(server: Server, tmp_path: Path) -> None:
    assert await until(Downloads(Rules(), DiskCache(tmp_path)), server) is not None
    gc.collect()
    assert await until(Downloads(Rules(), DiskCache(tmp_path)), server) is not None
    assert server.asked == 1


async def test_a_bug_of_ours_is_not_taken_for_a_bad_artifact(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "download", broken)
    downloads = Downloads(Rules(), DiskCache())
    with pytest.raises(RuntimeError, match="a bug"):
        await until(downloads, server)
