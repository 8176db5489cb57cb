from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import ParameterError
from sim.physics import STATE, ServiceParams, ServicePhysics

EXACT = ServiceParams(poisson=0.0, capacity_spread=0.0, start_up_spread=0.0)


def steady(replicas: int, rate_rps: float, params: ServiceParams = EXACT, seconds: int = 600):
    """The interval after the service has settled."""
    physics = ServicePhysics(params, 1, 0, replicas)
    physics.advance(seconds=120, rate_rps=rate_rps)
    return physics.advance(seconds=seconds, rate_rps=rate_rps), physics


def test_an_idle_service_answers_in_its_base_latency():
    interval, _ = steady(10, 10.0)
    assert interval.p50_ms[0] == interval.p95_ms[0] == pytest.approx(40.0)
    assert interval.violation_share[0] == pytest.approx(0.0, abs=1e-9)


def test_percentiles_follow_the_documented_formula():
    interval, _ = steady(10, 200.0)
    rho, count = 0.8, 10
    waits = rho ** (np.sqrt(2 * (count + 1)) - 1)
    decay = np.sqrt(count) * (1 - rho) / 0.040
    assert interval.p95_ms[0] == pytest.approx(40 + 1000 * np.log(waits / 0.05) / decay)
    assert interval.p99_ms[0] == pytest.approx(40 + 1000 * np.log(waits / 0.01) / decay)
    assert interval.violation_share[0] == pytest.approx(waits * np.exp(-decay * 0.210))


def test_an_overloaded_service_fills_its_queue_and_drops_the_rest():
    interval, physics = steady(10, 300.0)
    assert physics.read("backlog")[0] == pytest.approx(10.0 * 250.0)
    assert interval.dropped[0] / interval.seconds[0] == pytest.approx(50.0, rel=1e-6)
    assert interval.p95_ms[0] == pytest.approx(10_040.0)
    assert interval.violation_share[0] == pytest.approx(1.0)


def test_a_backlog_is_worked_off_at_the_spare_capacity():
    physics = ServicePhysics(EXACT, 1, 0, 10)
    physics.advance(seconds=5, rate_rps=300.0)
    assert physics.read("backlog")[0] == pytest.approx(250.0)
    physics.advance(seconds=2, rate_rps=150.0)
    assert physics.read("backlog")[0] == pytest.approx(50.0)


def test_a_service_without_replicas_answers_nobody_and_requests_give_up():
    physics = ServicePhysics(EXACT, 1, 0, 0)
    interval = physics.advance(seconds=60, rate_rps=10.0)
    assert interval.served[0] == 0
    assert interval.dropped[0] > 400
    assert np.isnan(interval.p95_ms[0])
    assert interval.violation_share[0] == 1.0


def test_new_replicas_serve_after_the_start_up_time_and_are_billed_before():
    physics = ServicePhysics(replace(EXACT, start_up_s=60.0), 1, 0, 2)
    physics.scale(None, 5)
    interval = physics.advance(seconds=60, rate_rps=10.0)
    assert physics.ready[0] == 2
    assert physics.replicas[0] == 5
    assert interval.replica_s[0] == 5 * 60
    physics.advance(seconds=1, rate_rps=10.0)
    assert physics.ready[0] == 5


def test_scale_down_takes_starting_replicas_first_then_drains_ready_ones():
    physics = ServicePhysics(replace(EXACT, drain_s=10.0), 1, 0, 4)
    physics.scale(None, 8)
    physics.advance(seconds=10, rate_rps=10.0)
    physics.scale(None, 5)
    assert physics.ready[0] == 4
    assert physics.replicas[0] == 5
    physics.scale(None, 3)
    assert physics.ready[0] == physics.replicas[0] == 3
    assert physics.read("capacity_rps")[0] == pytest.approx(75.0)
    billed = physics.advance(seconds=2, rate_rps=10.0).replica_s[0]
    assert billed == pytest.approx(2 * 3 + 10), "one ready replica drains for 10 s"


def test_start_up_times_and_capacities_scatter_as_told():
    params = ServiceParams(start_up_s=60.0, start_up_spread=0.3, capacity_spread=0.2, poisson=0.0)
    physics = ServicePhysics(params, 400, 1, 1)
    physics.scale(None, 2)
    waits = np.zeros(400)
    for second in range(1, 300):
        physics.advance(seconds=1, rate_rps=1.0)
        waits[(waits == 0) & (physics.ready == 2)] = second
    assert np.median(waits) == pytest.approx(61.0, abs=3.0)
    assert np.log(waits - 1).std() == pytest.approx(0.3, rel=0.15)
    assert (physics.read("capacity_rps") / 2).std() == pytest.approx(5.0 / np.sqrt(2), rel=0.15)


def test_poisson_arrivals_have_the_rate_as_mean_and_variance():
    params = ServiceParams(poisson=1.0)
    for rate in (0.5, 7.0, 400.0):
        physics = ServicePhysics(params, 1, 2, 100)
        counts = np.array([physics.advance(seconds=1, rate_rps=rate).arrived[0] for _ in range(4000)])
        assert counts.mean() == pytest.approx(rate, rel=0.06)
        assert counts.var() == pytest.approx(rate, rel=0.12)


