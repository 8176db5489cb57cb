"""Which policy is loaded from where, and what becomes of it when that changes."""

from __future__ import annotations

import asyncio
import base64
import gc
import os
from pathlib import Path
from typing import Any

import pytest

from controller.api.artifact import Artifact
from controller.errors import Forbidden, NotFound
from controller.policies import OnnxPolicy
from controller.policybook import Chosen, PolicyBook
from controller.settings import Settings
from controller.sources import ABSENT, Source, Sources, file_version
from tests.policies.models import metadata, model

GOOD, BETTER = model(), model(properties=metadata(name="better"))
FILE, MAP = Artifact(file="p.onnx"), Artifact.model_validate({"configMap": {"name": "p"}})


class Maps:
    """An API server's ConfigMaps, as far as the policy book asks for them."""

    def __init__(self) -> None:
        self.data: bytes | None = GOOD
        self.revision = 1
        self.refuses = False
        self.reads = 0

    def put(self, data: bytes | None) -> None:
        self.data, self.revision = data, self.revision + 1

    async def get(self, resource: Any, namespace: str, name: str) -> dict[str, Any]:
        self.reads += 1
        if self.refuses:
            raise Forbidden("configmaps is forbidden", 403)
        if self.data is None:
            raise NotFound("no such ConfigMap", 404)
        held = {"policy.onnx": base64.b64encode(self.data).decode()}
        return {"metadata": {"resourceVersion": str(self.revision)}, "binaryData": held}

    async def version(self, resource: Any, namespace: str, name: str) -> str:
        return str((await self.get(resource, namespace, name))["metadata"]["resourceVersion"])


def book(kube: Any, folder: Path, cache: str = "") -> PolicyBook:
    return PolicyBook(kube, Settings(policy_dir=str(folder), artifact_cache_dir=cache))


async def look(shelf: PolicyBook, chosen: Chosen) -> None:
    assert chosen.source is not None
    await shelf.sources._look(chosen.source)


def name(chosen: Chosen) -> str:
    return chosen.policy.name


def test_another_version_is_a_change_and_the_first_is_none() -> None:
    source = Source("ns", "p")
    for version, serial in (("1", 0), ("1", 0), ("2", 1), (ABSENT, 2), (ABSENT, 2), ("2", 3)):
        source.saw(version)
        assert source.serial == serial


def test_a_file_has_another_version_when_it_or_the_link_to_it_changes(tmp_path: Path) -> None:
    assert file_version(str(tmp_path), "p.onnx") == ABSENT
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "p.onnx").write_bytes(GOOD)
    (tmp_path / "data").symlink_to("1")
    (tmp_path / "p.onnx").symlink_to("data/p.onnx")
    first = file_version(str(tmp_path), "p.onnx")
    assert first == file_version(str(tmp_path), "p.onnx")
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").rename(tmp_path / "data")
    second = file_version(str(tmp_path), "p.onnx")
    assert second != first
    os.utime(tmp_path / "2" / "p.onnx", (1e9, 1e9))
    assert file_version(str(tmp_path), "p.onnx") != second
    assert file_version(str(tmp_path), "a\0b") == ABSENT


@pytest.mark.parametrize("kind", ["file", "configMap"])
async def test_a_change_makes_what_was_chosen_stale_and_the_next_choice_fresh(
    tmp_path: Path, kind: str
) -> None:
    maps, artifact = Maps(), FILE if kind == "file" else MAP
    (tmp_path / "p.onnx").write_bytes(GOOD)
    shelf = book(maps, tmp_path)
    first = await shelf.artifact("ns", artifact)
    await look(shelf, first)
    assert (name(first), first.fresh) == ("tiny", True)
    maps.put(BETTER)
    (tmp_path / "p.onnx").write_bytes(BETTER)
    await look(shelf, first)
    assert not first.fresh
    second = await shelf.artifact("ns", artifact, first)
    assert (name(second), second.fresh, second.note) == ("better", True, None)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(GOOD[:-200], "ArtifactInvalid"), (b"", "ArtifactInvalid"), (None, "ArtifactNotFound")],
    ids=["truncated", "empty", "deleted"],
)
@pytest.mark.parametrize("kind", ["file", "configMap"])
async def test_a_bad_version_leaves_the_old_policy_in_charge_and_says_so(
    tmp_path: Path, kind: str, bad: bytes | None, reason: str
) -> None:
    maps, artifact = Maps(), FILE if kind == "file" else MAP
    path = tmp_path / "p.onnx"
    path.write_bytes(GOOD)
    shelf = book(maps, tmp_path, str(tmp_path / "cache"))
    first = await shelf.artifact("ns", artifact)
    maps.put(bad)
    path.unlink() if bad is None else path.write_bytes(bad)
    await look(shelf, first)
    second = await shelf.artifact("ns", artifact, first)
    assert second.policy is first.policy
    assert second.trouble is None
    assert second.note is not None
    assert second.note.reason == "ReloadFailed"
    assert second.note.message.startswith(f"{reason}: ")
    third = await shelf.artifact("ns", artifact, second)
    assert third.policy is first.policy

    digest = first.policy.digest
    del first, second, third
    gc.collect()
    later = book(maps, tmp_path, str(tmp_path / "cache"))
    kept = await later.artifact("ns", artifact, None, digest)
    assert (name(kept), kept.note and kept.note.reason) == ("tiny", "ReloadFailed"), (
        "a restart finds it on disk"
    )
    without = await later.artifact("ns", artifact, None, "sha256:" + "0" * 64)
    assert without.trouble is not None
    assert without.trouble.reason == reason


