"""How the network acts: it chooses, and each choice is a row of one of core's action schemas.

`Head.decode` does it for the environment, `Head.graph` the same inside the artifact's graph, so training and
serving cannot disagree (`training.artifact` compares the two before it writes anything).
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from controller.core import ACTION_SCHEMAS, OBSERVATION_SCHEMA
from training.config import Action
from training.errors import ConfigError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.integer]


class Head(Protocol):
    """`schema`: a name of core's ACTION_SCHEMAS."""

    schema: str

    @property
    def space(self) -> spaces.Space[Any]:
        """What the algorithm chooses in."""
        ...

    @property
    def sizes(self) -> list[int]:
        """How many logits belong to each choice, in order; none where the space is a Box."""
        ...

    def decode(self, choices: IntArray, observations: FloatArray) -> FloatArray:
        """Choices `[N]` or `[N, D]` made at observations `[N, F]` to actions `[N, A]`."""
        ...

    def graph(self, logits: torch.Tensor, observations: torch.Tensor) -> torch.Tensor:
        """Logits `[N, L]` at observations `[N, F]` to the actions `[N, A]` of the likeliest choices; a Box's
        numbers `[N, D]` instead of logits."""
        ...


class TableHead:
    """Each choice is a row of a table `[K, A]`, whatever the observation."""

    def __init__(self, schema: str, table: FloatArray) -> None:
        if len(table) < 2:
            raise ConfigError(f"action: {len(table)} choices leave nothing to learn; give at least 2")
        self.schema = schema
        self.table = table
        self._space = spaces.Discrete(len(table))

    @property
    def space(self) -> spaces.Space[Any]:
        """One of K."""
        return self._space

    @property
    def sizes(self) -> list[int]:
        """K."""
        return [len(self.table)]

    def decode(self, choices: IntArray, observations: FloatArray) -> FloatArray:
        """Rows of the table."""
        return self.table[np.asarray(choices).reshape(-1)]

    def graph(self, logits: torch.Tensor, observations: torch.Tensor) -> torch.Tensor:
        """Rows of the table."""
        return torch.as_tensor(self.table)[logits.argmax(dim=1)]


class AnchoredHead:
    """Three choices: a load to be ready for, a margin over it, and how much more is left alone.

    An anchor is the largest of some features that are logarithms of loads over the load now: recent maxima,
    quantiles of the service's own rises, its load an hour or a day ago. The action is a hold band over that.
    """

    schema = "hold-band/v1"

    def __init__(self, action: Action) -> None:
        names = OBSERVATION_SCHEMA.names
        unknown = sorted({name for anchor in action.anchors for name in anchor} - set(names))
        if unknown or not all(action.anchors):
            raise ConfigError(
                f"action.anchors: {unknown or action.anchors} is not allowed; features of load are"
            )
        self._columns = [[names.index(name) for name in anchor] for anchor in action.anchors]
        self._margins = np.array(action.margins, dtype=np.float32)
        self._gaps = np.array(action.gaps, dtype=np.float32)
        self._sizes = [len(action.anchors), len(action.margins), len(action.gaps)]
        if min(self._sizes) < 1:
            raise ConfigError("action: anchors, margins and gaps need at least one value each")
        self._space = spaces.MultiDiscrete(self._sizes)

    @property
    def space(self) -> spaces.Space[Any]:
        """Which anchor, which margin, which gap."""
        return self._space

    @property
    def sizes(self) -> list[int]:
        """Numbers of anchors, margins and gaps."""
        return self._sizes

    def decode(self, choices: IntArray, observations: FloatArray) -> FloatArray:
        """Bands `[N, 2]`."""
        picked = np.asarray(choices).reshape(-1, 3)
        loads = np.stack([observations[:, columns].max(axis=1) for columns in self._columns], axis=1)
        anchor = np.maximum(np.take_along_axis(loads, picked[:, :1], axis=1)[:, 0], np.float32(0.0))
        low = anchor + self._margins[picked[:, 1]]
        return np.stack([low, low + self._gaps[picked[:, 2]]], axis=1)

    def graph(self, logits: torch.Tensor, observations: torch.Tensor) -> torch.Tensor:
        """Bands `[N, 2]`."""
        anchors, margins, gaps = torch.split(logits, self._sizes, dim=1)
        loads = torch.stack([observations[:, columns].amax(dim=1) for columns in self._columns], dim=1)
        anchor = torch.gather(loads, 1, anchors.argmax(dim=1, keepdim=True))[:, 0].clamp(min=0.0)
        low = anchor + torch.as_tensor(self._margins)[margins.argmax(dim=1)]
        return torch.stack([low, low + torch.as_tensor(self._gaps)[gaps.argmax(dim=1)]], dim=1)