def test_rates_set_beforehand_are_interpolated_and_shared():
    physics = ServicePhysics(EXACT, 3, 0, 10)
    physics.set_rates([[0.0, 60.0, 60.0]], 60.0, np.zeros(3, dtype=int))
    assert physics.advance(seconds=60).arrived == pytest.approx([np.arange(60).sum()] * 3)
    assert physics.rate_now() == pytest.approx([60.0] * 3)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    replicas=st.integers(0, 30),
    rates=st.lists(st.floats(0.0, 2000.0), min_size=3, max_size=20),
    targets=st.lists(st.integers(0, 40), min_size=3, max_size=20),
)
def test_every_request_is_served_dropped_or_queued(seed, replicas, rates, targets):
    physics = ServicePhysics(ServiceParams(start_up_s=20.0), 1, seed, replicas)
    for rate, target in zip(rates, targets, strict=False):
        physics.scale(None, target)
        physics.advance(seconds=15, rate_rps=rate)
        total = physics.read("served") + physics.read("dropped") + physics.read("backlog")
        assert total[0] == pytest.approx(physics.read("arrived")[0], abs=1e-6 * max(1.0, total[0]))
        assert physics.read("violating")[0] <= physics.read("arrived")[0] + 1e-6
        assert physics.replicas[0] == target
        assert physics.read("capacity_rps")[0] >= 0


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    replicas=st.integers(1, 30),
    capacity=st.floats(0.5, 5000.0),
    loads=st.lists(st.floats(0.0, 45.0), min_size=4, max_size=30),
    spread=st.floats(0.0, 0.3),
)
def test_another_ready_replica_never_raises_latency(seed, replicas, capacity, loads, spread):
    params = ServiceParams(capacity_rps=capacity, capacity_spread=spread)
    fewer = ServicePhysics(params, 1, seed, replicas)
    more = ServicePhysics(params, 1, seed, replicas + 1)
    for load in loads * 3:
        few = fewer.advance(seconds=1, rate_rps=load * capacity)
        many = more.advance(seconds=1, rate_rps=load * capacity)
        assert few.arrived[0] == many.arrived[0], "common random numbers"
        for column in ("p50_ms", "p95_ms", "p99_ms"):
            if few.served[0] > 0 and many.served[0] > 0:
                assert getattr(many, column)[0] <= getattr(few, column)[0] * (1 + 1e-6)
        for column in ("dropped", "violating"):
            assert more.read(column)[0] <= fewer.read(column)[0] * (1 + 1e-6) + 1e-6


def test_latency_falls_and_never_rises_along_all_replica_counts_at_any_load():
    counts = np.arange(1, 200)
    for load in (0.5, 3.0, 20.0, 80.0, 150.0):
        physics = ServicePhysics(EXACT, len(counts), 0, counts)
        physics.advance(seconds=120, rate_rps=load * 25.0)
        interval = physics.advance(seconds=120, rate_rps=load * 25.0)
        for series in (interval.p50_ms, interval.p95_ms, interval.p99_ms, interval.violation_share):
            assert np.all(np.diff(series) <= 1e-9 * series[:-1] + 1e-12)
        assert interval.p95_ms[0] > interval.p95_ms[-1] or load < 0.7


def test_every_action_matters():
    targets = np.arange(1, 60)
    physics = ServicePhysics(ServiceParams(start_up_s=15.0), len(targets), np.full(len(targets), 9), 20)
    physics.scale(None, targets)
    interval = physics.advance(seconds=60, rate_rps=400.0)
    assert len(np.unique(interval.replica_s)) == len(targets)
    again = physics.advance(seconds=60, rate_rps=400.0)
    assert np.all(np.diff(again.p99_ms) <= 1e-9)
    assert again.p99_ms[0] > again.p99_ms[-1]


def test_the_seed_fixes_everything_and_another_one_changes_it():
    def life(seed: int) -> np.ndarray:
        physics = ServicePhysics(ServiceParams(), 5, seed, 4)
        for target in (8, 3, 12):
            physics.scale(None, target)
            physics.advance(seconds=40, rate_rps=120.0)
        return np.stack([physics.read(name) for name in STATE])

    assert np.array_equal(life(1), life(1))
    assert not np.array_equal(life(1), life(2))


def test_a_service_lives_the_same_life_alone_and_in_a_batch():
    seeds = np.array([11, 12, 13], dtype=np.uint64)
    batch = ServicePhysics(ServiceParams(), 3, seeds, 4)
    alone = ServicePhysics(ServiceParams(), 1, seeds[1:2], 4)
    for target in (9, 5, 7):
        batch.scale(None, target)
        alone.scale(None, target)
        both = batch.advance(seconds=45, rate_rps=100.0), alone.advance(seconds=45, rate_rps=100.0)
        assert both[0].violating[1] == both[1].violating[0]
        assert both[0].arrived[1] == both[1].arrived[0]


