from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim.baselines import BASELINES, forecast, hpa, static, sweep, tuned_hpa
from sim.errors import ParameterError
from sim.physics import ServiceParams, ServicePhysics
from sim.replay import (
    PENALTIES,
    TIMELINE,
    Foresight,
    LatencyCounts,
    Protocol,
    Window,
    cut_windows,
    percentile_of_counts,
    protocol_windows,
    replay,
    replay_clairvoyant,
)
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


def test_what_cannot_be_used_is_left_out_with_its_reason():
    holes = np.concatenate([np.arange(0, 3600.0, 60.0), np.arange(9000.0, 10800.0, 60.0)])
    traces = [
        flat(1.0, hours=0.25),
        flat(0.0, hours=5),
        Trace(holes, np.where(holes < 3600, 1.0, 2.0), "holes"),
        flat(2.0, hours=3),
    ]
    windows, left_out = cut_windows(traces, replace(RULES, window_s=7200.0, windows_per_trace=1))
    assert [window.source for window in windows] == ["flat"]
    reasons = {(each.name, each.reason) for each in left_out}
    assert reasons == {
        ("flat", "too short: 15.0 min, at least 30 are needed"),
        ("flat", "no requests at all"),
        ("holes@3600s", "the recording has no data for 75% of this window"),
    }
    assert protocol_windows(traces[:2], RULES) == []


def test_a_trace_shorter_than_a_window_is_used_whole():
    (window,) = protocol_windows([flat(2.0, hours=1)], RULES)
    assert window.trace.duration_s == pytest.approx(3600.0)


def test_a_windows_digest_is_of_its_numbers_past_included():
    first, again, other = (Window(flat(rate)) for rate in (1.0, 1.0, 2.0))
    past = Trace(np.arange(-600.0, 0.0, 60.0), np.ones(10))
    assert first.digest == again.digest
    assert len({first.digest, other.digest, Window(flat(1.0), past).digest}) == 3


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


def test_a_windows_arrivals_do_not_depend_on_the_batch(bursty):
    settings = [hpa(RULES.spec(), 0.6)]
    together = replay(bursty[:3], settings, RULES, seed=4)
    alone = replay([bursty[1]], settings, RULES, seed=4)
    assert alone.violation[0, 0] == together.violation[0, 1]
    assert alone.replica_hours[0, 0] == together.replica_hours[0, 1]


def test_each_window_can_have_a_seed_of_its_own(bursty):
    settings = [hpa(RULES.spec(), 0.6)]
    twice = replay([bursty[0], bursty[0]], settings, RULES, seed=[4, 5])
    assert twice.violation[0, 0] == replay(bursty[:1], settings, RULES, seed=4).violation[0, 0]
    assert twice.violation[0, 0] != twice.violation[0, 1]
    with pytest.raises(ParameterError, match="one for 2 windows"):
        replay(bursty[:2], settings, RULES, seed=[1, 2, 3])


def test_foresight_and_policies_replay_side_by_side(bursty):
    settings = [Foresight(300.0), hpa(RULES.spec(), 0.6), Foresight(3000.0)]
    mixed = replay(bursty[:2], settings, RULES, seed=2, timeline=True)
    assert mixed.settings == ("clairvoyant-300", "hpa-60%-300s", "clairvoyant-3000")
    planned = replay_clairvoyant(bursty[:2], (300.0, 3000.0), RULES, seed=2)
    asked = replay(bursty[:2], settings[1:2], RULES, seed=2)
    assert np.array_equal(mixed.cost[[0, 2]], planned.cost)
    assert np.array_equal(mixed.violation[1], asked.violation[0])
    assert np.array_equal(mixed.timeline["requests_per_s"][0], mixed.timeline["requests_per_s"][1])


def test_the_compiled_engine_decides_as_the_operators_does(bursty):
    """Every baseline, two settings each, on an hour of two windows: step by step the same replicas."""
    settings = [sweep(name, RULES.spec())[index] for name in BASELINES for index in (0, -1)]
    windows = [
        Window(Trace(each.trace.times_s[:60], each.trace.rate_rps[:60]), each.history) for each in bursty[:2]
    ]
    core, fused = (replay(windows, settings, RULES, timeline=True, engine=name) for name in ("core", "fused"))
    assert np.array_equal(core.timeline["desired"], fused.timeline["desired"])
    assert np.array_equal(core.cost, fused.cost)
    assert len(np.unique(core.cost)) > len(settings)


