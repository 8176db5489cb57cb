"""The built-in policy answers a surge with a few times the highest load it has seen, and no less than it.

At the cheap end of its dial a moment's noise may be a hundredth above what is recommended: that is so for one
look of 51,840, a load of 1.007 with one replica.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from controller.core import OBSERVATION_SCHEMA, Engine, Samples, ServiceSpec
from controller.core.action import decode_hold_band
from controller.policies.loader import load_policy
from tests.core.worlds import FAST
from training.analytic.policy import BandNetwork
from training.artifact import random_observations
from training.config import Preset, load_preset
from training.errors import ConfigError

TIMES = 3.0
"""The bound over the highest load seen and one replica (docs/default-policy.md)."""
RESERVE_FROM, RESERVE_TIMES = 75.0, 10.0
"""Above this preference a reserve by formula may ask for so many times the load now."""
GAP = 1.0
"""How much higher the upper edge may be, as a logarithm: the least gap just after a scale-up."""
CAPACITY = 10.0
PERIOD_S = 15.0
DAY_S = 86400.0
GRID = list(
    itertools.product(
        (0.5, 1.0, 7.0, 100.0, 300.0),  # load before, replicas
        (2.0, 3.0, 10.0),  # the load after, over that before
        (0.0, 600.0, 3600.0, DAY_S),  # history, s
        (0.0, 25.0, 50.0, 75.0, 90.0, 100.0),
    )
)
BEFORE, GROWS, HISTORY_S, PREFERENCE = (np.array(each) for each in zip(*GRID, strict=True))
COLUMN = {name: index for index, name in enumerate(OBSERVATION_SCHEMA.names)}


class Surges:
    """One service for each case of GRID, at 10 replicas for every 7 of load; the load grows at once."""

    def __init__(self, noise: float, latency_ms: float) -> None:
        """noise: deviation of the logarithm of load; latency_ms: from the surge on, while too few serve."""
        specs = [
            ServiceSpec(
                1,
                1_000_000,
                capacity_rps=CAPACITY,
                slo_latency_ms=100.0,
                start_up_s=120.0,
                preference=float(preference),
                behavior=FAST,
            )
            for preference in PREFERENCE
        ]
        self.engine = Engine(specs, load_policy({"builtin": "default"}))
        self.rng, self.noise, self.latency_ms = np.random.default_rng(0), noise, latency_ms
        ages = np.arange(-round(DAY_S / PERIOD_S), 0) * PERIOD_S
        course = BEFORE * np.exp(noise * self.rng.standard_normal((len(ages), len(GRID))))
        known = -ages[:, None] <= HISTORY_S
        self.engine.backfill(ages, np.where(known, course * CAPACITY, np.nan))
        self.highest = np.where(known, course, 0.0).max(axis=0)
        self.ready = np.ceil(BEFORE / 0.7)
        self.begin: list[tuple[float, np.ndarray]] = []
        self.now_s = 0.0

    def look(self, grown: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(replicas recommended, load, replicas asked for before): one decision, and 15 s pass."""
        load = BEFORE * np.where(grown, GROWS, 1.0) * np.exp(self.noise * self.rng.standard_normal(len(GRID)))
        self.highest = np.maximum(self.highest, load)
        current = self.ready + sum((added for _, added in self.begin), np.zeros(len(GRID)))
        slow = load > 0.95 * self.ready
        samples = Samples(
            request_rate=load * CAPACITY,
            utilisation=np.minimum(load / self.ready, 1.2),
            latency_ms=np.where(slow, self.latency_ms if grown else 40.0, 40.0),
            current=current,
            ready=self.ready,
        )
        decisions = self.engine.step(self.now_s, samples)
        self.now_s += PERIOD_S
        wanted = np.asarray(decisions.desired_replicas, dtype=float)
        self.begin.append((self.now_s + 120.0, np.maximum(wanted - current, 0.0)))
        self.ready = self.ready + sum((a for at, a in self.begin if at <= self.now_s), np.zeros(len(GRID)))
        self.begin = [each for each in self.begin if each[0] > self.now_s]
        return np.asarray(decisions.recommended_replicas, dtype=float), load, current


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("latency_ms", [40.0, 130.0, 2000.0])
def test_a_surge_is_answered_with_enough_and_no_more_than_the_bound(noise: float, latency_ms: float) -> None:
    world = Surges(noise, latency_ms)
    for _ in range(8):
        world.look(grown=False)
    for look in range(24):
        recommended, load, current = world.look(grown=True)
        reserve = np.where(PREFERENCE > RESERVE_FROM, RESERVE_TIMES * load, 0.0)
        most = np.ceil(np.maximum(TIMES * np.maximum(world.highest, 1.0), reserve) * (1 + 1e-5))
        wrong = np.flatnonzero(recommended > np.maximum(most, current))
        assert not len(wrong), [(look, GRID[k], recommended[k], most[k]) for k in wrong]
        short = np.flatnonzero(recommended * np.where(PREFERENCE > 0, 1.0, 1.0 + noise / 10) < load)
        assert not len(short), [(look, GRID[k], recommended[k], load[k]) for k in short]


