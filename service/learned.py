"""The learned scheduler at work: an ONNX artifact of `train.py --env scheduling`, asked about one job.

It sees what training saw, by the same compiled code (`sim.scheduling.features`); a test holds the choices of
both equal.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from service.errors import ServiceError
from sim.scheduling.features import (
    CLUSTER_FEATURES,
    CLUSTER_SCHEMA,
    SERVER_FEATURES,
    SERVER_SCHEMA,
    observation_size,
    observe,
)
from sim.scheduling.layout import SchedulingArrays
from sim.scheduling.masks import action_masks

OBSERVATION_VERSION = "scheduling-flat/v1"
METADATA_KEY = "rlscaler"
SHIPPED = "scheduling.onnx"
_ROW = np.zeros(1, dtype=np.int64)


def shipped_artifact() -> Path | None:
    """The artifact that comes with the product; None where its folder is not installed."""
    spec = find_spec("training")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "schedulers" / SHIPPED
        if path.is_file():
            return path
    return None


class LearnedScheduler:
    """One artifact. most: servers that its graph has places for. Raises ServiceError for a file that is none.

    Several clusters may ask it, of any number of servers up to `most`.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ServiceError(f"--policy-file: {str(path)!r} is not allowed, must be a file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
            card = json.loads(self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "{}"))
        except Exception as error:  # onnxruntime's own have no common base
            raise ServiceError(f"{path}: is no policy: {error}") from error
        self._check(path, card)
        width = int(self._session.get_inputs()[0].shape[1])
        self.most = (width - CLUSTER_FEATURES) // SERVER_FEATURES
        self._wide = np.zeros((1, width), dtype=np.float32)
        self._masks: dict[int, npt.NDArray[np.bool_]] = {}

    @staticmethod
    def _check(path: Path, card: dict[str, Any]) -> None:
        schema = card.get("observation_schema", {})
        names = [*SERVER_SCHEMA.names, *CLUSTER_SCHEMA.names]
        if schema.get("version") != OBSERVATION_VERSION or schema.get("features") != names:
            raise ServiceError(
                f"{path}: observes {schema.get('version')!r}, or other features than this version's "
                f"schedulers, which observe {OBSERVATION_VERSION!r}"
            )

    def choose(self, arrays: SchedulingArrays) -> tuple[int, npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """For the offered job: the choice (a server 0..S-1, S to hold, S + 1 to reject), the probability of
        each choice float64 `[S + 2]`, and which are allowed, bool `[S + 2]`."""
        servers = arrays.speed.shape[1]
        seen = np.zeros((1, observation_size(servers)), dtype=np.float32)
        observe(_ROW, arrays, *bounds(servers), seen)
        cut = servers * SERVER_FEATURES
        self._wide[:] = 0.0
        self._wide[:, :cut] = seen[:, :cut]
        self._wide[:, self.most * SERVER_FEATURES :] = seen[:, cut:]
        logits = self._session.run(["logits"], {"observation": self._wide})[0][0]
        chosen = np.concatenate([logits[:servers], logits[self.most :]]).astype(np.float64)
        allowed = self._masks.setdefault(servers, np.empty((1, servers + 2), dtype=np.bool_))
        action_masks(arrays, allowed)
        chosen = np.where(allowed[0], chosen, -np.inf)
        weights = np.exp(chosen - chosen.max())
        return int(chosen.argmax()), weights / weights.sum(), allowed[0].copy()


_BOUNDS: dict[int, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = {}


def bounds(servers: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Least and most of each number of an observation of so many servers, as training clips them."""
    if servers not in _BOUNDS:
        low = np.concatenate([np.tile(SERVER_SCHEMA.low, servers), CLUSTER_SCHEMA.low])
        high = np.concatenate([np.tile(SERVER_SCHEMA.high, servers), CLUSTER_SCHEMA.high])
        zeroed = np.minimum(low, 0.0).astype(np.float32), np.maximum(high, 0.0).astype(np.float32)
        _BOUNDS[servers] = zeroed
    return _BOUNDS[servers]