class ContinuousHead:
    """Two numbers in -1..1: the band's lower edge over the largest load of the last minute, and its width."""

    schema = "hold-band/v1"
    sizes: ClassVar[list[int]] = []

    def __init__(self, action: Action) -> None:
        for name in ("low_range", "gap_range"):
            low, high = getattr(action, name)
            if not low < high:
                raise ConfigError(f"action.{name}: {[low, high]} is not allowed; two ascending numbers are")
        if action.gap_range[0] < 0:
            raise ConfigError(f"action.gap_range: {list(action.gap_range)} is not allowed; 0 or more is")
        self._base = OBSERVATION_SCHEMA.names.index("load_max_60s")
        self._first = np.array([action.low_range[0], action.gap_range[0]], dtype=np.float32)
        self._last = np.array([action.low_range[1], action.gap_range[1]], dtype=np.float32)
        self._space = spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)

    @property
    def space(self) -> spaces.Space[Any]:
        """Lower edge and width."""
        return self._space

    def decode(self, choices: npt.NDArray[Any], observations: FloatArray) -> FloatArray:
        """Bands `[N, 2]`."""
        share = (np.clip(np.asarray(choices, dtype=np.float32), -1.0, 1.0) + np.float32(1.0)) * np.float32(
            0.5
        )
        numbers = self._first + (self._last - self._first) * share
        low = np.maximum(observations[:, self._base], np.float32(0.0)) + numbers[:, 0]
        return np.stack([low, low + numbers[:, 1]], axis=1)

    def graph(self, logits: torch.Tensor, observations: torch.Tensor) -> torch.Tensor:
        """Bands `[N, 2]`."""
        first, last = torch.as_tensor(self._first), torch.as_tensor(self._last)
        numbers = first + (last - first) * ((logits.clamp(-1.0, 1.0) + 1.0) * 0.5)
        low = observations[:, self._base].clamp(min=0.0) + numbers[:, 0]
        return torch.stack([low, low + numbers[:, 1]], dim=1)


def make_head(action: Action) -> Head:
    """The head of a preset; raises ConfigError where its numbers do not fit its kind."""
    if action.kind == "anchored":
        return AnchoredHead(action)
    if action.kind == "continuous":
        return ContinuousHead(action)
    if action.kind == "discrete":
        return _table("relative-change/v1", [(change,) for change in action.changes])
    return _table("hold-band/v1", [(low, low + gap) for low in action.lows for gap in action.gaps])


def _table(schema: str, rows: list[tuple[float, ...]]) -> TableHead:
    return TableHead(schema, np.array(rows, dtype=np.float32).reshape(-1, ACTION_SCHEMAS[schema].size))


class HeadVecEnv(VecEnvWrapper):
    """The environment as the algorithm sees it: choices pass through a Head.

    A choice stands for `hold_ticks` control ticks and earns the mean of their rewards. Episodes of the inner
    environment must end on such a boundary, all at once or not at all within it.
    """

    def __init__(self, venv: VecEnv, head: Head, hold_ticks: int = 1) -> None:
        super().__init__(venv, action_space=head.space)
        self.head = head
        self._hold_ticks = hold_ticks
        self._choices = np.zeros((venv.num_envs, 1), dtype=np.int64)
        self._seen = np.zeros((venv.num_envs, OBSERVATION_SCHEMA.size), dtype=np.float32)

    def reset(self) -> VecEnvObs:
        """Reset every service."""
        self._seen = np.asarray(self.venv.reset(), dtype=np.float32)
        return self._seen

    def step_async(self, actions: IntArray) -> None:
        """Remember the choices."""
        self._choices = np.asarray(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Act on the choices for some ticks."""
        total = np.zeros(self.num_envs, dtype=np.float32)
        for _ in range(self._hold_ticks):
            self.venv.step_async(self.head.decode(self._choices, self._seen))
            observations, rewards, dones, infos = self.venv.step_wait()
            self._seen = np.asarray(observations, dtype=np.float32)
            total += rewards
            if dones.any():
                break
        total /= self._hold_ticks
        return self._seen, total, dones, infos
