"""The two clients that the operator is made of: kubernetes.aio and kopf."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import client, config

from sim.twin.emulator import TwinCluster

from .conftest import deployment

HANDLERS = """
import kopf

@kopf.on.startup()
async def quiet(settings, **_):
    settings.posting.enabled = False
    settings.scanning.disabled = True

@kopf.on.event("apps", "v1", "deployments")
async def seen(type, name, body, **_):
    print("SEEN", type, name, body["spec"].get("replicas"), flush=True)
"""


@pytest.mark.asyncio
async def test_the_asynchronous_client_scales_with_a_version_and_sees_the_conflict(tmp_path: Path) -> None:
    async with TwinCluster(time_scale=600) as cluster:
        await config.load_kube_config(str(cluster.write_kubeconfig(tmp_path / "kubeconfig")))
        async with client.ApiClient() as api:
            apps = client.AppsV1Api(api)
            await apps.create_namespaced_deployment("default", deployment())
            scale = await apps.read_namespaced_deployment_scale("web", "default")
            body = {"metadata": {"resourceVersion": scale.metadata.resource_version}, "spec": {"replicas": 4}}
            for _ in range(100):
                if (await apps.read_namespaced_deployment("web", "default")).status.ready_replicas == 2:
                    break
                await asyncio.sleep(0.02)
            with pytest.raises(client.exceptions.ApiException) as caught:
                await apps.patch_namespaced_deployment_scale("web", "default", body)
            assert caught.value.status == 409
            scale = await apps.read_namespaced_deployment_scale("web", "default")
            body["metadata"]["resourceVersion"] = scale.metadata.resource_version
            assert (await apps.patch_namespaced_deployment_scale("web", "default", body)).spec.replicas == 4


@pytest.mark.asyncio
async def test_kopf_watches_through_dropped_watches_and_forgotten_history(tmp_path: Path) -> None:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    async with TwinCluster(time_scale=600) as cluster:
        cluster.write_kubeconfig(tmp_path / "kubeconfig")
        process = await _kopf(tmp_path)
        try:
            await _expect(process, lambda: _create(cluster, "a"), "SEEN ADDED a 2")
            cluster.api.store.close_watches()
            cluster.api.store.compact()
            await _expect(process, lambda: _create(cluster, "b"), "SEEN ADDED b 2")
        finally:
            process.kill()
            await process.wait()


async def _kopf(directory: Path) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "kopf", "run", "--standalone", "--all-namespaces", "handlers.py")
    environment = {"KUBECONFIG": str(directory / "kubeconfig"), "PATH": ""}
    return await asyncio.create_subprocess_exec(
        *command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _create(cluster: TwinCluster, name: str) -> None:
    resource = cluster.api.resource(("apps", "deployments"))
    cluster.api.create(resource, "default", deployment(name))


async def _expect(process: asyncio.subprocess.Process, act: Any, line: str) -> None:
    act()
    assert process.stdout is not None
    deadline = time.monotonic() + 15
    wanted, kind = line.encode(), line.split()[1]
    while time.monotonic() < deadline:
        got = await asyncio.wait_for(process.stdout.readline(), 15)
        if got.strip() in (wanted, wanted.replace(kind.encode(), b"None")):
            return
    raise AssertionError(f"kopf did not say {line!r}")
