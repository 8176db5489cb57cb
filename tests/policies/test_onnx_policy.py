"""An artifact is checked when loaded and runs as one batched call; a broken one is an error with a reason."""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core import (
    OBSERVATION_SCHEMA,
    Behavior,
    Engine,
    Samples,
    ScalingPolicy,
    ScalingRules,
    ServiceSpec,
)
from controller.policies import (
    ArtifactDigestMismatch,
    ArtifactError,
    ArtifactInvalid,
    ArtifactNotFound,
    ArtifactSchemaMismatch,
    ArtifactTooLarge,
    OnnxPolicy,
)
from tests.policies import models
from tests.policies.models import FEATURES, metadata, model


def observations(count: int) -> np.ndarray:
    low, high = OBSERVATION_SCHEMA.low, OBSERVATION_SCHEMA.high
    return np.random.default_rng(1).uniform(low, high, (count, FEATURES)).astype(np.float32)


def test_an_artifact_says_who_it_is() -> None:
    data = model()
    policy = OnnxPolicy.from_bytes(data)
    assert (policy.name, policy.type) == ("tiny", "RL")
    assert policy.digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert policy.schema == OBSERVATION_SCHEMA.version
    assert policy.metadata.provenance["command"] == "tests"


def test_a_thousand_services_are_one_call_that_gives_what_the_network_says() -> None:
    rows = observations(1000)
    action = OnnxPolicy.from_bytes(model()).act(rows)
    assert (action.shape, action.dtype) == ((1000, 1), np.float32)
    np.testing.assert_allclose(action, np.tanh(rows @ models.weights()), atol=1e-5)


def test_a_batch_equals_its_rows_one_by_one() -> None:
    policy, rows = OnnxPolicy.from_bytes(model()), observations(50)
    single = np.concatenate([policy.act(row[None, :]) for row in rows])
    np.testing.assert_allclose(policy.act(rows), single, atol=1e-6)


def test_no_service_is_no_action() -> None:
    assert OnnxPolicy.from_bytes(model()).act(np.zeros((0, FEATURES), np.float32)).shape == (0, 1)


def test_features_in_another_layout_or_precision_are_taken_as_they_are() -> None:
    policy, rows = OnnxPolicy.from_bytes(model()), observations(10)
    turned = np.asfortranarray(rows.astype(np.float64))
    np.testing.assert_array_equal(policy.act(turned), policy.act(rows))


def test_an_action_schema_with_two_columns_is_served() -> None:
    data = model(actions=2, properties=metadata(action_schema="hold-band/v1"))
    policy = OnnxPolicy.from_bytes(data)
    assert policy.act(observations(3)).shape == (3, 2)
    assert policy.action_schema == "hold-band/v1"


def test_rows_without_a_number_are_nan_and_leave_the_others_alone() -> None:
    rows = observations(4)
    rows[1, :] = 0.0
    rows[2, 0] = 0.0
    action = OnnxPolicy.from_bytes(models.dividing()).act(rows)
    assert np.isnan(action[:, 0]).tolist() == [False, True, True, False]


def test_a_graph_that_fails_at_run_time_gives_nan_and_not_an_exception() -> None:
    policy = OnnxPolicy.from_bytes(models.failing_on_negative())
    assert np.isfinite(policy.act(np.zeros((3, FEATURES), np.float32))).all()
    assert np.isnan(policy.act(np.full((3, FEATURES), -99, np.float32))).all()