def test_no_edge_of_the_artifact_is_above_its_bound_whatever_it_observes() -> None:
    observations = random_observations(20_000, 4)
    bands = load_policy({"builtin": "default"}).act(observations).astype(float)

    def column(name: str) -> np.ndarray:
        return observations[:, COLUMN[name]].astype(float)

    granularity = np.clip(column("granularity"), 1.0 / 10_001.0, 1.0 / 1.05)
    load = 1.0 / granularity - 1.0
    rises = np.maximum(column("move_q995_1h"), column("move_q999_1d"))
    levels = np.minimum(rises + np.log(0.05) - np.log(load), 9.0)
    seen = np.max([column(f"season_{one}") for one in ("1h", "1d")] + [column("load_max_3600s")], axis=0)
    seen = np.max([seen, levels, np.log(1.0 / load), np.zeros(len(load))], axis=0)
    reserve = np.where(column("preference") > RESERVE_FROM / 100, np.log(RESERVE_TIMES), 0.0)
    most = np.maximum(seen + np.log(TIMES), reserve)
    assert (bands[:, 0] <= most + 1e-4).all()
    assert (bands[:, 1] <= most + GAP + 1e-4).all()
    assert 0.1 < (bands[:, 0] > most - 1e-4).mean() < 0.9
    replicas = decode_hold_band(bands, np.ones(len(load), dtype=np.int64), load)
    assert (replicas <= np.ceil(np.exp(np.clip(most, None, 10.0)) * load * (1 + 1e-4))).all()


@pytest.fixture(scope="module")
def small() -> Preset:
    preset = load_preset("default")
    return dataclasses.replace(preset, network=dataclasses.replace(preset.network, actor=(32,)))


def test_the_bound_is_the_artifacts_alone_and_leaves_the_gap(small: Preset) -> None:
    trained, served = BandNetwork(small), BandNetwork(small, serving=True)
    observations = torch.zeros(4, OBSERVATION_SCHEMA.size)
    observations[:, COLUMN["granularity"]] = torch.tensor([1 / 21, 1 / 21, 1 / 21, 1 / 1.25])
    observations[:, COLUMN["load_max_3600s"]] = torch.tensor([0.0, 0.0, 1.5, 0.0])
    observations[:, COLUMN["preference"]] = torch.tensor([0.0, 0.7, 0.7, 0.7])
    with torch.no_grad():
        trained.head.weight.zero_()
        trained.head.bias[-2] = 7.0  # a margin that nothing has seen
        served.load_state_dict(trained.state_dict())
        free, bound = trained(observations), served(observations)
    assert (free[:, 0] >= 7.0).all()
    expected = [np.log(TIMES), np.log(TIMES), np.log(TIMES) + 1.5, np.log(TIMES) + np.log(4.0)]
    assert bound[:, 0].tolist() == pytest.approx(expected, abs=1e-5)
    assert (bound[:, 1] - bound[:, 0]).tolist() == pytest.approx([0.2] * 4, abs=1e-5)


def test_the_reserve_of_the_safe_end_is_at_most_tenfold(small: Preset) -> None:
    network = BandNetwork(small, serving=True)
    observations = torch.zeros(4, OBSERVATION_SCHEMA.size)
    observations[:, COLUMN["granularity"]] = 1 / 2001
    observations[:, COLUMN["move_q999_1d"]] = torch.tensor([1.5, 1.5, 6.0, 6.0])
    observations[:, COLUMN["preference"]] = torch.tensor([0.7, 1.0, 1.0, 1.0])
    observations[3, COLUMN["load_max_3600s"]] = 2.0
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias[-2] = 7.0
        low = network(observations)[:, 0]
    own = 1.5 + small.analytic.served_reserve_margins[1]
    expected = [np.log(TIMES), own, np.log(RESERVE_TIMES), np.log(TIMES) + 2.0]
    assert low.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_bound_below_what_was_seen_is_refused(small: Preset) -> None:
    with pytest.raises(ConfigError, match=r"analytic\.served_bound_times: 0\.5"):
        dataclasses.replace(small.analytic, served_bound_times=0.5)
    strange = dataclasses.replace(small.analytic, served_bound=("nonsense",))
    with pytest.raises(ConfigError, match=r"analytic\.served_bound: \['nonsense'\]"):
        BandNetwork(dataclasses.replace(small, analytic=strange), serving=True)
