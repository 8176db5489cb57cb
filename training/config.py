"""What a run is made of: typed settings, read from the presets in `training/configs/*.yaml`.

`train.py` and `evaluate.py` are the callers. A key that does not exist is refused with the nearest ones that
do, so a typo can never silently become a default.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from training.analytic.settings import Analytic
from training.errors import ConfigError
from training.hyperparameters import A2c, Dqn, MaskablePpo, Ppo, RecurrentPpo, Sac
from training.poolsets.settings import Evolution
from training.qlearning.settings import QLearning
from training.tasks import TASKS

PRESETS = Path(__file__).parent / "configs"
ALGORITHMS = (
    "ppo",
    "recurrent-ppo",
    "a2c",
    "dqn",
    "sac",
    "maskable-ppo",
    "qlearning",
    "analytic",
    "evolution",
)
ACTION_KINDS = ("discrete", "anchored", "band", "continuous")
T = typing.TypeVar("T")


@dataclass(frozen=True)
class Network:
    """The actor and the critic: two separate perceptrons on the same normalised observation."""

    actor: tuple[int, ...] = (128, 128)
    """Widths of the actor's hidden layers; these are what the artifact contains."""
    critic: tuple[int, ...] = (128, 128)
    """Widths of the critic's hidden layers."""
    activation: str = "tanh"
    """tanh | relu | silu."""
    log_std: float = 0.0
    """Logarithm of the deviation that numbers of a Box are explored with at the start (PPO and A2C)."""
    normalise: bool = True
    """Standardise observations by a running mean and deviation, frozen into the artifact's graph."""
    normalise_until: int = 2_000_000
    """Steps after which the running statistics no longer move."""


@dataclass(frozen=True)
class Action:
    """What the network says; see `training.actions`. Logarithms are of replicas over load."""

    kind: str = "anchored"
    """discrete: `changes`. band: `lows` and `gaps`. anchored: `anchors`, `margins` and `gaps`. continuous: a
    number each for the band's lower edge in `low_range` and its width in `gap_range`."""
    changes: tuple[float, ...] = (-0.5, -0.25, -0.1, -0.005, 0.0, 0.005, 0.1, 0.25, 0.6, 1.0)
    """Relative changes of the provisioned replicas."""
    lows: tuple[float, ...] = (-0.1, 0.1, 0.2, 0.3, 0.4, 0.55, 0.7, 0.9, 1.2, 1.6, 2.3)
    """Log headroom of the band's lower edge over the load now."""
    anchors: tuple[tuple[str, ...], ...] = (
        ("load_max_60s",),
        ("load_max_300s",),
        ("load_max_60s", "move_q900_1h"),
        ("load_max_300s", "move_q980_1h"),
        ("load_max_300s", "move_q995_1h", "move_q990_1d"),
        ("load_max_900s", "move_q995_1h", "move_q999_1d"),
        ("load_max_3600s", "move_q995_1h", "move_q999_1d"),
        ("load_max_300s", "season_1h"),
        ("load_max_300s", "season_1d"),
    )
    """Loads to be ready for, each the largest of some features (and of the load now)."""
    margins: tuple[float, ...] = (-0.05, 0.03, 0.1, 0.18, 0.28, 0.4, 0.6, 0.9)
    """Log headroom of the band's lower edge over the anchor."""
    gaps: tuple[float, ...] = (0.0, 0.15, 0.5)
    """Width of the band."""
    low_range: tuple[float, float] = (-0.1, 2.5)
    """Log headroom of the continuous band's lower edge over the largest load of the last minute."""
    gap_range: tuple[float, float] = (0.0, 1.0)
    """Width of the continuous band."""
    hold_ticks: int = 1
    """Control ticks for which a choice stands in training, decoded anew at each: exploration that flickers
    from tick to tick shows nothing behind a stabilisation window. When serving, every tick chooses."""


