"""Events: counted instead of repeated, cut off when there are too many, never in the way."""

from __future__ import annotations

import pytest

from controller.events import BURST, EventRecorder, Involved
from controller.kube import Kube
from tests.integration.harness import Namespace


def about(ns: Namespace, name: str = "web") -> Involved:
    return Involved("rlscaler.dev/v1alpha1", "RLScaler", ns.name, name, f"uid-{name}")


async def test_an_event_names_its_object_reason_and_source(kube: Kube, namespace: Namespace) -> None:
    await EventRecorder(kube).emit(about(namespace), "Warning", "FallbackStarted", "metrics are gone")
    (event,) = namespace.events("FallbackStarted")
    assert event["involvedObject"]["name"] == "web"
    assert event["involvedObject"]["kind"] == "RLScaler"
    assert (event["type"], event["message"]) == ("Warning", "metrics are gone")
    assert event["source"]["component"] == "rl-scaler"
    assert event["count"] == 1


async def test_the_same_again_is_counted_and_other_words_are_not(kube: Kube, namespace: Namespace) -> None:
    recorder = EventRecorder(kube)
    for message in ("a", "a", "b", "a"):
        await recorder.emit(about(namespace), "Normal", "Paused", message)
    assert sorted((e["message"], e["count"]) for e in namespace.events("Paused")) == [("a", 3), ("b", 1)]


async def test_an_event_that_expired_meanwhile_is_written_anew(kube: Kube, namespace: Namespace) -> None:
    recorder = EventRecorder(kube)
    await recorder.emit(about(namespace), "Normal", "Paused", "a")
    (event,) = namespace.events("Paused")
    namespace.api.delete(namespace.path("/api/v1", "events", event["metadata"]["name"]))
    await recorder.emit(about(namespace), "Normal", "Paused", "a")
    assert [e["count"] for e in namespace.events("Paused")] == [1]


async def test_an_object_that_talks_too_much_is_cut_off_and_others_are_not(
    kube: Kube, namespace: Namespace
) -> None:
    recorder = EventRecorder(kube)
    for number in range(int(BURST) + 15):
        await recorder.emit(about(namespace, "loud"), "Normal", "Paused", f"message {number}")
    await recorder.emit(about(namespace, "quiet"), "Normal", "Resumed", "hello")
    assert len(namespace.events("Paused")) in (int(BURST), int(BURST) + 1)
    assert len(namespace.events("Resumed")) == 1


@pytest.mark.twin_only
async def test_an_event_that_cannot_be_written_is_no_failure(
    kube: Kube, namespace: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    namespace.cluster.twin.inject(method="POST", path=f"/{namespace.name}/events", code=403)
    await EventRecorder(kube).emit(about(namespace), "Normal", "Paused", "a")
    assert namespace.events("Paused") == []
    assert "not written" in caplog.text