def test_the_99th_percentile_is_read_from_bucket_counts():
    bounds = np.array([50.0, 100.0, 1000.0])
    counts = np.array([
        [100.0, 100.0, 100.0],
        [90.0, 98.0, 100.0],
        [0.0, 0.0, 50.0],
        [0.0, 0.0, 0.0],
    ])  # fmt: skip
    found = percentile_of_counts(bounds, counts, np.array([100.0, 100.0, 100.0, 0.0]), 0.99)
    # inside the first bucket; half-way between 98 and 100; beyond the last bound; no requests
    assert found == pytest.approx([50.0, 100.0 * 10**0.5, 1000.0, np.nan], nan_ok=True)


def test_the_99th_percentile_agrees_with_the_physics_own_histogram():
    """A day's course of load in an hour on replicas that are just enough, against counts of every second."""
    params = ServiceParams(capacity_rps=25.0)
    latencies = LatencyCounts(params, 3)
    physics = ServicePhysics(params, 3, 1, [12, 14, 20], latencies.bounds_ms)
    served = np.zeros(3)
    for step in range(240):
        interval = physics.advance(None, 15, 200.0 + 100.0 * np.sin(step / 40.0))
        latencies.add(np.arange(3), interval)
        served += interval.served + interval.dropped
    exact = percentile_of_counts(latencies.bounds_ms, physics.histogram, served, 0.99)
    assert exact[0] > 1000 > exact[1] > exact[2] > 40
    assert latencies.percentile(0.99, served) == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize(("most", "p99_ms", "worst"), [(100, 40.0, 0.0), (5, 10_040.0, 1.0)])
def test_latency_and_violations_at_the_extremes(most, p99_ms, worst):
    """Ten replicas' load on a hundred replicas, and on the five that are allowed."""
    params = ServiceParams(poisson=0.0, base_latency_ms=40.0, timeout_s=10.0)
    rules = replace(RULES, params=params, max_replicas=most)
    result = replay([flat(250.0)], [static(rules.spec(), most)], rules)
    assert result.p99_ms[0, 0] == pytest.approx(p99_ms, rel=0.03)
    assert result.worst_violation[0, 0] == pytest.approx(worst, abs=1e-3)
    assert result.violation[0, 0] == pytest.approx(worst, abs=0.01)


def test_the_worst_five_minutes_are_found_wherever_they_are():
    """Ten minutes at ten times the load that the five replicas allowed carry, in an hour of little."""
    times = np.arange(0.0, 3600.0, 15.0)
    rates = np.where((times >= 1800) & (times < 2400), 1250.0, 25.0)
    rules = replace(RULES, params=ServiceParams(poisson=0.0, timeout_s=1.0), max_replicas=5)
    windows = [Trace(times, rates), Trace(times, np.full(len(times), 25.0))]
    result = replay(windows, [static(rules.spec(), 5)], rules)
    assert result.worst_violation[0] == pytest.approx([1.0, 0.0], abs=0.01)
    assert 0.8 < result.violation[0, 0] < 0.98


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
    assert len({setting.name for setting in settings}) == len(settings) >= 30
    assert {setting.spec.policy_type for setting in settings} == {"HPA"}
    assert {setting.spec.behavior.scale_down.stabilization_window_s for setting in settings} == {0, 60, 300}


@pytest.mark.skipif(
    "RLSCALER_TRACES" not in os.environ, reason="RLSCALER_TRACES names no folder of real traces"
)
def test_every_real_trace_can_be_replayed():
    files = sorted(Path(os.environ["RLSCALER_TRACES"]).glob("rps_*.csv*"))
    rules = Protocol(windows_per_trace=1, window_s=4 * 3600.0)
    windows = protocol_windows(files, rules)
    assert len(windows) == len(files) >= 20
    result = replay(windows, [hpa(rules.spec(), 0.5)], rules)
    assert np.isfinite(result.cost).all()
    assert np.isfinite(result.violation).all()
    assert (result.cost >= 0.9).all()
