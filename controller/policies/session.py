"""Running an artifact's graph: opened without trust, tried once, and ended when it takes too long.

`OnnxPolicy` and `PoolsPolicy` are the callers; what a graph's inputs and outputs mean is theirs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from controller.policies.errors import ArtifactInvalid
from controller.policies.external import refers_to_files

TRIAL_SECONDS = 5.0
"""A graph that takes longer for two rows has a loop that a control loop can't wait for."""
LIMITED_ACT_SECONDS = 2.0
"""Longest call of a policy in the operator, where everybody waits for it."""
FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 60.0, 3600.0
"""A policy that took longer says nothing for so long; twice as long each time in a row."""
LIMITED_MEMORY_BYTES = 256 * 1024 * 1024
"""What all policies of the operator may take together, weights included."""

Tensors = Mapping[str, npt.NDArray[np.float32]]
Outputs = list[npt.NDArray[Any]]

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


class Graph:
    """An opened graph with the time that its calls may take. `who`: what messages call it."""

    def __init__(self, session: onnxruntime.InferenceSession, who: str) -> None:
        self._session, self._who = session, who
        self._limit_s: float | None = None
        self._rest_s = FIRST_REST_SECONDS
        self._rests_until_s = 0.0

    def limit_time(self, seconds: float = LIMITED_ACT_SECONDS) -> None:
        """From now on a call that takes longer is ended, and `run` gives nothing for a while."""
        self._limit_s = seconds

    def run(self, outputs: Sequence[str], inputs: Tensors, rows: int) -> Outputs | None:
        """The outputs for `rows` rows of input; None where it failed, was ended, or rests."""
        try:
            if self._limit_s is None:
                return [np.asarray(each) for each in self._session.run(list(outputs), dict(inputs))]
            if time.monotonic() < self._rests_until_s:
                return None
            return self._within(self._limit_s, outputs, inputs)
        except Exception:  # ONNX Runtime's exceptions share no base class
            logger.exception("policy %s failed on %d observations", self._who, rows)
            return None

    def _within(self, seconds: float, outputs: Sequence[str], inputs: Tensors) -> Outputs:
        """One call that is ended after so long; a slow one is followed by a rest, whatever it gave."""
        started_s = time.monotonic()
        try:
            return run_within(self._session, outputs, inputs, seconds)
        finally:
            took_s = time.monotonic() - started_s
            if took_s > seconds:
                logger.error("policy %s took %.1f s; it rests for %g s", self._who, took_s, self._rest_s)
                self._rests_until_s = time.monotonic() + self._rest_s
                self._rest_s = min(2 * self._rest_s, LONGEST_REST_SECONDS)
            else:
                self._rest_s = FIRST_REST_SECONDS


def open_session(data: bytes) -> onnxruntime.InferenceSession:
    """The graph in an ONNX file's bytes. Raises ArtifactInvalid."""
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


def tried(session: onnxruntime.InferenceSession, outputs: Sequence[str], inputs: Tensors) -> Outputs:
    """The outputs of a trial run. Raises ArtifactInvalid where it fails, or takes too long."""
    started_s = time.monotonic()
    try:
        found = run_within(session, outputs, inputs, TRIAL_SECONDS)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ArtifactInvalid(f"a trial run failed: {_first_line(error)}") from error
    if time.monotonic() - started_s > TRIAL_SECONDS:  # a single operator cannot be ended
        raise ArtifactInvalid(f"a trial run failed: it took more than {TRIAL_SECONDS:g} s")
    return found


def run_within(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], inputs: Tensors, seconds: float
) -> Outputs:
    """One call, told to end after so long; it then raises, at its next operator."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    with _terminated_after(options, seconds):
        return [np.asarray(each) for each in session.run(list(outputs), dict(inputs), options)]


def _check_files(data: bytes) -> None:
    try:
        outside = refers_to_files(data)
    except ValueError as error:
        raise ArtifactInvalid(f"ONNX Runtime cannot load it: it is no ONNX file ({error})") from error
    if outside:
        raise ArtifactInvalid("its weights are in other files (external data); an artifact is one file")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


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
