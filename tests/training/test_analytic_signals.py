"""Signals that are missing: training has such services, and the built-in policy scales them down."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from controller.core import (
    OBSERVATION_SCHEMA,
    Behavior,
    Engine,
    HpaPolicy,
    Samples,
    ScalingPolicy,
    ScalingRules,
    ServiceSpec,
)
from controller.policies.loader import load_policy
from training.analytic import counts, traffic, twin
from training.analytic.policy import BEYOND, BandNetwork
from training.analytic.run import scenario_of
from training.config import load_preset

CAPACITY = 25.0
SIGNALS = ("latency", "in_flight", "error", "utilisation", "ready")
MISSING = list(itertools.product((False, True), repeat=len(SIGNALS)))
"""Which of SIGNALS are missing: all 32 cases."""
FEATURES = {
    "knows_latency": ("latency_over_slo", "latency_known", "violation_recent"),
    "knows_in_flight": ("backlog",),
    "knows_errors": ("error_ratio",),
    "knows_utilisation": ("utilisation", "capacity_check"),
    "knows_ready": ("pending_share",),
}
COLUMN = {name: index for index, name in enumerate(OBSERVATION_SCHEMA.names)}


def spec(**changes: float) -> ServiceSpec:
    """A service with an objective whose scale-down window is `window` seconds."""
    rules = ScalingRules(int(changes.pop("window", 300)), "Max", (ScalingPolicy("Percent", 100, 15),))
    values = {"slo_latency_ms": 250.0, "capacity_rps": CAPACITY, "max_replicas": 100, **changes}
    return ServiceSpec(behavior=Behavior(scale_down=rules), **values)


class World:
    """Services whose replicas are ready at once, and whose signals are those of a plain queue."""

    def __init__(self, specs: list[ServiceSpec], missing: list[tuple[bool, ...]], rated: bool = True) -> None:
        """missing: of each service, which of SIGNALS; rated: whether there are request rates."""
        self.policy = load_policy({"builtin": "default"})
        self.engine = Engine(specs, self.policy)
        self.gone = dict(zip(SIGNALS, np.array(missing, dtype=bool).T, strict=True))
        self.rated = rated
        self.replicas = np.full(len(specs), 8.0)
        self.now_s = 2 * 86400.0
        self.flagged: list[np.ndarray] = []

    def play(self, load: float, seconds: float, period_s: float) -> None:
        """Decide every `period_s` at this load in replicas."""
        for _ in range(round(seconds / period_s)):
            self.now_s += period_s
            decisions = self.engine.step(self.now_s, self._samples(load))
            self.flagged.append(np.asarray(decisions.unfamiliar).copy())
            self.replicas = np.asarray(decisions.desired_replicas, dtype=float)

    def _samples(self, load: float) -> Samples:
        ready = np.maximum(self.replicas, 0.5)
        used = np.minimum(load / ready, 1.0)

        def shown(name: str, values: np.ndarray) -> np.ndarray:
            return np.where(self.gone[name], np.nan, values)

        return Samples(
            request_rate=np.full(len(ready), load * CAPACITY if self.rated else np.nan),
            latency_ms=shown("latency", np.where(load > ready, 900.0, 60.0)),
            error_ratio=shown("error", np.zeros(len(ready))),
            utilisation=shown("utilisation", used),
            ready=shown("ready", self.replicas),
            current=self.replicas,
            in_flight=shown("in_flight", np.minimum(load, ready) * 2.0),
        )


@pytest.mark.parametrize("objective", [250.0, math.nan], ids=["objective", "no objective"])
@pytest.mark.parametrize("period_s", [5.0, 15.0, 60.0])
def test_the_built_in_policy_scales_down_whatever_signals_are_missing(
    period_s: float, objective: float
) -> None:
    specs = [spec(slo_latency_ms=objective, sync_period_s=period_s) for _ in MISSING]
    world = World(specs, MISSING)
    world.play(20.0, 900.0, period_s)
    busy = world.replicas.copy()
    world.play(4.0, 2700.0, period_s)
    cases = [[name for name, no in zip(SIGNALS, case, strict=True) if no] for case in MISSING]
    flagged = np.stack(world.flagged).any(axis=0)
    assert not flagged.any(), [case for case, flag in zip(cases, flagged, strict=True) if flag]
    kept = world.replicas >= 0.6 * busy
    assert (busy >= 20.0).all()
    assert not kept.any(), [case for case, keeps in zip(cases, kept, strict=True) if keeps]


def test_the_built_in_policy_knows_every_setting_that_is_allowed_for() -> None:
    choices = {
        "start_up_s": (5.0, 60.0, 180.0),
        "window": (0, 300, 3600),
        "min_replicas": (0, 1, 3),
        "preference": (0.0, 60.0, 100.0),
    }
    specs = [
        spec(**dict(zip(choices, values, strict=True))) for values in itertools.product(*choices.values())
    ]
    world = World(specs, [(False,) * len(SIGNALS)] * len(specs))
    world.play(20.0, 900.0, 15.0)
    busy = world.replicas.copy()
    world.play(4.0, 3600.0 + 1800.0, 15.0)
    assert not np.stack(world.flagged).any()
    # at the top of the dial a reserve stays for rises such as the one from nothing at the start
    below = np.array([one.preference < 100 for one in specs])
    assert (world.replicas[below] < 0.7 * busy[below]).all(), (busy, world.replicas)


@pytest.mark.parametrize("objective", [250.0, math.nan], ids=["objective", "no objective"])
def test_the_built_in_policy_knows_services_without_request_rates_or_capacity(objective: float) -> None:
    for rated in (False, True):
        specs = [spec(capacity_rps=math.nan, slo_latency_ms=objective)] * 2
        world = World(specs, [(False,) * 5, (objective != objective, True, True, False, False)], rated)
        world.play(20.0, 900.0, 15.0)
        busy = world.replicas.copy()
        world.play(4.0, 2700.0, 15.0)
        assert not np.stack(world.flagged).any()
        assert (world.replicas < 0.6 * busy).all(), (rated, busy, world.replicas)


def test_an_observation_that_training_has_not_is_still_flagged() -> None:
    world = World([spec(start_up_s=3600.0)], [(False,) * 5])
    world.play(20.0, 60.0, 15.0)
    assert np.stack(world.flagged).all()


@pytest.mark.parametrize("signal", traffic.SIGNALS)
def test_the_twin_shows_a_missing_signal_as_core_does(signal: str) -> None:
    rng = np.random.default_rng(3)
    scenario = dataclasses.replace(scenario_of(load_preset("default")), capacity_unknown_share=0.0)
    pool = traffic.Pool([traffic.draw_episode(rng, scenario, 24) for _ in range(32)])
    pool.constants[:, traffic.CONSTANTS.index("min_replicas")] = 1.0
    features = {}
    for known in (1.0, 0.0):
        pool.constants[:, traffic.CONSTANTS.index(signal)] = known
        services = twin.Twin(pool, torch.arange(32))
        state = services.fresh()
        for step in range(24):
            at = torch.full((32,), step)
            features[known], shown = services.observe(state, at, torch.full((32,), 0.2))
            # too few replicas, so that latency, errors and backlog have something to show
            state, _ = services.step(state, at, torch.full((32, 2), -0.7), shown)
    empty = [COLUMN[name] for name in FEATURES[signal]]
    assert (features[1.0][:, empty] != 0).any(dim=0).all()
    assert (features[0.0][:, empty] == 0).all()
    engine = Engine(spec(), HpaPolicy())
    absent = {"knows_in_flight": "in_flight", "knows_errors": "error_ratio", "knows_latency": "latency_ms"}
    absent |= {"knows_utilisation": "utilisation", "knows_ready": "ready"}
    values = {
        "request_rate": [400.0],
        "current": [9.0],
        "ready": [7.0],
        "latency_ms": [900.0],
        "error_ratio": [0.2],
        "utilisation": [0.9],
        "in_flight": [90.0],
    }
    theirs = engine.observe(1e6, Samples(**{**values, absent[signal]: None})).features
    assert (theirs[0, empty] == 0).all()


def test_training_draws_missing_signals_in_their_shares() -> None:
    rng, scenario = np.random.default_rng(0), scenario_of(load_preset("default"))
    drawn = np.array([traffic.draw_episode(rng, scenario, 8, missing=0.4).constants for _ in range(300)])
    shares = {name: 1.0 - drawn[:, traffic.CONSTANTS.index(name)].mean() for name in traffic.SIGNALS}
    assert shares.pop("knows_latency") == pytest.approx(0.4, abs=0.08)
    assert all(0.1 < share < 0.3 for share in shares.values()), shares


def test_what_the_network_cuts_off_makes_no_difference() -> None:
    network = BandNetwork(load_preset("default"))
    observation = torch.zeros(2, OBSERVATION_SCHEMA.size)
    for name, (low, high) in BEYOND.items():
        one = OBSERVATION_SCHEMA.features[COLUMN[name]]
        observation[:, COLUMN[name]] = torch.tensor([low, one.low] if one.low < low else [high, one.high])
    with torch.no_grad():
        band = network(observation)
    assert torch.equal(band[0], band[1])


def test_a_level_is_how_high_a_rise_out_of_nothing_went() -> None:
    preset = load_preset("default")
    network = BandNetwork(preset)
    observation = torch.zeros(1, OBSERVATION_SCHEMA.size)
    # a load of 10 now, and rises to 800 times the least load that counts, which is 40
    observation[:, COLUMN["granularity"]] = 1.0 / 11.0
    observation[:, COLUMN["move_q995_1h"]] = math.log(800.0)
    seen = network._extended(observation)[0]
    level = OBSERVATION_SCHEMA.size + 1 + preset.analytic.levels.index("move_q995_1h")
    assert float(seen[OBSERVATION_SCHEMA.size]) == pytest.approx(math.log(10.0), abs=1e-4)
    assert float(seen[level]) == pytest.approx(math.log(4.0), abs=1e-4)


def test_single_functions_are_mostly_silent_and_peak_at_one() -> None:
    rng = np.random.default_rng(1)
    drawn = [counts.function_workload(rng, 7200.0) for _ in range(40)]
    assert all(len(one) == 481 and one.min() >= 0 for one in drawn)
    assert all(one.max() == pytest.approx(1.0) or np.all(one == 0.5) for one in drawn)
    assert np.median([np.mean(one < 0.01) for one in drawn]) > 0.2


def test_the_artifact_takes_in_what_the_network_cuts_off() -> None:
    seen = load_policy({"builtin": "default"}).metadata.observation_range
    assert seen is not None
    for name in BEYOND:
        one, column = OBSERVATION_SCHEMA.features[COLUMN[name]], COLUMN[name]
        assert (seen.low[column], seen.high[column]) == (one.low, one.high)
