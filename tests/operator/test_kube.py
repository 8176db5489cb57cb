"""The API server's refusals, each as its own exception; waits that it asks for; discovery."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller import errors
from controller.actuation.scale import Scaler, TargetRef
from controller.kube import CONFIG_MAPS, RLSCALERS, Kube, environment_proxy
from tests.integration.harness import APPS, Namespace


def ref(ns: Namespace, name: str, kind: str = "Deployment", api_version: str = "apps/v1") -> TargetRef:
    return TargetRef(api_version, kind, name, ns.name)


def kubeconfig_of(server: str, path: Path) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "x", "cluster": {"server": server}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "users": [{"name": "x", "user": {}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.twin_only
@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, errors.Invalid),
        (401, errors.Unauthorized),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (410, errors.Gone),
        (422, errors.Invalid),
        (500, errors.ServerError),
        (503, errors.ServerError),
    ],
)
async def test_each_refusal_is_its_own_exception(
    kube: Kube, namespace: Namespace, code: int, error: type[errors.KubernetesError]
) -> None:
    namespace.cluster.twin.inject(path=f"/{namespace.name}/configmaps/absent", code=code)
    with pytest.raises(error) as caught:
        await kube.get(CONFIG_MAPS, namespace.name, "absent")
    assert type(caught.value) is error
    assert caught.value.status == code


@pytest.mark.twin_only
async def test_retry_after_is_waited_for_and_the_request_made_again(kube: Kube, namespace: Namespace) -> None:
    namespace.deployment("web")
    path = f"/{namespace.name}/deployments/web$"
    fault = namespace.cluster.twin.inject(path=path, code=429, retry_after_s=1)
    started = time.monotonic()
    target = await Scaler(kube).read(ref(namespace, "web"))
    assert target.replicas == 2
    assert fault.hits == 1
    assert 0.9 < time.monotonic() - started < 4


@pytest.mark.twin_only
async def test_a_wait_longer_than_our_patience_is_told_instead_of_made(
    kube: Kube, namespace: Namespace
) -> None:
    path = f"/{namespace.name}/configmaps/absent"
    namespace.cluster.twin.inject(path=path, code=429, retry_after_s=60)
    started = time.monotonic()
    with pytest.raises(errors.TooManyRequests) as caught:
        await kube.get(CONFIG_MAPS, namespace.name, "absent")
    assert caught.value.retry_after_s == 60
    assert time.monotonic() - started < 2


@pytest.mark.twin_only
async def test_no_answer_within_the_time_out_is_unreachable(namespace: Namespace) -> None:
    namespace.cluster.twin.inject(path=f"/{namespace.name}/configmaps/absent", delay_s=2.0)
    client = await Kube.connect(str(namespace.cluster.kubeconfig), timeout_s=0.3)
    try:
        with pytest.raises(errors.Unreachable, match=r"no answer in 0\.3 s"):
            await client.get(CONFIG_MAPS, namespace.name, "absent")
    finally:
        await client.close()


async def test_nobody_listening_is_unreachable_and_the_address_is_named(tmp_path: Path) -> None:
    path = kubeconfig_of("http://127.0.0.1:9", tmp_path / "kubeconfig")
    client = await Kube.connect(str(path))
    try:
        with pytest.raises(errors.Unreachable, match=r"http://127\.0\.0\.1:9"):
            await client.list_all(RLSCALERS)
    finally:
        await client.close()


class Proxy:
    """Answers every request itself, with an empty list, and remembers the requests' heads."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.port = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        body = b'{"items": []}'
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
        )
        await writer.drain()
        writer.close()


async def test_a_proxy_of_the_environment_is_used_and_a_netrc_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine cluster.invalid login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with Proxy().serving() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{proxy.port}")
        client = await Kube.connect(str(kubeconfig_of("http://cluster.invalid:8080", tmp_path / "config")))
        try:
            assert await client.list_all(RLSCALERS) == []
        finally:
            await client.close()
    first, *headers = proxy.heads[0].splitlines()
    assert first.startswith("GET http://cluster.invalid:8080/apis/rlscaler.dev/v1alpha1/rlscalers?")
    assert "Proxy-Authorization: Basic bWU6c2VjcmV0" in headers
    assert not [line for line in headers if line.startswith("Authorization:")]


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        pytest.param("https://a.example", {"HTTPS_PROXY": "http://p:1"}, "http://p:1", id="of the scheme"),
        pytest.param("http://a.example", {"HTTPS_PROXY": "http://p:1"}, None, id="of another scheme"),
        pytest.param("https://a.example", {"https_proxy": "http://p"}, "http://p", id="in small letters"),
        pytest.param(
            "https://10.0.0.1:6443",
            {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.1"},
            None,
            id="excepted",
        ),
        pytest.param(
            "https://api.corp.example",
            {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".corp.example"},
            None,
            id="of an excepted domain",
        ),
        pytest.param("https://a.example", {}, None, id="none"),
    ],
)
def test_the_proxy_is_the_one_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, url: str, environment: dict[str, str], proxy: str | None
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(url) == proxy


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="absent"),
        pytest.param("{", id="not YAML"),
        pytest.param("kind: Config", id="without contexts"),
        pytest.param("just text", id="text"),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used_is_a_settings_error(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(errors.SettingsError, match="--kubeconfig"):
        await Kube.connect(str(path))


@pytest.mark.parametrize(
    ("api_version", "kind", "error", "words"),
    [
        pytest.param("apps/v1", "Deploymant", errors.KindNotFound, "Deploymant in apps/v1", id="no kind"),
        pytest.param("x.io/v1", "Widget", errors.KindNotFound, "Widget in x.io/v1", id="no group"),
        pytest.param("v1", "Secret", errors.NotScalable, "/scale", id="no scale"),
        pytest.param(
            "apps/v1", "Deployment", errors.NotFound, "Deployment .*/absent not found", id="no object"
        ),
    ],
)
async def test_a_target_that_cannot_be_scaled_says_why(
    kube: Kube, namespace: Namespace, api_version: str, kind: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await Scaler(kube).read(ref(namespace, "absent", kind, api_version))


async def test_a_list_is_read_in_chunks_to_its_end(
    kube: Kube, namespace: Namespace, monkeypatch: Any
) -> None:
    monkeypatch.setattr("controller.kube.LIST_CHUNK", 3)
    for number in range(8):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"item-{number}"}}
        namespace.api.create(namespace.path("/api/v1", "configmaps"), body)
    names = [item["metadata"]["name"] for item in await kube.list_all(CONFIG_MAPS, namespace.name)]
    assert [name for name in names if name.startswith("item-")] == [f"item-{number}" for number in range(8)]