def test_the_engine_steps_on_an_artifact_and_falls_back_where_it_gives_no_number() -> None:
    spec = ServiceSpec(min_replicas=1, max_replicas=20, capacity_rps=10.0)
    good = OnnxPolicy.from_bytes(model())
    broken = OnnxPolicy.from_bytes(models.never_a_number())
    engine = Engine([spec, spec], [good, broken])
    samples = Samples(request_rate=[50.0, 50.0], ready=[6, 6], current=[6, 6], utilisation=[0.8, 0.8])
    for second in range(0, 90, 15):
        decisions = engine.step(float(second), samples)
    assert decisions[0].fallback is None
    assert decisions[0].policy == "tiny"
    assert decisions[1].fallback == "InvalidAction"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        pytest.param(lambda: b"", ArtifactInvalid, "0 bytes", id="empty"),
        pytest.param(lambda: model()[:-200], ArtifactInvalid, "cannot load it", id="truncated"),
        pytest.param(lambda: b"not ONNX" * 100, ArtifactInvalid, "cannot load it", id="not ONNX"),
        pytest.param(lambda: b"\x80\x04}q\x00.", ArtifactInvalid, "cannot load it", id="a pickle"),
        pytest.param(
            lambda: pickle.dumps({"policy": np.zeros(1000)}),
            ArtifactInvalid,
            "cannot load it",
            id="weights pickled",
        ),
        pytest.param(
            lambda: zipped(), ArtifactInvalid, "cannot load it", id="a zip of torch or Stable-Baselines3"
        ),
        pytest.param(
            lambda: b"ORTM".rjust(8, b"\x18") * 9, ArtifactInvalid, "cannot load it", id="ORT's own format"
        ),
        pytest.param(
            lambda: models.with_weights_in("/etc/hostname"),
            ArtifactInvalid,
            "external data",
            id="a file's weights",
        ),
        pytest.param(
            lambda: models.with_a_constant_in("secret"),
            ArtifactInvalid,
            "external data",
            id="a file's constant",
        ),
        pytest.param(
            lambda: models.with_a_constant_in("secret", deep=True),
            ArtifactInvalid,
            "external data",
            id="a file's constant in a loop",
        ),
        pytest.param(models.bare, ArtifactInvalid, "no 'rlscaler' metadata", id="no metadata"),
        pytest.param(
            lambda: model(properties="{"), ArtifactInvalid, "metadata rlscaler: Invalid JSON", id="bad JSON"
        ),
        pytest.param(
            lambda: model(properties=metadata(name=7)),
            ArtifactInvalid,
            "metadata rlscaler.name",
            id="bad name",
        ),
        pytest.param(
            lambda: model(properties=metadata(preference_range=[0, 200])),
            ArtifactInvalid,
            "rlscaler.preference_range: Value error, must be two ascending numbers",
            id="bad preference range",
        ),
        pytest.param(
            lambda: model(properties=_other(version="autoscale/v0")),
            ArtifactSchemaMismatch,
            "observation schema 'autoscale/v0' is not this operator's",
            id="other observation version",
        ),
        pytest.param(
            lambda: model(properties=_other(features=["x", *OBSERVATION_SCHEMA.names[1:]])),
            ArtifactSchemaMismatch,
            f"feature 0 is 'x', this operator's is '{OBSERVATION_SCHEMA.names[0]}'",
            id="other feature",
        ),
        pytest.param(
            lambda: model(properties=_other(features=list(OBSERVATION_SCHEMA.names[:-1]))),
            ArtifactSchemaMismatch,
            f"{FEATURES - 1} features are not this operator's {FEATURES}",
            id="fewer features",
        ),
        pytest.param(
            lambda: model(properties=_other(digest="sha256:0")),
            ArtifactSchemaMismatch,
            "digest sha256:0 is not this operator's",
            id="other ranges",
        ),
        pytest.param(
            lambda: model(properties=metadata(action_schema="dance/v1")),
            ArtifactSchemaMismatch,
            "action schema 'dance/v1' is unknown; one of relative-change/v1",
            id="unknown action schema",
        ),
        pytest.param(
            lambda: model(features=FEATURES - 1),
            ArtifactInvalid,
            f"[N, {FEATURES}] is needed",
            id="input width",
        ),
        pytest.param(lambda: model(rows=1), ArtifactInvalid, "takes 1 rows only", id="one row only"),
        pytest.param(
            lambda: model(input_name="obs"),
            ArtifactInvalid,
            "inputs ['obs'] are not allowed",
            id="input name",
        ),
        pytest.param(
            lambda: model(output_name="logits"), ArtifactInvalid, "no output 'action'", id="output name"
        ),
        pytest.param(
            lambda: model(actions=2), ArtifactInvalid, "float32 [2, 1] is needed", id="output width"
        ),
        pytest.param(models.doubles, ArtifactInvalid, "float64 [2, 1]", id="float64 actions"),
        pytest.param(models.random, ArtifactInvalid, "not deterministic", id="random"),
        pytest.param(models.with_custom_operator, ArtifactInvalid, "evil.example", id="custom operator"),
    ],
)
def test_a_broken_artifact_is_refused_with_a_reason(
    make: Callable[[], bytes], error: type[ArtifactError], message: str
) -> None:
    with pytest.raises(error) as raised:
        OnnxPolicy.from_bytes(make())
    assert message in str(raised.value)
    assert raised.value.reason == error.__name__


