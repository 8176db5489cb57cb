"""What our environments have in common: a *batch* of N independent worlds, and its faces for agents.

An environment is a batch (`Batch`: one pass over N worlds, usually compiled) and thin subclasses of the
faces: `BatchEnv` (Gymnasium's `Env`, one world), `BatchVectorEnv` (Gymnasium's `VectorEnv`) and, apart, so
that this needs no Stable-Baselines3, `sim.envs.sb3.BatchVecEnv`. The faces keep to their libraries'
conventions: seeding, resets inside a step, last observations, summaries, checks of actions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from controller.core import Feature

FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.integer]
FRAMES = 240
"""Steps that a lone environment remembers for its pictures."""


@dataclass(frozen=True, slots=True)
class BatchStep:
    """One step of N worlds. `observations` follow the reset where an episode ended; `final` then holds, for
    those rows in order, the observations before it. `terms` and `rewards` are float `[N]`, `episodes`
    summaries. `truncated`, `terminated`: bool `[N]`, episodes cut, and those that came to an end of their own
    (None: none ever does)."""

    observations: FloatArray
    rewards: FloatArray
    truncated: BoolArray
    terms: Mapping[str, FloatArray]
    final: FloatArray
    episodes: list[dict[str, float]]
    terminated: BoolArray | None = None

    @property
    def ended(self) -> BoolArray:
        """Rows whose episode is over, bool `[N]`."""
        return self.truncated if self.terminated is None else self.truncated | self.terminated


class Batch(Protocol):
    """N independent worlds; world i, seeded `seed + i`, lives as it would in a batch of its own.

    Arrays that `reset` and `step` return are the caller's. Made with `autoreset=False` (by `BatchEnv`),
    finished episodes stay as they are; otherwise they begin anew in the same step. A batch whose actions can
    be impossible also has `action_masks()`: bool `[N, actions]`, what is allowed now.
    """

    num_envs: int

    def seed(self, seed: int) -> None:
        """New lives; the next `reset` starts all over, as a batch made with this seed would."""
        ...

    def reset(self) -> FloatArray:
        """New episodes everywhere; observations float32 `[N, F]`."""
        ...

    def step(self, choices: Any, /) -> BatchStep:
        """Act and let time pass. A summary has at least `return` and `steps`."""
        ...

    def situation(self) -> Mapping[str, FloatArray]:
        """The last step in plain numbers, float `[N]` or `[N, ...]` each, before any reset: for `info`."""
        ...


MakeBatch = Callable[[int], Batch]
"""A batch for a seed."""


class BatchEnv(gymnasium.Env[FloatArray, Any]):
    """One world of a batch as Gymnasium's `Env`. `info` has the step's terms, `situation()`, and at an
    episode's end `summary`.

    make: a batch of one, with `autoreset=False`. Subclasses say how to draw: `frame_of`, `draw_ansi`,
    `draw_rgb`.
    """

    metadata = {"render_modes": ["rgb_array", "ansi"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        make: MakeBatch,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode: {render_mode!r} is not one of {self.metadata['render_modes']}")
        self.render_mode = render_mode
        self.observation_space, self.action_space = observation_space, action_space
        self.batch: Any = None
        self._make = make
        self._frames: deque[Any] = deque(maxlen=FRAMES)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Draw a new episode; the first reset without a seed takes a random one."""
        super().reset(seed=seed)
        if self.batch is None:
            self.batch = self._make(seed if seed is not None else int(self.np_random.integers(2**31)))
        elif seed is not None:
            self.batch.seed(seed)
        self._frames.clear()
        return self.batch.reset()[0], {}

    def step(self, action: Any) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """One step; raises ResetNeeded before the first reset, ValueError for an impossible action."""
        batch = self.running()
        if not self.accepts(action):
            raise ValueError(f"action: {action!r} is not in {self.action_space}")
        result = batch.step(np.asarray(action)[None])
        terminated = result.terminated is not None and bool(result.terminated[0])
        ended = bool(result.ended[0])
        info: dict[str, Any] = {name: float(values[0]) for name, values in result.terms.items()}
        for name, values in batch.situation().items():
            info[name] = float(values[0]) if values.ndim == 1 else values[0]
        if ended:
            info["summary"] = result.episodes[0]
        self.remember(info, action)
        observation = result.final[0] if ended else result.observations[0]
        return observation, float(result.rewards[0]), terminated, bool(result.truncated[0]), info

    def running(self) -> Any:
        """The batch, which there is from the first reset on."""
        if self.batch is None:
            raise gymnasium.error.ResetNeeded("reset() comes before step()")
        return self.batch

    def accepts(self, action: Any) -> bool:
        """Whether it is in the action space."""
        return self.action_space.contains(action)

    def remember(self, info: dict[str, Any], action: Any) -> None:
        """Keep a step for the pictures, if there are to be any."""
        if self.render_mode is not None:
            self._frames.append(self.frame_of(info, action))

    def render(self) -> Any:
        """The last steps as an image `[H, W, 3]` uint8, or as lines of text; None without a render mode."""
        if self.render_mode is None or self.batch is None:
            return None
        draw = self.draw_rgb if self.render_mode == "rgb_array" else self.draw_ansi
        return draw(list(self._frames))

    def frame_of(self, info: dict[str, Any], action: Any) -> Any:
        """What a picture needs of a step, from its `info` and the action."""
        raise NotImplementedError

    def draw_ansi(self, frames: list[Any]) -> str:
        """These steps as lines of text."""
        raise NotImplementedError

    def draw_rgb(self, frames: list[Any]) -> npt.NDArray[np.uint8]:
        """These steps as an image, uint8 `[H, W, 3]`."""
        raise NotImplementedError


