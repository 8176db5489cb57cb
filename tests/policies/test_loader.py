"""References resolve to policies; equal bytes share one; what can't be loaded becomes a stand-in."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controller.core import OBSERVATION_SCHEMA, Engine, Samples, ServiceSpec, UnavailablePolicy
from controller.core.poolfeatures import POOL_SCHEMA, SET_SCHEMA
from controller.policies import (
    ArtifactDigestMismatch,
    ArtifactInvalid,
    ArtifactNotFound,
    OnnxPolicy,
    artifact_bytes,
    builtin_names,
    load_or_unavailable,
    load_policy,
    policy_from_bytes,
)
from tests.metrics.servers import http_server, send
from tests.policies.models import metadata, model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "a.onnx").write_bytes(model())
    (tmp_path / "outside.onnx").write_bytes(model())
    return folder


def test_a_file_is_found_in_the_policy_directory(folder: Path) -> None:
    assert load_policy({"file": "a.onnx"}, folder).name == "tiny"
    assert load_policy({"file": str(folder / "a.onnx")}, folder).name == "tiny"
    assert load_policy({"file": str(folder / "a.onnx")}).name == "tiny"


def test_a_file_behind_a_mounted_volumes_symlink_is_found(folder: Path) -> None:
    (folder / "..2026").mkdir()
    (folder / "..2026" / "m.onnx").write_bytes(model())
    (folder / "..data").symlink_to("..2026")
    (folder / "m.onnx").symlink_to("..data/m.onnx")
    assert load_policy({"file": "m.onnx"}, folder).name == "tiny"


@pytest.mark.parametrize("file", ["../outside.onnx", "/etc/hostname", "a/../../outside.onnx", "a\0b"])
def test_a_file_outside_the_policy_directory_is_not_read(folder: Path, file: str) -> None:
    with pytest.raises(ArtifactNotFound, match="not under the policy directory"):
        load_policy({"file": file}, folder)


def test_a_config_maps_bytes_are_loaded() -> None:
    reference = {"configMap": {"name": "policy", "key": "policy.onnx"}}
    assert load_policy(reference, data=model()).name == "tiny"
    with pytest.raises(ArtifactInvalid, match="its bytes were not given"):
        load_policy(reference)


def test_a_urls_bytes_are_downloaded_or_given_and_must_have_the_digest() -> None:
    data = model()
    right = hashlib.sha256(data).hexdigest()
    with http_server(lambda handler: send(handler, 200, data)) as port:
        url = f"http://127.0.0.1:{port}/a.onnx"
        assert load_policy({"url": url, "sha256": right}).name == "tiny"
        with pytest.raises(ArtifactDigestMismatch):
            load_policy({"url": url, "sha256": "0" * 64})
    assert load_policy({"url": url, "sha256": right}, data=data).name == "tiny"


def test_the_digest_of_the_reference_is_checked_even_if_the_policy_is_loaded_already(folder: Path) -> None:
    right = hashlib.sha256(model()).hexdigest()
    held = load_policy({"file": "a.onnx", "sha256": right}, folder)
    with pytest.raises(ArtifactDigestMismatch):
        load_policy({"file": "a.onnx", "sha256": "0" * 64}, folder)
    assert held.digest == f"sha256:{right}"


def test_equal_bytes_give_the_same_policy_wherever_they_come_from(folder: Path) -> None:
    first = load_policy({"file": "a.onnx"}, folder)
    assert load_policy({"configMap": {"name": "x", "key": "y"}}, data=model()) is first
    other = load_policy({"configMap": {"name": "x", "key": "y"}}, data=model(properties=metadata(name="b")))
    assert other is not first


def test_a_policy_that_nobody_uses_is_forgotten(folder: Path) -> None:
    from controller.policies import loader

    digest = load_policy({"file": "a.onnx"}, folder).digest
    gc.collect()
    assert digest not in loader._loaded


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        pytest.param({}, "exactly one of builtin, configMap, file, url is needed, not none", id="nothing"),
        pytest.param({"sha256": "0"}, "not none", id="a digest alone"),
        pytest.param({"builtin": "a", "file": "b"}, "not builtin and file", id="two"),
        pytest.param({"url": "https://x/a.onnx"}, "artifact.url needs sha256", id="url"),
    ],
)
def test_a_reference_that_says_too_little_or_too_much_is_refused(
    reference: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArtifactInvalid, match=message):
        load_policy(reference)


@pytest.mark.parametrize("name", ["nonexistent", "../../core/engine", "default.onnx", ""])
def test_an_unknown_builtin_is_named_with_those_that_exist(name: str) -> None:
    with pytest.raises(ArtifactNotFound) as raised:
        load_policy({"builtin": name})
    assert f"no builtin policy {name!r}" in str(raised.value)
    assert (", ".join(builtin_names()) or "train one with") in str(raised.value)


def test_every_builtin_policy_loads_and_answers_for_a_thousand_services() -> None:
    for name in builtin_names():
        policy = policy_from_bytes(artifact_bytes({"builtin": name}))
        if isinstance(policy, OnnxPolicy):
            action = policy.act(np.zeros((1000, OBSERVATION_SCHEMA.size), np.float32))
        else:
            pools = np.zeros((1000, 4, POOL_SCHEMA.size), np.float32)
            pools[:, :, 0] = 1.0
            action = np.stack(policy.decide(pools, np.zeros((1000, SET_SCHEMA.size), np.float32)))
        assert np.isfinite(action).all(), name


def test_what_can_not_be_loaded_becomes_a_stand_in_that_falls_back() -> None:
    policy = load_or_unavailable({"builtin": "nonexistent"})
    assert isinstance(policy, UnavailablePolicy)
    assert policy.reason == "ArtifactNotFound"
    assert "nonexistent" in policy.message
    engine = Engine(ServiceSpec(max_replicas=20, capacity_rps=10.0), policy)
    samples = Samples(request_rate=[50.0], ready=[6], current=[6], utilisation=[0.8])
    assert engine.step(0.0, samples)[0].fallback == "PolicyUnavailable"


def test_what_can_be_loaded_is_no_stand_in(folder: Path) -> None:
    assert load_or_unavailable({"file": "a.onnx"}, folder).name == "tiny"
