"""What a grid is made of: checked, immutable descriptions. `sim.grid.files` reads and writes them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import ParameterError, require

FloatArray = npt.NDArray[np.floating[Any]]
KINDS = ("solar", "wind")
HOUR_S = 3600
_MOST = 1e12


@dataclass(frozen=True)
class Dispatchable:
    """A source that runs as it is told: a diesel generator, a gas engine, a fuel cell."""

    name: str
    max_kw: float
    cost_per_kwh: float
    """Fuel and running, in the grid's currency."""
    min_kw: float = 0.0
    """Least level; it is never switched off below that."""
    ramp_kw_per_h: float | None = None
    """Largest change of its level in an hour; None: any."""
    carbon_kg_per_kwh: float = 0.0

    def __post_init__(self) -> None:
        _numbers(self)
        require(self.min_kw <= self.max_kw, "min_kw", self.min_kw, f"at most max_kw = {self.max_kw:g}")


@dataclass(frozen=True)
class Renewable:
    """A source that the weather runs."""

    name: str
    kind: str
    """solar or wind."""
    peak_kw: float

    def __post_init__(self) -> None:
        require(self.kind in KINDS, "kind", self.kind, f"one of {', '.join(KINDS)}")
        _numbers(self)


@dataclass(frozen=True)
class Storage:
    """A battery, or whatever takes energy and gives some of it back."""

    name: str
    energy_kwh: float
    """Usable capacity."""
    charge_kw: float
    """Most power that it takes from the bus."""
    discharge_kw: float
    """Most power that it gives to the bus."""
    charge_efficiency: float = 0.95
    discharge_efficiency: float = 0.95
    self_discharge_per_h: float = 0.0
    """Share of the stored energy that is lost in an hour."""
    initial: float = 0.5
    """Share of its capacity that is full at first."""
    wear_per_kwh: float = 0.0
    """Cost of each kWh discharged."""

    def __post_init__(self) -> None:
        _numbers(self)
        for name in ("charge_efficiency", "discharge_efficiency"):
            value = getattr(self, name)
            require(0.0 < value <= 1.0, name, value, "above 0 and at most 1")
        require(self.energy_kwh > 0, "energy_kwh", self.energy_kwh, "above 0")
        require(self.self_discharge_per_h < 1.0, "self_discharge_per_h", self.self_discharge_per_h, "below 1")
        require(self.initial <= 1.0, "initial", self.initial, "in 0..1")


@dataclass(frozen=True)
class Consumer:
    """Somebody who needs power. Where there is too little, the last consumer of the list goes without
    first."""

    name: str
    peak_kw: float
    kind: str = "homes"
    """What its generated load looks like: homes, offices, industry or datacentre."""

    def __post_init__(self) -> None:
        require(self.kind in CONSUMER_KINDS, "kind", self.kind, f"one of {', '.join(CONSUMER_KINDS)}")
        _numbers(self)
        require(self.peak_kw > 0, "peak_kw", self.peak_kw, "above 0")


CONSUMER_KINDS = ("homes", "offices", "industry", "datacentre")


@dataclass(frozen=True)
class Connection:
    """The line to the public grid; an island has 0 kW both ways."""

    import_kw: float = 0.0
    export_kw: float = 0.0
    export_share: float = 1.0
    """Price of exports over that of imports, 0..1; see `export_price`."""

    def __post_init__(self) -> None:
        _numbers(self)
        require(self.export_share <= 1.0, "export_share", self.export_share, "in 0..1")


@dataclass(frozen=True)
class Penalties:
    """What is paid beside energy, per kWh or kg."""

    unserved_per_kwh: float = 10.0
    """Value of a kWh that consumers did not get; above every import price."""
    curtailment_per_kwh: float = 0.0
    carbon_per_kg: float = 0.0
    """Price of emissions, of imports (by the series' intensity) and of dispatchable sources."""

    def __post_init__(self) -> None:
        _numbers(self)


@dataclass(frozen=True)
class Grid:
    """Everything that stays the same while a grid runs."""

    name: str
    consumers: tuple[Consumer, ...]
    dispatchables: tuple[Dispatchable, ...] = ()
    renewables: tuple[Renewable, ...] = ()
    storages: tuple[Storage, ...] = ()
    connection: Connection = field(default_factory=Connection)
    penalties: Penalties = field(default_factory=Penalties)
    step_s: int = HOUR_S
    """Length of a step; divides an hour."""

    def __post_init__(self) -> None:
        require(len(self.consumers) > 0, "consumers", self.consumers, "1 or more")
        divides = 60 <= self.step_s <= HOUR_S and HOUR_S % self.step_s == 0
        require(divides, "step_s", self.step_s, "60..3600, and divide 3600")
        names = [part.name for part in self.parts]
        for name in names:
            require(names.count(name) == 1, "name", name, "given to one part of the grid only")

    @property
    def parts(self) -> tuple[Consumer | Dispatchable | Renewable | Storage, ...]:
        """Everything that has a name, in the file's order."""
        return (*self.consumers, *self.dispatchables, *self.renewables, *self.storages)

    @property
    def peak_kw(self) -> float:
        """Load of all consumers at their peaks: the unit of everything that is observed."""
        return sum(consumer.peak_kw for consumer in self.consumers)

    @property
    def step_h(self) -> float:
        """Length of a step in hours."""
        return self.step_s / HOUR_S

    @property
    def steps_per_hour(self) -> int:
        """Steps in an hour."""
        return HOUR_S // self.step_s


def export_price(price: FloatArray, share: float | FloatArray) -> FloatArray:
    """What a kWh exported earns: `share` of the import price; where that is negative, as much more is paid.

    So it is never above the import price, and importing to export earns nothing.
    """
    return np.asarray(price - (1.0 - share) * np.abs(price))


def _numbers(part: Any) -> None:
    """Refuse empty names and numbers that are negative or not finite."""
    for item in fields(part):
        value = getattr(part, item.name)
        if isinstance(value, str):
            require(bool(value.strip()), item.name, value, "text that is not empty")
        elif value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ParameterError(item.name, value, "a number")
            inside = math.isfinite(value) and 0.0 <= value <= _MOST
            require(inside, item.name, value, "a finite number of 0 or more")
