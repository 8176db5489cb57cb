"""A trained grid policy, as `train.py --env grid` exports it, ready to be played."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from sim.grid.batch import GridBatch
from training.artifact import read_metadata
from training.errors import ExportError
from training.tasks.grid import schemas_of


class GridArtifact:
    """An ONNX policy; `dispatchables` and `storages` are the slots that it was trained with.

    Raises ExportError for a file that is not a grid policy, or of another schema.
    """

    def __init__(self, path: Path) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ExportError(f"{path}: {error.strerror}") from None
        content = read_metadata(data)
        observed = content.get("observation_schema", {})
        slots = observed.get("dispatchables"), observed.get("storages")
        if None in slots:
            raise ExportError(
                f"{path}: its observation schema {observed.get('version')!r} is not a grid's: train one with "
                "python training/train.py --env grid"
            )
        self.dispatchables, self.storages = int(slots[0]), int(slots[1])
        wanted = schemas_of(self.dispatchables, self.storages)["observation"]
        if observed.get("digest") != wanted["digest"]:
            raise ExportError(
                f"{path}: was trained with observation {observed.get('digest')}, today's is "
                f"{wanted['digest']}: train it again"
            )
        self.metadata = content
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def __call__(self, batch: GridBatch) -> npt.NDArray[np.floating]:
        """Actions `[N, D + S]`."""
        (actions,) = self._session.run(["action"], {"observation": batch.observations})
        return np.asarray(actions)
