from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim.baselines import forecast, hpa, static, tuned_hpa
from sim.errors import ParameterError
from sim.physics import ServiceParams
from sim.replay import PENALTIES, TIMELINE, Protocol, Window, protocol_windows, replay, replay_clairvoyant
from sim.traces import Trace
from sim.workloads import sample_workload

HOURS = 3
RULES = Protocol(window_s=HOURS * 3600.0, windows_per_trace=2)


def flat(rate_rps: float, hours: float = 1.0) -> Trace:
    return Trace(np.arange(0.0, hours * 3600, 60.0), np.full(round(hours * 60), rate_rps), "flat")


@pytest.fixture(scope="module")
def bursty() -> list[Window]:
    rng = np.random.default_rng(5)
    rates = [sample_workload(rng, 12 * 3600.0, 60.0) for _ in range(3)]
    traces = [Trace(np.arange(len(r)) * 60.0, r, f"generated-{index}") for index, r in enumerate(rates)]
    return protocol_windows(traces, RULES)


def test_windows_are_scaled_and_know_their_past(bursty):
    assert len(bursty) == 6
    for window in bursty:
        assert window.trace.rate_rps.max() == pytest.approx(60 * 25.0)
        assert window.trace.times_s[0] >= 0
        assert window.trace.duration_s <= HOURS * 3600.0
        if window.history is not None:
            assert window.history.times_s[-1] < 0
            assert window.history.times_s[0] >= -86400.0
    assert any(window.history is not None for window in bursty)


def test_traces_too_short_or_empty_are_left_out():
    assert protocol_windows([flat(1.0, hours=0.25), flat(0.0, hours=5)], RULES) == []


def test_a_fixed_count_costs_what_it_should():
    result = replay(
        [flat(250.0)], [static(RULES.spec(), 20)], replace(RULES, params=ServiceParams(poisson=0.0))
    )
    assert result.replica_hours[0, 0] == pytest.approx(20.0, rel=0.02)
    assert result.ideal_replica_hours[0, 0] == pytest.approx(10.0, rel=0.01)
    assert result.cost[0, 0] == pytest.approx(2.0, rel=0.03)
    assert result.violation[0, 0] == pytest.approx(0.0, abs=1e-3)
    assert result.flaps_per_hour[0, 0] == 0
    assert result.max_replicas[0, 0] == 20


def test_the_hpa_settles_at_its_target():
    result = replay(
        [flat(700.0, hours=2)], [hpa(RULES.spec(), 0.7), hpa(RULES.spec(), 0.35)], RULES, timeline=True
    )
    settled = result.timeline["ready"][:, 0, -60:].mean(axis=1)
    assert settled[0] == pytest.approx(40.0, rel=0.11)
    assert settled[1] == pytest.approx(80.0, rel=0.11)
    assert set(result.timeline) == set(TIMELINE)
    assert result.timeline["desired"].shape == (2, 1, 480)


def test_generosity_buys_fewer_violations(bursty):
    result = replay(bursty, [hpa(RULES.spec(), target) for target in (0.9, 0.6, 0.3)], RULES)
    assert np.all(np.diff(result.cost.mean(axis=1)) > 0)
    assert np.all(np.diff(result.violation.mean(axis=1)) < 0)
    assert np.all((result.violation >= 0) & (result.violation <= 1))
    assert np.all(result.worst_violation >= result.violation - 1e-9)


def test_all_settings_meet_the_same_arrivals_and_batches_change_nothing(bursty):
    settings = [hpa(RULES.spec(), 0.6), forecast(RULES.spec(), 50.0)]
    both = replay(bursty[:2], settings, RULES, seed=4, timeline=True)
    arrived = both.timeline["requests_per_s"]
    assert np.array_equal(arrived[0], arrived[1])
    alone = replay(bursty[:2], settings[:1], RULES, seed=4)
    assert np.array_equal(alone.cost[0], both.cost[0])
    assert np.array_equal(alone.violation[0], both.violation[0])
    other = replay(bursty[:2], settings[:1], RULES, seed=5)
    assert not np.array_equal(other.violation, alone.violation)


def test_windows_of_different_lengths_go_together():
    result = replay([flat(250.0, 1), flat(250.0, 2)], [static(RULES.spec(), 20)], RULES, timeline=True)
    assert result.replica_hours[0] == pytest.approx([20.0, 40.0], rel=0.02)
    assert np.isnan(result.timeline["ready"][0, 0, 240:]).all()
    assert np.isfinite(result.timeline["ready"][0, 1]).all()


def test_the_clairvoyant_is_cheaper_than_any_hpa_at_the_same_violations(bursty):
    bound = replay_clairvoyant(bursty, (10.0, 20.0, 40.0, *PENALTIES), RULES)
    found = replay(bursty, tuned_hpa(RULES.spec(), (0.4, 0.6, 0.8), (0, 300)), RULES)
    compared = 0
    for window in range(len(bursty)):
        for cost, violation in zip(found.cost[:, window], found.violation[:, window], strict=True):
            order = np.argsort(bound.violation[:, window])
            late, least = bound.violation[order, window], bound.cost[order, window]
            if late[0] <= violation <= late[-1]:
                compared += 1
                assert np.interp(violation, late, least) <= cost
    assert compared > 12


def test_the_clairvoyants_penalty_trades_cost_for_violations(bursty):
    bound = replay_clairvoyant(bursty, (100.0, 1000.0, 10_000.0), RULES)
    assert np.all(np.diff(bound.violation.mean(axis=1)) < 0)
    assert np.all(np.diff(bound.cost.mean(axis=1)) > 0)
    assert bound.violation[-1].mean() < 0.005


def test_a_setting_with_another_sync_period_than_the_protocols_is_refused():
    spec = replace(RULES.spec(), sync_period_s=60.0)
    with pytest.raises(ParameterError, match=r"sync_period_s: 60\.0 is not allowed, must be 15"):
        replay([flat(250.0)], [hpa(spec)], RULES)


def test_the_tuned_hpa_sweeps_targets_and_windows():
    settings = tuned_hpa(RULES.spec())
    assert len({setting.name for setting in settings}) == len(settings) == 36
    assert {setting.spec.policy_type for setting in settings} == {"HPA"}
    assert {setting.spec.behavior.scale_down.stabilization_window_s for setting in settings} == {0, 60, 300}


@pytest.mark.skipif(
    "RLSCALER_TRACES" not in os.environ, reason="RLSCALER_TRACES names no folder of real traces"
)
def test_every_real_trace_can_be_replayed():
    files = sorted(Path(os.environ["RLSCALER_TRACES"]).glob("rps_*.csv*"))
    rules = Protocol(windows_per_trace=1, window_s=4 * 3600.0)
    windows = protocol_windows(files, rules)
    assert len(windows) >= 20
    result = replay(windows, [hpa(rules.spec(), 0.5)], rules)
    assert np.isfinite(result.cost).all()
    assert np.isfinite(result.violation).all()
    assert (result.cost >= 0.9).all()