class BatchVectorEnv(gymnasium.vector.VectorEnv[FloatArray, Any, FloatArray]):
    """N worlds in one batch; world i seeded with `seed + i` lives as a lone one would.

    Autoreset mode SAME_STEP: at an episode's end the observation is the next episode's first, the last one
    of the ended episode is `info["final_obs"]`, its summary `info["final_info"]["summary"]`. make: a batch of
    `num_envs`.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        make: MakeBatch,
        num_envs: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
    ) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.batch: Any = None
        self._make = make

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """New episodes everywhere; `seed` is one number (world i gets seed + i)."""
        if isinstance(seed, list):
            raise ValueError(f"seed: a list ({seed}) is not allowed, give one number; world i gets seed + i")
        if self.batch is None:
            self.batch = self._make(
                seed if seed is not None else int(np.random.default_rng().integers(2**31))
            )
        elif seed is not None:
            self.batch.seed(seed)
        return self.batch.reset(), {}

    def step(  # type: ignore[override]
        self, actions: Any
    ) -> tuple[FloatArray, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """One step of every world."""
        if self.batch is None:
            raise gymnasium.error.ResetNeeded("reset() comes before step()")
        result: BatchStep = self.batch.step(actions)
        info: dict[str, Any] = dict(result.terms)
        done = np.flatnonzero(result.ended)
        if len(done):
            info |= self._final(result, done)
        terminated = result.terminated
        if terminated is None:
            terminated = np.zeros(self.num_envs, dtype=np.bool_)
        return result.observations, result.rewards, terminated, result.truncated, info

    def _final(self, result: BatchStep, done: IntArray) -> dict[str, Any]:
        """The ended episodes' last observations and summaries, as Gymnasium lays them out."""
        observations, summaries = (np.full(self.num_envs, None, dtype=object) for _ in range(2))
        for place, row in enumerate(done):
            observations[row], summaries[row] = result.final[place], result.episodes[place]
        return {
            "final_obs": observations,
            "_final_obs": result.ended.copy(),
            "final_info": {"summary": summaries, "_summary": result.ended.copy()},
            "_final_info": result.ended.copy(),
        }


def feature_table(features: Iterable[Feature]) -> str:
    """Markdown rows of an observation for a class's docstring, indented as that is; limits are the Box's,
    which hold 0 (unknown) too."""
    rows = ["| # | name | low | high | unit | meaning |", "|---|---|---|---|---|---|"]
    for index, one in enumerate(features):
        limits = f"{min(one.low, 0):g} | {max(one.high, 0):g}"
        rows.append(f"| {index} | {one.name} | {limits} | {one.unit} | {one.description} |")
    return "\n    ".join(rows)


def filled_in(text: str | None, values: Mapping[str, str]) -> str:
    """A docstring with `{name}` replaced by what the schemas say, so that it cannot say something else."""
    written = text or ""
    for name, value in values.items():
        written = written.replace("{" + name + "}", value)
    return written