def zipped() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps({"policy": 1}))
    return held.getvalue()


def _other(**changes: Any) -> dict[str, Any]:
    return metadata(observation_schema=metadata()["observation_schema"] | changes)


def test_an_artifact_that_never_answers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.policies.session.TRIAL_SECONDS", 0.2)
    started = time.monotonic()
    with pytest.raises(ArtifactInvalid, match="a trial run failed"):
        OnnxPolicy.from_bytes(models.looping(2**40))
    assert time.monotonic() - started < 5


def test_an_artifact_beyond_the_size_limit_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("controller.policies.onnx_policy.MAX_ARTIFACT_BYTES", 1024)
    with pytest.raises(ArtifactTooLarge, match="MiB are allowed"):
        OnnxPolicy.from_bytes(model() + b"\0" * 1024)
    (tmp_path / "big.onnx").write_bytes(b"\0" * 2000)
    with pytest.raises(ArtifactTooLarge, match="2000 bytes"):
        OnnxPolicy.from_file(tmp_path / "big.onnx")


@pytest.mark.parametrize("prefix", ["", "sha256:"])
def test_the_right_digest_is_accepted_and_another_refused(prefix: str) -> None:
    data = model()
    right = hashlib.sha256(data).hexdigest()
    assert OnnxPolicy.from_bytes(data, prefix + right.upper() if not prefix else prefix + right)
    with pytest.raises(ArtifactDigestMismatch, match=f"SHA-256 is {right}, not {prefix}{'0' * 64}"):
        OnnxPolicy.from_bytes(data, prefix + "0" * 64)


def test_the_digest_is_checked_before_the_bytes_are_parsed() -> None:
    with pytest.raises(ArtifactDigestMismatch):
        OnnxPolicy.from_bytes(b"not ONNX", "0" * 64)