async def test_a_write_after_somebody_elses_scaling_is_a_conflict(kube: Kube, namespace: Namespace) -> None:
    namespace.deployment("web", replicas=2)
    scaler = Scaler(kube)
    read = await scaler.read(ref(namespace, "web"))
    namespace.set_replicas("web", 5)
    with pytest.raises(errors.Conflict, match="from 2 to 5 by somebody else"):
        await scaler.write(read, 9)
    assert namespace.replicas("web") == 5


async def test_a_write_after_a_mere_touch_goes_through(kube: Kube, namespace: Namespace) -> None:
    namespace.deployment("web", replicas=2)
    scaler = Scaler(kube)
    read = await scaler.read(ref(namespace, "web"))
    touched = {"metadata": {"annotations": {"touched": "yes"}}}
    namespace.api.patch(namespace.path(APPS, "deployments", "web"), touched)
    written = await scaler.write(read, 9)
    assert written.replicas == namespace.replicas("web") == 9


async def test_a_kind_of_anybodys_is_scaled_through_its_own_paths(kube: Kube, namespace: Namespace) -> None:
    """spec.size, not spec.replicas: only /scale knows."""
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "pools.test.rlscaler.dev"},
        "spec": {
            "group": "test.rlscaler.dev",
            "scope": "Namespaced",
            "names": {"plural": "pools", "singular": "pool", "kind": "Pool", "listKind": "PoolList"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                    },
                    "subresources": {
                        "status": {},
                        "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
                    },
                }
            ],
        },
    }
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    namespace.api.delete(f"{crds}/pools.test.rlscaler.dev")
    namespace.api.create(crds, crd)
    path = namespace.path("/apis/test.rlscaler.dev/v1", "pools")
    body = {
        "apiVersion": "test.rlscaler.dev/v1",
        "kind": "Pool",
        "metadata": {"name": "p"},
        "spec": {"size": 3},
    }
    await _served(namespace, path, body)
    scaler = Scaler(kube)
    target = await scaler.read(ref(namespace, "p", "Pool", "test.rlscaler.dev/v1"))
    assert (target.replicas, target.ready) == (3, 0)
    await scaler.write(target, 5)
    assert namespace.api.get(f"{path}/p")["spec"] == {"size": 5}
    namespace.api.delete(f"{crds}/pools.test.rlscaler.dev")


async def _served(namespace: Namespace, path: str, body: dict[str, Any]) -> None:
    """A real API server serves a new kind a moment after it was created."""
    for _ in range(100):
        try:
            namespace.api.create(path, body)
            return
        except Exception:
            await asyncio.sleep(0.1)
    raise AssertionError("the new kind is not served")


@pytest.mark.twin_only
async def test_who_does_not_lead_sends_no_write_and_reads_as_ever(kube: Kube, namespace: Namespace) -> None:
    namespace.deployment("web")
    target = await Scaler(kube).read(ref(namespace, "web"))
    kube.fence_s = lambda: 0.0
    since = time.monotonic()
    with pytest.raises(errors.NotLeading):
        await Scaler(kube).write(target, 5)
    log = list(namespace.cluster.twin.cluster.log)
    assert [e.path for e in log if e.time > since and e.method == "PATCH" and namespace.name in e.path] == []
    assert (await Scaler(kube).read(ref(namespace, "web"))).replicas == target.replicas


async def test_a_decision_of_a_former_leader_is_refused_once_another_has_scaled(
    kube: Kube, namespace: Namespace
) -> None:
    namespace.deployment("web")
    read_as_leader = await Scaler(kube).read(ref(namespace, "web"))
    await Scaler(kube).write(read_as_leader, 5)
    with pytest.raises(errors.Conflict, match="from 2 to 5 by somebody else"):
        await Scaler(kube).write(read_as_leader, 9)
    assert namespace.replicas("web") == 5