def test_a_thousand_resets_leave_nothing_behind():
    physics = ServicePhysics(ServiceParams(), 8, 3, 4)

    def life() -> np.ndarray:
        physics.reset(None, ServiceParams(), np.arange(8), 4)
        physics.scale(None, 9)
        physics.advance(seconds=90, rate_rps=130.0)
        shown = physics.metrics()
        return np.stack([shown.request_rate, shown.latency_ms, shown.utilisation, physics.read("replica_s")])

    first, sizes = life(), [array.nbytes for array in physics.arrays]
    for _ in range(1000):
        assert np.array_equal(life(), first)
    assert [array.nbytes for array in physics.arrays] == sizes


# what the metrics show


def test_metrics_of_a_steady_service_are_the_truth():
    _, physics = steady(10, 200.0)
    shown = physics.metrics()
    assert shown.request_rate[0] == pytest.approx(200.0)
    assert shown.utilisation[0] == pytest.approx(0.01 + 0.99 * 0.8)
    assert shown.error_ratio[0] == 0.0
    assert shown.latency_ms[0] == pytest.approx(steady(10, 200.0)[0].p95_ms[0])
    assert shown.in_flight[0] >= 200.0 * 0.040
    assert shown.ready[0] == shown.current[0] == 10


def test_rates_lag_by_the_window_and_the_scrape():
    physics = ServicePhysics(EXACT, 1, 0, 100)
    physics.advance(seconds=120, rate_rps=100.0)
    seen = []
    for _ in range(90):
        physics.advance(seconds=1, rate_rps=1000.0)
        seen.append(float(physics.metrics().request_rate[0]))
    assert seen[13] == pytest.approx(100.0), "nothing before the next scrape"
    assert 100.0 < seen[20] < 1000.0, "then the window fills up"
    assert seen[-1] == pytest.approx(1000.0)
    assert np.all(np.diff(seen) >= -1e-9)


def test_no_scrape_yet_is_no_data_and_never_zero():
    physics = ServicePhysics(ServiceParams(), 1, 0, 4)
    physics.advance(seconds=10, rate_rps=100.0)
    shown = physics.metrics()
    assert all(np.isnan(getattr(shown, name)[0]) for name in ("request_rate", "latency_ms", "utilisation"))


def test_lost_scrapes_thin_the_window_and_losing_all_is_no_data():
    params = replace(EXACT, scrape_loss=0.5)
    physics = ServicePhysics(params, 200, 5, 10)
    physics.advance(seconds=300, rate_rps=100.0)
    rates = physics.metrics().request_rate
    assert np.isnan(rates).any()
    assert np.isfinite(rates).any()
    assert rates[np.isfinite(rates)] == pytest.approx(100.0)
    physics.set_params(None, replace(EXACT, scrape_loss=1.0))
    physics.advance(seconds=120, rate_rps=100.0)
    assert np.isnan(physics.metrics().request_rate).all()


def test_a_service_without_traffic_shows_a_rate_of_zero_but_no_latency():
    physics = ServicePhysics(ServiceParams(), 1, 0, 4)
    physics.advance(seconds=120, rate_rps=0.0)
    shown = physics.metrics()
    assert shown.request_rate[0] == 0.0
    assert np.isnan(shown.latency_ms[0])
    assert np.isnan(shown.error_ratio[0])


def test_histogram_buckets_add_up_and_agree_with_the_percentile():
    bounds = np.array([10.0, 50.0, 100.0, 150.0, 177.0, 250.0, 1000.0, 60_000.0])
    physics = ServicePhysics(EXACT, 1, 0, 10, le_ms=bounds)
    interval = physics.advance(seconds=600, rate_rps=200.0)
    shares = physics.histogram[0] / interval.served[0]
    assert shares[0] == 0.0
    assert shares[-1] == pytest.approx(1.0)
    assert np.all(np.diff(shares) >= 0)
    assert shares[4] == pytest.approx(0.95, abs=0.002)
    assert 1 - shares[5] == pytest.approx(interval.violation_share[0])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"capacity_rps": 0.0}, "capacity_rps: 0.0 is not allowed"),
        ({"start_up_s": 4000.0}, "start_up_s: 4000.0 is not allowed, must be in 0..512"),
        ({"slo_latency_ms": float("nan")}, "slo_latency_ms: nan"),
        ({"scrape_loss": 1.5}, "scrape_loss: 1.5"),
        ({"timeout_s": [1.0, 2.0, 3.0]}, "timeout_s: .* one for each of 2 services"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_parameter_out_of_range_is_refused_by_name(params, message):
    with pytest.raises(ParameterError, match=message):
        ServicePhysics(ServiceParams(**params), 2)


def test_negative_replicas_and_rates_are_refused():
    physics = ServicePhysics(ServiceParams(), 1)
    with pytest.raises(ParameterError, match="replicas: -1"):
        physics.scale(None, -1)
    with pytest.raises(ParameterError, match="rate_rps: -5"):
        physics.advance(rate_rps=-5.0)