@dataclass(frozen=True)
class Preset:
    """One training run, but for its seed and its folder."""

    name: str = "policy"
    """What the artifact is called in its metadata and in `status.policy.name`."""
    workloads: str = "generated"
    """What the policy is trained on, in words, for the artifact's card."""
    env: str = "autoscale"
    """Which environment: autoscale, pools, scheduling, grid or web."""
    algo: str = "ppo"
    """Which algorithm: ppo, recurrent-ppo, a2c, dqn, sac, maskable-ppo, qlearning, analytic or evolution;
    each environment allows some."""
    timesteps: int = 5_000_000
    """Control steps, summed over environments, in the whole run."""
    num_envs: int = 256
    """Services simulated side by side."""
    clones: int = 1
    """Services that live through the same traffic at the same preference. With more than one, advantages are
    measured against the other clones (see `training.clones`); rollouts must then be whole episodes."""
    rows_every: int = 1
    """Least steps between two rows of metrics.csv, which come after an update: 1 is one after each. A stop by
    Ctrl-C waits for a row."""
    checkpoint_every: int = 1_000_000
    """Steps between checkpoints; the last step always makes one."""
    traces: tuple[str, ...] = ()
    """Recordings to cut episodes from, by their files; none: all traffic is generated."""
    trace_share: float = 1.0
    """Share of the episodes that are cut from `traces`; the others are generated."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Settings of the simulator's environment, by the names of its own configuration."""
    action: Action = field(default_factory=Action)
    """What the network says."""
    network: Network = field(default_factory=Network)
    """The policy's network."""
    ppo: Ppo = field(default_factory=Ppo)
    """Settings of `algo: ppo`."""
    recurrent_ppo: RecurrentPpo = field(default_factory=RecurrentPpo)
    """Settings of `algo: recurrent-ppo`."""
    maskable_ppo: MaskablePpo = field(default_factory=MaskablePpo)
    """Settings of `algo: maskable-ppo`."""
    a2c: A2c = field(default_factory=A2c)
    """Settings of `algo: a2c`."""
    dqn: Dqn = field(default_factory=Dqn)
    """Settings of `algo: dqn`."""
    sac: Sac = field(default_factory=Sac)
    """Settings of `algo: sac`."""
    qlearning: QLearning = field(default_factory=QLearning)
    """Settings of `algo: qlearning`."""
    analytic: Analytic = field(default_factory=Analytic)
    """Settings of `algo: analytic`."""
    evolution: Evolution = field(default_factory=Evolution)
    """Settings of `algo: evolution`."""

    def __post_init__(self) -> None:
        """Refuse values that would fail later with a worse message."""
        _one_of("env", self.env, TASKS)
        _one_of("algo", self.algo, ALGORITHMS)
        _one_of("action.kind", self.action.kind, ACTION_KINDS)
        _one_of("network.activation", self.network.activation, ("tanh", "relu", "silu"))
        for name in ("timesteps", "num_envs", "clones", "rows_every", "checkpoint_every"):
            _positive(name, getattr(self, name))
        if not 0 < self.trace_share <= 1:
            raise ConfigError(f"trace_share: {self.trace_share} is not allowed; above 0, up to 1 is")
        if self.num_envs % self.clones:
            raise ConfigError(f"clones: {self.clones} does not divide num_envs = {self.num_envs}")
        self._check_batches()

    @property
    def hyperparameters(self) -> Any:
        """The section of this preset's algorithm."""
        return getattr(self, self.algo.replace("-", "_"))

    def _check_batches(self) -> None:
        section = self.hyperparameters
        if not isinstance(section, Ppo):
            return
        rollout = self.num_envs * section.n_steps
        if rollout % min(section.batch_size, rollout):
            name = self.algo.replace("-", "_")
            raise ConfigError(
                f"{name}.batch_size: {section.batch_size} does not divide "
                f"num_envs * {name}.n_steps = {rollout}"
            )


def preset_names() -> list[str]:
    """The presets that ship with the project, by name."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_preset(name: str, **overrides: Any) -> Preset:
    """Read a preset by its name or by the path of a YAML file; `overrides` that are not None win.

    A setting of a section is overridden by its dotted name, such as `**{"action.kind": "band"}`.

    Raises ConfigError for an unknown preset, key or value.
    """
    path = PRESETS / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise ConfigError(f"--preset: {name!r} is not one of {', '.join(preset_names())}, nor a YAML file")
    return read_preset(path, **overrides)


def read_preset(path: Path, **overrides: Any) -> Preset:
    """Read a preset from a YAML file; see `load_preset`."""
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a mapping of settings is expected, not {type(content).__name__}")
    content = _overridden(content, overrides)
    try:
        return from_mapping(Preset, content, "")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _overridden(content: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The mapping with what is not None in its place; `action.kind` is a key of the mapping `action`."""
    result = dict(content)
    for name, value in overrides.items():
        if value is None:
            continue
        section, _, key = name.rpartition(".")
        if section and isinstance(result.get(section, {}), dict):
            result[section] = {**result.get(section, {}), key: value}
        else:
            result[name] = value
    return result


def dump_preset(preset: Preset) -> str:
    """The preset as YAML that `load_preset` reads back to an equal one."""
    return yaml.safe_dump(_plain(dataclasses.asdict(preset)), sort_keys=False)


def from_mapping(kind: type[T], content: dict[str, Any], where: str) -> T:
    """Build a settings dataclass of another package from a mapping, with the same checks as a preset."""
    return typing.cast(T, _build(kind, content, where))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _build(kind: Any, content: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    known = [item.name for item in dataclasses.fields(kind) if item.init]
    for key in content:
        if key not in known:
            raise ConfigError(_unknown(f"{where}{key}", str(key), known))
    values = {key: _convert(hints[key], value, f"{where}{key}") for key, value in content.items()}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where or kind.__name__}: {error}") from error


def _unknown(path: str, key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(sorted(known))}"
    return f"unknown key {path!r}; {hint}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: a mapping is expected, not {value!r}")
        return _build(hint, value, f"{where}.")
    origin = typing.get_origin(hint)
    if origin is tuple:
        return _convert_tuple(hint, value, where)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(hint, value, where)
    return _convert_scalar(hint, value, where)


def _convert_union(hint: Any, value: Any, where: str) -> Any:
    choices = typing.get_args(hint)
    if value is None and type(None) in choices:
        return None
    return _convert(next(choice for choice in choices if choice is not type(None)), value, where)


def _convert_tuple(hint: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}: a list is expected, not {value!r}")
    args = typing.get_args(hint)
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(value)
    if len(args) != len(value):
        raise ConfigError(f"{where}: {len(args)} values are expected, not {value!r}")
    return tuple(
        _convert(arg, item, f"{where}[{i}]") for i, (arg, item) in enumerate(zip(args, value, strict=True))
    )


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        return _number(value, where)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint in (int, str, bool) and (
        not isinstance(value, hint) or (hint is int and isinstance(value, bool))
    ):
        raise ConfigError(f"{where}: {hint.__name__} is expected, not {value!r}")
    return value


def _number(text: str, where: str) -> float:
    """YAML 1.1 reads 3e-4 as a string; people mean the number."""
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{where}: a number is expected, not {text!r}") from None


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name}: {value!r} is not one of {', '.join(allowed)}")


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name}: {value} is not allowed; at least 1 is")