def test_a_file_is_loaded_and_a_missing_one_named(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(model())
    assert OnnxPolicy.from_file(tmp_path / "a.onnx").name == "tiny"
    with pytest.raises(ArtifactNotFound, match=r"b\.onnx: no such file"):
        OnnxPolicy.from_file(tmp_path / "b.onnx")
    with pytest.raises(ArtifactNotFound, match="no such file"):
        OnnxPolicy.from_file(tmp_path)


def test_loading_an_artifact_imports_neither_onnx_nor_torch_nor_pickle_loaders(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(model())
    script = (
        "import sys; from controller.policies import OnnxPolicy; "
        f"OnnxPolicy.from_file({str(tmp_path / 'a.onnx')!r}); "
        "print({'onnx', 'torch', 'joblib', 'cloudpickle', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("start_up_s", "desired", "clamps"),
    [
        pytest.param(60.0, 1, [], id="what training saw may scale down"),
        pytest.param(900.0, 8, ["OutOfDistribution"], id="what it never saw may not"),
    ],
)
def test_an_observation_outside_the_range_of_training_never_scales_down(
    start_up_s: float, desired: int, clamps: list[str]
) -> None:
    low, high = OBSERVATION_SCHEMA.low.tolist(), OBSERVATION_SCHEMA.high.tolist()
    column = OBSERVATION_SCHEMA.names.index("start_up")
    low[column], high[column] = -1.0, 1.0
    data = models.model(properties=models.metadata(observation_range={"low": low, "high": high}))
    policy = OnnxPolicy.from_bytes(data)
    policy.act = lambda features: np.full((len(features), 1), -1.0, dtype=np.float32)  # type: ignore[method-assign]
    quick = Behavior(scale_down=ScalingRules(0, "Max", (ScalingPolicy("Percent", 100, 15),)))
    spec = ServiceSpec(1, 20, capacity_rps=10.0, start_up_s=start_up_s, behavior=quick)
    decision = Engine(spec, policy).step(0.0, Samples(request_rate=[10.0], current=[8.0]))[0]
    assert decision.desired_replicas == desired
    assert [clamp.name for clamp in decision.clamps] == (clamps or ["Bounds"])
    assert decision.unfamiliar == (start_up_s == 900.0)


def test_a_range_of_another_length_is_refused() -> None:
    data = models.model(properties=models.metadata(observation_range={"low": [0.0], "high": [1.0]}))
    with pytest.raises(ArtifactInvalid, match=r"observation_range: .*numbers each"):
        OnnxPolicy.from_bytes(data)


def test_no_file_of_the_operator_is_taken_for_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime alone would read it, `..` included."""
    models.weights().tofile(tmp_path / "secret.bin")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for path in ("secret.bin", "../secret.bin"):
        with pytest.raises(ArtifactInvalid, match="an artifact is one file"):
            OnnxPolicy.from_bytes(models.with_weights_in(path))


def test_every_builtin_and_every_good_model_is_one_file() -> None:
    from controller.policies import artifact_bytes, builtin_names, policy_from_bytes
    from controller.policies.external import refers_to_files

    assert not refers_to_files(model())
    assert [policy_from_bytes(artifact_bytes({"builtin": name})).name for name in builtin_names()]


@given(st.binary(max_size=400), st.integers(0, 2000), st.integers(0, 255))
def test_no_bytes_break_the_search_for_files(noise: bytes, at: int, byte: int) -> None:
    """It says yes, no or ValueError of anything: noise, and a model with one byte changed."""
    from controller.policies.external import refers_to_files

    changed = bytearray(model())
    changed[at % len(changed)] = byte
    for data in (noise, bytes(changed)):
        with contextlib.suppress(ValueError):
            assert refers_to_files(data) in (True, False)


def test_a_policy_that_hangs_later_is_ended_and_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial cannot find a loop that depends on what is observed; the operator's limit does."""
    now_s = [1000.0]
    policy = OnnxPolicy.from_bytes(models.looping_on_negative(2**40))
    policy.limit_time(0.2)
    good, bad = np.zeros((3, FEATURES), np.float32), np.full((3, FEATURES), -99, np.float32)
    assert np.isfinite(policy.act(good)).all()
    assert np.isnan(policy.act(bad)).all()
    assert np.isnan(policy.act(good)).all(), "it rests"
    monkeypatch.setattr("controller.policies.session.time.monotonic", lambda: now_s[0])
    policy._graph._rests_until_s = 1060.0
    assert np.isnan(policy.act(good)).all()
    now_s[0] = 1061.0
    assert np.isfinite(policy.act(good)).all()


def test_a_policy_that_hangs_again_rests_longer() -> None:
    policy = OnnxPolicy.from_bytes(models.looping_on_negative(2**40))
    policy.limit_time(0.1)
    rests = []
    for _ in range(3):
        policy._graph._rests_until_s = 0.0
        policy.act(np.full((1, FEATURES), -99, np.float32))
        rests.append(policy._graph._rest_s)
    assert rests == [120.0, 240.0, 480.0]
    policy._graph._rests_until_s = 0.0
    policy.act(np.zeros((1, FEATURES), np.float32))
    assert policy._graph._rest_s == 60.0


def test_a_policy_that_asks_for_all_memory_is_refused_or_says_nothing() -> None:
    """In a process of its own: the limit is for the whole process, and what it keeps from happening is not
    to happen to the tests."""
    script = """
import resource, numpy as np
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from controller.policies import ArtifactInvalid, OnnxPolicy, limit_memory
from tests.policies import models
limit_memory(64 << 20)
limit_memory(64 << 20)
try:
    OnnxPolicy.from_bytes(models.greedy(100))
except ArtifactInvalid as error:
    print("refused:", "trial run failed" in str(error))
policy = OnnxPolicy.from_bytes(models.greedy(1))
rows = np.zeros((10, models.FEATURES), np.float32)
print(np.isfinite(policy.act(rows)).all(), np.isnan(policy.act(np.tile(rows, (50, 1)))).all())
print(np.isfinite(OnnxPolicy.from_bytes(models.model()).act(rows)).all(), np.isfinite(policy.act(rows)).all())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused:", "True", "True", "True", "True", "True"]