async def test_another_reference_that_is_bad_is_no_reason_to_go_on_with_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "p.onnx").write_bytes(GOOD)
    shelf = book(Maps(), tmp_path)
    first = await shelf.artifact("ns", FILE)
    second = await shelf.artifact("ns", Artifact(file="q.onnx"), first)
    assert second.trouble is not None
    assert second.trouble.reason == "ArtifactNotFound"
    assert name(second) == "unavailable"


async def test_a_pinned_digest_keeps_out_what_is_put_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "p.onnx").write_bytes(GOOD)
    digest = OnnxPolicy.from_bytes(GOOD).digest.removeprefix("sha256:")
    pinned = Artifact(file="p.onnx", sha256=digest)
    shelf = book(Maps(), tmp_path)
    first = await shelf.artifact("ns", pinned)
    (tmp_path / "p.onnx").write_bytes(BETTER)
    await look(shelf, first)
    second = await shelf.artifact("ns", pinned, first)
    assert second.policy is first.policy
    assert second.note is not None
    assert "ArtifactDigestMismatch" in second.note.message


async def test_a_config_map_that_may_not_be_looked_at_is_no_change(tmp_path: Path) -> None:
    maps = Maps()
    shelf = book(maps, tmp_path)
    first = await shelf.artifact("ns", MAP)
    maps.refuses = True
    await look(shelf, first)
    assert first.fresh


async def test_what_cannot_change_has_no_source_and_equal_references_share_one(tmp_path: Path) -> None:
    shelf = Sources(None, str(tmp_path))  # type: ignore[arg-type]
    url = Artifact(url="https://h.test/a.onnx", sha256="0" * 64)
    assert shelf.of("ns", Artifact(builtin="default")) is None
    assert shelf.of("ns", url) is None
    first = shelf.of("ns", MAP)
    assert shelf.of("ns", MAP) is first
    assert shelf.of("other", MAP) is not first
    assert shelf.of("ns", FILE) is not first


async def test_the_watch_looks_at_what_is_used_and_forgets_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.sources.LOOK_REAL_S", 0.02)
    monkeypatch.setattr("controller.sources.MOST_PER_S", 1000.0)
    maps = Maps()
    shelf = book(maps, tmp_path)
    chosen = await shelf.artifact("ns", MAP)
    task = asyncio.create_task(shelf.sources.watch())
    maps.put(BETTER)
    async with asyncio.timeout(20):
        while chosen.fresh:  # noqa: ASYNC110 - the watch tells nobody
            await asyncio.sleep(0.01)
        assert (name(await shelf.artifact("ns", MAP, chosen))) == "better"
        del chosen
        shelf._loads.clear()
        gc.collect()
        while len(shelf.sources._known):
            await asyncio.sleep(0.01)
            gc.collect()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_thousands_who_ask_at_once_are_one_read(tmp_path: Path) -> None:
    maps = Maps()
    shelf = book(maps, tmp_path)
    found = await asyncio.gather(*(shelf.artifact("ns", MAP) for _ in range(1000)))
    assert len({id(chosen.policy) for chosen in found}) == 1
    assert maps.reads == 1


async def test_policies_of_the_operator_have_a_time_limit(tmp_path: Path) -> None:
    shelf = book(Maps(), tmp_path)
    policy = (await shelf.artifact("ns", MAP)).policy
    assert isinstance(policy, OnnxPolicy)
    assert policy._graph._limit_s is not None
