"""OnnxPolicy: a trained network behind core's Policy, run by ONNX Runtime in one call for all services due.

All that can be wrong with an artifact is found when it is loaded; from then on `act` gives numbers or NaN.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from controller.core.action import ACTION_SCHEMAS
from controller.core.observation import OBSERVATION_SCHEMA
from controller.core.policy import ActionPolicy
from controller.core.samples import BoolArray, FloatArray
from controller.core.view import View
from controller.policies.artifact import ArtifactMetadata, check_schemas, parse_metadata
from controller.policies.errors import (
    ArtifactDigestMismatch,
    ArtifactInvalid,
    ArtifactNotFound,
    ArtifactTooLarge,
)
from controller.policies.external import refers_to_files

INPUT, OUTPUT = "observation", "action"
MAX_ARTIFACT_BYTES = 32 * 1024 * 1024
TRIAL_SECONDS = 5.0
"""A graph that takes longer for two rows has a loop that a control loop can't wait for."""

LIMITED_ACT_SECONDS = 2.0
"""Longest call of a policy in the operator, where everybody waits for it."""
FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 60.0, 3600.0
"""A policy that took longer says nothing for so long; twice as long each time in a row."""

LIMITED_MEMORY_BYTES = 256 * 1024 * 1024
"""What all policies of the operator may take together, weights included."""

RANGE_MARGIN = 0.1
"""How far outside what training saw a feature may be, as a share of its schema's range."""

logger = logging.getLogger(__name__)

_memory_is_limited = False


def limit_memory(most_bytes: int = LIMITED_MEMORY_BYTES) -> None:
    """From now on policies that are loaded share so much memory; once in a process, later calls do nothing.

    An operator of a few MB of weights has no use for more, and a graph that asks for it, by a constant of
    ten billion zeros say, would have the whole process killed.
    """
    global _memory_is_limited
    if _memory_is_limited:
        return
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    where = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    as_requested = 1
    arena = onnxruntime.OrtArenaCfg(most_bytes, as_requested, -1, -1)
    onnxruntime.create_and_register_allocator(where, arena)
    _memory_is_limited = True


class OnnxPolicy(ActionPolicy):
    """An artifact as a policy. name, digest and schema go into `status.policy`."""

    def __init__(
        self, session: onnxruntime.InferenceSession, metadata: ArtifactMetadata, digest: str
    ) -> None:
        """Use `from_bytes` or `from_file`, which check what is given here."""
        self.name = metadata.name
        self.digest = digest
        self.schema = metadata.observation_schema.version
        self.action_schema = metadata.action_schema
        self.metadata = metadata
        self._actions = ACTION_SCHEMAS[metadata.action_schema].size
        self._session = session
        self._familiar = _familiar_range(metadata)
        self._limit_s: float | None = None
        self._rest_s = FIRST_REST_SECONDS
        self._rests_until_s = 0.0

    @classmethod
    def from_bytes(cls, data: bytes, sha256: str | None = None) -> OnnxPolicy:
        """The policy in an ONNX file's bytes; sha256: hex digest that it must have. Raises ArtifactError."""
        check_size(len(data))
        digest = check_digest(data, sha256)
        session = _open(data)
        metadata = parse_metadata(dict(session.get_modelmeta().custom_metadata_map))
        check_schemas(metadata)
        _check_graph(session, ACTION_SCHEMAS[metadata.action_schema].size)
        return cls(session, metadata, digest)

    @classmethod
    def from_file(cls, path: str | Path, sha256: str | None = None) -> OnnxPolicy:
        """The policy in an ONNX file. Raises ArtifactError."""
        return cls.from_bytes(read_artifact(Path(path)), sha256)

    def limit_time(self, seconds: float = LIMITED_ACT_SECONDS) -> None:
        """From now on a call that takes longer is ended, and the policy says nothing for a while."""
        self._limit_s = seconds

    def act(self, features: FloatArray) -> FloatArray:
        """Actions float32 `[N, A]` for features `[N, F]`; NaN rows where the network gave no number."""
        rows = np.ascontiguousarray(features, dtype=np.float32)
        if len(rows) == 0:
            return np.zeros((0, self._actions), dtype=np.float32)
        nothing = np.full((len(rows), self._actions), np.nan, dtype=np.float32)
        try:
            if self._limit_s is None:
                action = np.asarray(self._session.run([OUTPUT], {INPUT: rows})[0])
            elif time.monotonic() < self._rests_until_s:
                return nothing
            else:
                action = self._within(self._limit_s, rows)
        except Exception:  # ONNX Runtime's exceptions share no base class
            logger.exception("policy %s (%s) failed on %d observations", self.name, self.digest, len(rows))
            return nothing
        if action.shape != (len(rows), self._actions):
            logger.error("policy %s gave shape %s for %d observations", self.name, action.shape, len(rows))
            return nothing
        return np.where(np.isfinite(action).all(axis=1, keepdims=True), action, np.float32(np.nan))

    def _within(self, seconds: float, rows: FloatArray) -> FloatArray:
        """One call that is ended after so long; a slow one is followed by a rest, whatever it gave."""
        started_s = time.monotonic()
        try:
            return _run(self._session, rows, seconds)
        finally:
            took_s = time.monotonic() - started_s
            if took_s > seconds:
                logger.error("policy %s took %.1f s; it rests for %g s", self.name, took_s, self._rest_s)
                self._rests_until_s = time.monotonic() + self._rest_s
                self._rest_s = min(2 * self._rest_s, LONGEST_REST_SECONDS)
            else:
                self._rest_s = FIRST_REST_SECONDS

    def unfamiliar(self, view: View) -> BoolArray:
        """Services `[N]` with a known feature outside of what training saw, or that is no number at all; the
        guard then takes the HPA's formula as the lower bound.

        An artifact that states no range knows everything.
        """
        if self._familiar is None:
            return np.zeros(len(view), dtype=bool)
        low, high = self._familiar
        # written so that NaN is outside
        inside = (view.features >= low) & (view.features <= high)
        return np.asarray((~inside & view.valid).any(axis=1))


def read_artifact(path: Path) -> bytes:
    """The bytes of an artifact's file, not more than are allowed. Raises ArtifactError."""
    try:
        if not path.is_file():
            raise ArtifactNotFound(f"{path}: no such file")
        check_size(path.stat().st_size)
        with path.open("rb") as file:
            return file.read(MAX_ARTIFACT_BYTES + 1)
    except OSError as error:
        raise ArtifactNotFound(f"{path} cannot be read: {error.strerror}") from error


def _familiar_range(metadata: ArtifactMetadata) -> tuple[FloatArray, FloatArray] | None:
    seen = metadata.observation_range
    if seen is None:
        return None
    margin = RANGE_MARGIN * (OBSERVATION_SCHEMA.high - OBSERVATION_SCHEMA.low)
    low = np.asarray(seen.low, dtype=np.float32) - margin
    return low, np.asarray(seen.high, dtype=np.float32) + margin


def check_size(size: int) -> None:
    """Raises ArtifactInvalid for nothing, ArtifactTooLarge for too much."""
    if size == 0:
        raise ArtifactInvalid("the artifact has 0 bytes")
    if size > MAX_ARTIFACT_BYTES:
        limit = MAX_ARTIFACT_BYTES // 1024**2
        raise ArtifactTooLarge(f"the artifact has {size} bytes; {limit} MiB are allowed")


def check_digest(data: bytes, sha256: str | None) -> str:
    """`sha256:<hex>` of `data`. Raises ArtifactDigestMismatch if another (hex, prefix optional) is wanted."""
    actual = hashlib.sha256(data).hexdigest()
    if sha256 and sha256.lower().removeprefix("sha256:") != actual:
        raise ArtifactDigestMismatch(f"the artifact's SHA-256 is {actual}, not {sha256} as asked for")
    return f"sha256:{actual}"


def _open(data: bytes) -> onnxruntime.InferenceSession:
    _check_files(data)
    options = onnxruntime.SessionOptions()
    if _memory_is_limited:
        options.add_session_config_entry("session.use_env_allocators", "1")
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ArtifactInvalid(f"ONNX Runtime cannot load it: {_first_line(error)}") from error


def _check_files(data: bytes) -> None:
    try:
        outside = refers_to_files(data)
    except ValueError as error:
        raise ArtifactInvalid(f"ONNX Runtime cannot load it: it is no ONNX file ({error})") from error
    if outside:
        raise ArtifactInvalid("its weights are in other files (external data); an artifact is one file")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _check_graph(session: onnxruntime.InferenceSession, actions: int) -> None:
    inputs = {node.name: node for node in session.get_inputs()}
    if list(inputs) != [INPUT]:
        raise ArtifactInvalid(f"inputs {sorted(inputs)} are not allowed; exactly {INPUT!r}")
    if OUTPUT not in [node.name for node in session.get_outputs()]:
        raise ArtifactInvalid(f"there is no output {OUTPUT!r}")
    _check_input(inputs[INPUT])
    _check_trial(session, actions)


def _check_input(node: Any) -> None:
    if node.type != "tensor(float)":
        raise ArtifactInvalid(f"input {INPUT!r} is {node.type}; tensor(float) is needed")
    shape = node.shape
    if len(shape) != 2 or shape[1] not in (OBSERVATION_SCHEMA.size, None):
        raise ArtifactInvalid(f"input {INPUT!r} has shape {shape}; [N, {OBSERVATION_SCHEMA.size}] is needed")
    if isinstance(shape[0], int):
        raise ArtifactInvalid(f"input {INPUT!r} takes {shape[0]} rows only; the number of rows must be open")


def _check_trial(session: onnxruntime.InferenceSession, actions: int) -> None:
    """Run it: shapes may be undeclared, operators may fail, and only a trial shows randomness."""
    middle = (OBSERVATION_SCHEMA.low + OBSERVATION_SCHEMA.high) / 2
    rows = np.stack([middle, np.zeros_like(middle)]).astype(np.float32)
    first, second = (_trial(session, rows) for _ in range(2))
    if first.shape != (2, actions) or first.dtype != np.float32:
        found = f"{first.dtype} {list(first.shape)}"
        raise ArtifactInvalid(f"output {OUTPUT!r} for 2 rows is {found}; float32 [2, {actions}] is needed")
    if not np.array_equal(first, second, equal_nan=True):
        raise ArtifactInvalid("it is not deterministic: equal observations gave different actions")


def _trial(session: onnxruntime.InferenceSession, rows: FloatArray) -> FloatArray:
    started_s = time.monotonic()
    try:
        action = _run(session, rows, TRIAL_SECONDS)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ArtifactInvalid(f"a trial run failed: {_first_line(error)}") from error
    if time.monotonic() - started_s > TRIAL_SECONDS:  # a single operator cannot be ended
        raise ArtifactInvalid(f"a trial run failed: it took more than {TRIAL_SECONDS:g} s")
    return action


def _run(session: onnxruntime.InferenceSession, rows: FloatArray, seconds: float) -> FloatArray:
    """One call, told to end after so long; it then raises, at its next operator."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    with _terminated_after(options, seconds):
        return np.asarray(session.run([OUTPUT], {INPUT: rows}, options)[0])


@contextmanager
def _terminated_after(options: onnxruntime.RunOptions, seconds: float) -> Iterator[None]:
    def terminate() -> None:
        options.terminate = True

    timer = threading.Timer(seconds, terminate)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
