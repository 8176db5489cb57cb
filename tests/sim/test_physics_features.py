"""What the physics can switch on beyond the plain service: each does what its parameter says, in numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import ParameterError
from sim.noise import binomial, negative_binomial
from sim.physics import (
    STATE,
    ServiceParams,
    ServicePhysics,
    advance_rows,
    metrics_rows,
    scale_rows,
)
from sim.scenario import ScenarioConfig, draw_params

EXACT = ServiceParams(poisson=0.0, capacity_spread=0.0, start_up_spread=0.0)
TROUBLES = {
    "arrival_dispersion": 4.0,
    "service_cv2": 0.7,
    "retry_share": 0.6,
    "retry_after_s": 3.0,
    "readiness_period_s": 10.0,
    "cold_share": 0.4,
    "crashes_per_hour": 20.0,
    "node_losses_per_hour": 20.0,
    "slow_per_hour": 20.0,
    "failing_per_hour": 10.0,
    "neighbour_per_hour": 20.0,
    "metric_lag_s": 15.0,
    "rate_extrapolation": 1.0,
}
HARSH = ServiceParams(start_up_s=20.0, **TROUBLES)


# arrivals and retries


def test_dispersed_arrivals_have_the_rate_as_mean_and_the_dispersion_as_variance_over_mean():
    for rate, dispersion in ((0.4, 3.0), (5.0, 20.0), (60.0, 4.0), (900.0, 30.0)):
        params = ServiceParams(arrival_dispersion=dispersion, capacity_rps=1e6)
        physics = ServicePhysics(params, 400, 7, 1)
        counts = np.stack([physics.advance(seconds=1, rate_rps=rate).arrived for _ in range(100)])
        assert counts.mean() == pytest.approx(rate, rel=0.04)
        assert counts.var() / counts.mean() == pytest.approx(dispersion, rel=0.06)


@pytest.mark.parametrize("dispersion", [2.0, 10.0])
def test_negative_binomial_numbers_never_fall_when_the_mean_rises(dispersion):
    for share in (0.05, 0.5, 0.95):
        for means in (np.linspace(0.0, 0.49 * (dispersion - 1), 200), np.linspace(dispersion, 300.0, 500)):
            drawn = [negative_binomial(mean, dispersion, share, 0.7) for mean in means]
            assert np.all(np.diff(drawn) >= 0)


def test_retries_amplify_arrivals_by_one_over_one_less_retried_failures():
    params = replace(EXACT, retry_share=0.8, retry_after_s=2.0)
    physics = ServicePhysics(params, 1, 0, 10)
    physics.advance(seconds=2000, rate_rps=400.0)
    interval = physics.advance(seconds=2000, rate_rps=400.0)
    failed = interval.dropped[0] / interval.arrived[0]
    assert failed > 0.5
    assert interval.arrived[0] / interval.offered[0] == pytest.approx(1 / (1 - 0.8 * failed), rel=1e-3)


def test_retries_come_after_their_exponential_time():
    params = replace(EXACT, retry_share=0.999, retry_after_s=5.0, timeout_s=1.0)
    physics = ServicePhysics(params, 1, 0, 0)
    physics.advance(seconds=1, rate_rps=1000.0)
    assert physics.read("retrying")[0] == pytest.approx(999.0)
    physics.place(None, 100)
    back = [physics.advance(seconds=1, rate_rps=0.0).arrived[0] for _ in range(30)]
    assert np.cumsum(back)[4] == pytest.approx(999.0 * (1 - math.exp(-1)), rel=1e-6)
    assert np.average(np.arange(30) + 0.5, weights=back) == pytest.approx(5.0, abs=0.4)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    replicas=st.integers(0, 30),
    rates=st.lists(st.floats(0.0, 2000.0), min_size=3, max_size=12),
    targets=st.lists(st.integers(0, 40), min_size=3, max_size=12),
)
def test_every_attempt_is_served_failed_or_queued_and_every_one_was_offered_or_retried(
    seed, replicas, rates, targets
):
    physics = ServicePhysics(HARSH, 1, seed, replicas)
    for rate, target in zip(rates, targets, strict=False):
        physics.scale(None, target)
        before = {name: physics.read(name)[0] for name in STATE}
        interval = physics.advance(seconds=15, rate_rps=rate)
        now = {name: physics.read(name)[0] for name in STATE}
        ended = now["served"] + now["dropped"] + now["backlog"]
        assert ended == pytest.approx(now["arrived"], rel=1e-9, abs=1e-6)
        retried = now["arrived"] - now["offered"]
        expected = 0.6 * now["dropped"] - now["retrying"]
        assert retried == pytest.approx(expected, rel=1e-9, abs=1e-6)
        assert physics.replicas[0] == target, "faults restart replicas, they do not change the count"
        assert 0 <= now["slow"] + now["failing"] <= now["ready"]
        assert -1e-9 <= now["cold_rps"] <= now["capacity_rps"] + 1e-9
        assert now["violating"] <= now["arrived"] * (1 + 1e-12)
        # billed from creation: every one of them in every second, and who drains in addition
        assert interval.replica_s[0] == pytest.approx(15 * target + before["draining_s"])
        assert before["clock_s"] + 15 == now["clock_s"]


# replicas


def test_readiness_is_seen_up_to_a_period_later():
    params = replace(EXACT, start_up_s=30.0, readiness_period_s=20.0)
    physics = ServicePhysics(params, 500, 3, 1)
    physics.scale(None, 2)
    waits = np.zeros(500)
    for second in range(1, 80):
        physics.advance(seconds=1, rate_rps=1.0)
        waits[(waits == 0) & (physics.ready == 2)] = second - 1
    assert waits.min() >= 30
    assert waits.max() <= 50
    assert waits.mean() == pytest.approx(40.0, abs=1.0)
    assert waits.std() == pytest.approx(20.0 / math.sqrt(12.0), rel=0.1)


def test_cold_replicas_start_with_their_share_and_warm_up_exponentially():
    params = replace(EXACT, start_up_s=10.0, cold_share=0.2, warming_s=50.0)
    physics = ServicePhysics(params, 1, 0, 1)
    physics.scale(None, 11)
    physics.advance(seconds=11, rate_rps=10_000.0)
    assert physics.ready[0] == 11
    served = [physics.advance(seconds=1, rate_rps=10_000.0).served[0] for _ in range(150)]
    age = np.arange(1, 151)
    assert served == pytest.approx(11 * 25.0 - 10 * 25.0 * 0.8 * np.exp(-age / 50.0))


def test_a_crash_takes_a_replica_for_its_start_up_time_and_is_billed():
    often, start_up_s = 60.0, 30.0
    params = replace(EXACT, crashes_per_hour=often, start_up_s=start_up_s)
    physics = ServicePhysics(params, 50, 5, 40)
    physics.advance(seconds=200, rate_rps=10.0)
    up = np.array(
        [physics.advance(seconds=20, rate_rps=10.0).seconds * 0 + physics.ready for _ in range(100)]
    )
    hours = physics.clock_s.sum() / 3600
    available = 1 / (1 + often * start_up_s / 3600)
    assert up.mean() / 40 == pytest.approx(available, rel=0.01)
    assert physics.read("restarted").sum() == pytest.approx(often * hours * 40 * available, rel=0.05)
    assert physics.read("replica_s") == pytest.approx(40 * physics.clock_s), "billed while it restarts"
    assert physics.read("capacity_rps") == pytest.approx(25.0 * physics.ready)


def test_a_lost_node_takes_its_share_at_once():
    params = replace(EXACT, node_losses_per_hour=30.0, node_share=0.25, start_up_s=5.0)
    physics = ServicePhysics(params, 200, 5, 40)
    events = []
    ready = physics.ready
    for _ in range(300):
        physics.advance(seconds=1, rate_rps=10.0)
        events += list((ready - physics.ready)[physics.ready < ready])
        ready = physics.ready
    assert len(events) == pytest.approx(200 * 300 / 3600 * 30, rel=0.15)
    assert np.median(events) == 10


def test_slow_replicas_keep_their_share_of_capacity_and_last_as_told():
    params = replace(EXACT, slow_per_hour=60.0, slow_s=40.0, slow_share=0.25)
    physics = ServicePhysics(params, 40, 2, 50)
    physics.advance(seconds=300, rate_rps=10.0)
    slow, served = [], []
    for _ in range(200):
        served.append(physics.advance(seconds=1, rate_rps=1e5).served)
        slow.append(physics.read("slow"))
        physics.advance(seconds=9, rate_rps=1e5)
    expected = 60 / 3600 * 40 / (1 + 60 / 3600 * 40)
    assert np.mean(slow) / 50 == pytest.approx(expected, rel=0.05)
    assert np.array(served) == pytest.approx(25.0 * (50 - 0.75 * np.array(slow)))


def test_requests_on_slow_replicas_take_longer():
    def latency(**trouble: float):
        physics = ServicePhysics(replace(EXACT, **trouble), 1, 1, 100)
        physics.advance(seconds=400, rate_rps=100.0)
        return physics.advance(seconds=1, rate_rps=100.0), physics.read("slow")[0]

    well, _ = latency()
    ill, slow = latency(slow_per_hour=100.0, slow_s=1000.0, slow_share=0.5)
    share = 0.5 * slow / (100 - 0.5 * slow)
    assert 0.05 < share < 1
    assert well.p95_ms[0] == pytest.approx(40.0)
    assert ill.p95_ms[0] == pytest.approx(80.0, rel=1e-3)


def test_failing_replicas_answer_their_share_of_requests_with_errors():
    params = replace(EXACT, failing_per_hour=60.0, failing_s=60.0, retry_share=0.0)
    physics = ServicePhysics(params, 40, 2, 50)
    physics.advance(seconds=300, rate_rps=100.0)
    for _ in range(20):
        interval = physics.advance(seconds=1, rate_rps=100.0)
        failing = physics.read("failing")
        assert interval.dropped == pytest.approx(100.0 * failing / 50)
        assert interval.error_ratio == pytest.approx(failing / 50)
        physics.advance(seconds=20, rate_rps=100.0)
    assert physics.metrics().error_ratio.mean() == pytest.approx(0.5, abs=0.05)


def test_noisy_neighbours_take_capacity_of_all_and_lengthen_service():
    params = replace(EXACT, neighbour_per_hour=60.0, neighbour_s=60.0, neighbour_share=0.4)
    physics = ServicePhysics(params, 300, 2, 10)
    physics.advance(seconds=600, rate_rps=1e4)
    physics.advance(seconds=600, rate_rps=1.0)
    interval = physics.advance(seconds=1, rate_rps=1.0)
    there = physics.read("neighbour") > 0
    assert there.mean() == pytest.approx(0.5, abs=0.1)
    assert interval.p50_ms[there] == pytest.approx(40.0 / 0.6)
    assert interval.p50_ms[~there] == pytest.approx(40.0)
    before = there
    served = physics.advance(seconds=1, rate_rps=1e4).served
    stayed = (physics.read("neighbour") > 0) == before
    assert served[before & stayed] == pytest.approx(250.0 * 0.6)


# common random numbers


def any_of(*names: str):
    return st.fixed_dictionaries({}, optional={name: st.just(TROUBLES[name]) for name in names})


USUAL = (
    "arrival_dispersion",
    "service_cv2",
    "retry_share",
    "retry_after_s",
    "cold_share",
    "neighbour_per_hour",
)
RESTARTS = ("crashes_per_hour", "node_losses_per_hour", "readiness_period_s")


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    replicas=st.integers(1, 30),
    load=st.floats(0.1, 40.0),
    trouble=st.one_of(any_of(*USUAL), any_of(*USUAL, *RESTARTS), any_of(*USUAL, "slow_per_hour")),
)
def test_another_ready_replica_never_makes_anything_worse_whatever_happens(seed, replicas, load, trouble):
    # left out: who fails or is slow may be the other replica, and then its requests fare worse; a crash heals
    params = ServiceParams(start_up_s=20.0, capacity_spread=0.0, **trouble)
    fewer, more = ServicePhysics(params, 1, seed, replicas), ServicePhysics(params, 1, seed, replicas + 1)
    for _ in range(20):
        few = fewer.advance(seconds=30, rate_rps=load * 25.0)
        many = more.advance(seconds=30, rate_rps=load * 25.0)
        assert few.offered[0] == many.offered[0], "common random numbers"
        assert more.ready[0] >= fewer.ready[0]
        well = [physics.ready - 0.7 * physics.read("slow") for physics in (fewer, more)]
        assert well[1][0] >= well[0][0] - 1e-9
        if "cold_share" in trouble and set(RESTARTS) & set(trouble):
            continue  # what restarts is cold: the other replica may be the one that is
        if "retry_share" in trouble and set(RESTARTS) & set(trouble):
            continue  # with nobody ready clients give up later, and so come again later
        for name in ("dropped", "arrived"):
            assert more.read(name)[0] <= fewer.read(name)[0] * (1 + 1e-9) + 1e-6
        if "slow_per_hour" not in trouble:
            assert more.read("violating")[0] <= fewer.read("violating")[0] * (1 + 1e-6) + 1e-6


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32), replicas=st.integers(1, 30), load=st.floats(0.1, 40.0), trouble=any_of(*USUAL)
)
def test_another_ready_replica_never_raises_a_percentile_in_any_second(seed, replicas, load, trouble):
    params = ServiceParams(capacity_spread=0.0, **trouble)
    fewer, more = ServicePhysics(params, 1, seed, replicas), ServicePhysics(params, 1, seed, replicas + 1)
    for _ in range(60):
        few, many = (physics.advance(seconds=1, rate_rps=load * 25.0) for physics in (fewer, more))
        if few.served[0] > 0 and many.served[0] > 0:
            assert np.all(many.quantiles_ms <= few.quantiles_ms * (1 + 1e-6))


def test_faults_and_arrivals_do_not_depend_on_what_is_done():
    def life(targets: list[int]):
        physics = ServicePhysics(HARSH, 20, 9, 10)
        offered, neighbours = [], []
        for target in targets:
            physics.scale(None, target)
            offered.append(physics.advance(seconds=60, rate_rps=150.0).offered)
            neighbours.append(physics.read("neighbour"))
        return np.array(offered), np.array(neighbours)

    for kept, changed in zip(life([10] * 20), life([30, 5] * 10), strict=True):
        assert np.array_equal(kept, changed)


@pytest.mark.parametrize("trials", [3, 40, 400])
def test_a_binomial_number_rises_by_at_most_one_with_another_trial(trials):
    for share in np.linspace(0.001, 0.999, 60):
        for probability in (1e-5, 0.01, 0.2):
            step = binomial(trials + 1, probability, share) - binomial(trials, probability, share)
            assert step in (0, 1)


def test_binomial_numbers_have_their_mean_and_variance():
    shares = (np.arange(20_000) + 0.5) / 20_000
    for trials, probability in ((7, 0.3), (500, 0.01), (2000, 0.4)):
        drawn = np.array([binomial(trials, probability, share) for share in shares])
        assert drawn.mean() == pytest.approx(trials * probability, rel=0.01)
        assert drawn.var() == pytest.approx(trials * probability * (1 - probability), rel=0.02)


def test_how_seconds_are_cut_into_calls_changes_nothing():
    whole, parts = ServicePhysics(HARSH, 30, 4, 12), ServicePhysics(HARSH, 30, 4, 12)
    plain = [ServicePhysics(ServiceParams(), 30, 4, 12) for _ in range(2)]
    for first, second in ((whole, parts), plain):
        for target in (20, 6, 15):
            first.scale(None, target)
            second.scale(None, target)
            first.advance(seconds=90, rate_rps=300.0)
            for span in (1, 7, 33, 49):
                second.advance(seconds=span, rate_rps=300.0)
            assert np.array_equal(first.arrays.state, second.arrays.state)
            assert np.array_equal(first.arrays.scrapes, second.arrays.scrapes)


def test_a_troubled_service_lives_the_same_life_alone_and_in_a_batch():
    seeds = np.array([11, 12, 13], dtype=np.uint64)
    troubles = [ServiceParams(), HARSH, EXACT]
    stacked = {
        name: np.array([getattr(params, name) for params in troubles]) for name in vars(ServiceParams())
    }
    batch = ServicePhysics(ServiceParams(**stacked), 3, seeds, 4)
    batch.advance(seconds=600, rate_rps=130.0)
    for row, params in enumerate(troubles):
        alone = ServicePhysics(params, 1, seeds[row : row + 1], 4)
        alone.advance(seconds=600, rate_rps=130.0)
        assert np.array_equal(alone.arrays.state[0], batch.arrays.state[row])


def test_a_thousand_resets_leave_every_array_as_after_the_first():
    physics = ServicePhysics(HARSH, 4, 3, 4)
    physics.advance(seconds=1, rate_rps=1.0)
    first = None
    for turn in range(1000):
        physics.reset(None, HARSH, np.arange(4), 4)
        kept = [np.array(array) for array in physics.arrays]
        first = first or kept
        assert all(np.array_equal(now, then) for now, then in zip(kept, first, strict=True))
        physics.scale(None, 3 + turn % 9)
        physics.advance(seconds=20, rate_rps=150.0)


# latency


def brute_force(cv2: float, waits: float, decay_per_s: float, base_s: float, slow: tuple[float, float]):
    """Latencies (ms) drawn one by one from the documented distribution."""
    rng = np.random.default_rng(0)
    size = 2_000_000
    service = rng.gamma(1 / cv2, base_s * cv2, size) if cv2 else np.full(size, base_s)
    service = np.where(rng.random(size) < slow[0], service / slow[1], service)
    waiting = np.where(rng.random(size) < waits, rng.exponential(1 / decay_per_s, size), 0.0)
    return 1000 * (service + waiting)


@pytest.mark.parametrize("cv2", [0.02, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("rate", [50.0, 200.0, 235.0])
def test_percentiles_with_varying_service_are_those_of_the_distribution_drawn_one_by_one(cv2, rate):
    physics = ServicePhysics(replace(EXACT, service_cv2=cv2), 1, 0, 10, le_ms=(60.0, 400.0))
    interval = physics.advance(seconds=60, rate_rps=rate)
    rho = rate / 250
    waits = rho ** (math.sqrt(22) - 1)
    drawn = brute_force(cv2, waits, math.sqrt(10) * (1 - rho) / 0.040, 0.040, (0.0, 1.0))
    assert interval.quantiles_ms[:, 0] == pytest.approx(np.quantile(drawn, [0.5, 0.95, 0.99]), rel=0.03)
    assert interval.violation_share[0] == pytest.approx(np.mean(drawn > 250), abs=0.001, rel=0.02)
    shares = physics.histogram[0] / interval.served[0]
    assert shares == pytest.approx([np.mean(drawn <= 60), np.mean(drawn <= 400)], abs=0.01)


@pytest.mark.parametrize("cv2", [0.0, 0.5])
def test_percentiles_with_slow_replicas_are_those_of_the_mixture_drawn_one_by_one(cv2):
    params = replace(EXACT, service_cv2=cv2, slow_per_hour=300.0, slow_s=1e6, slow_share=0.4)
    physics = ServicePhysics(params, 1, 3, 10)
    physics.advance(seconds=5, rate_rps=100.0)
    while physics.read("slow")[0] < 3:
        physics.advance(seconds=1, rate_rps=100.0)
    physics.set_params(None, replace(params, slow_per_hour=0.0))
    physics.advance(seconds=50, rate_rps=100.0)
    slow = physics.read("slow")[0]
    interval = physics.advance(seconds=5, rate_rps=100.0)
    left = 25 * (10 - 0.6 * slow)
    rho = 100 / left
    waits = rho ** (math.sqrt(22) - 1)
    weight = 0.4 * slow / (10 - 0.6 * slow)
    drawn = brute_force(cv2, waits, math.sqrt(10) * (1 - rho) / 0.040, 0.040, (weight, 0.4))
    assert interval.quantiles_ms[:, 0] == pytest.approx(np.quantile(drawn, [0.5, 0.95, 0.99]), rel=0.02)
    assert interval.violation_share[0] == pytest.approx(np.mean(drawn > 250), abs=0.002)


def test_a_little_variance_of_service_is_nearly_none():
    shown = []
    for cv2 in (0.0, 1e-4):
        physics = ServicePhysics(replace(EXACT, service_cv2=cv2), 1, 0, 10)
        shown.append(physics.advance(seconds=60, rate_rps=220.0).quantiles_ms)
    assert shown[1] == pytest.approx(shown[0], rel=0.02)


# what monitoring makes of it


def test_lagging_metrics_show_what_they_would_have_shown_that_much_earlier():
    rates = 100 + 50 * np.sin(np.arange(100))
    prompt, late = (
        ServicePhysics(EXACT, 1, 0, 10),
        ServicePhysics(replace(EXACT, metric_lag_s=30.0), 1, 0, 10),
    )
    shown = []
    for rate in rates:
        pair = []
        for physics in (prompt, late):
            physics.advance(seconds=5, rate_rps=rate)
            metrics = physics.metrics()
            pair.append([metrics.request_rate[0], metrics.latency_ms[0], metrics.in_flight[0]])
        shown.append(pair)
    values = np.array(shown)
    assert np.array_equal(values[30:, 1], values[24:-6, 0])


def prometheus_rate(times: np.ndarray, counts: np.ndarray, start_s: float, end_s: float) -> float:
    """`extrapolatedRate` of promql/functions.go, word for word."""
    kept = (times > start_s) & (times <= end_s)
    times, counts = times[kept], counts[kept]
    if len(times) < 2:
        return math.nan
    increase = counts[-1] - counts[0]
    to_start, to_end = times[0] - start_s, end_s - times[-1]
    sampled = times[-1] - times[0]
    average = sampled / (len(times) - 1)
    threshold = average * 1.1
    if to_start >= threshold:
        to_start = average / 2
    if increase > 0 and counts[0] >= 0:
        to_zero = sampled * (counts[0] / increase)
        to_start = min(to_start, to_zero)
    if to_end >= threshold:
        to_end = average / 2
    return increase * ((sampled + to_start + to_end) / sampled) / (end_s - start_s)


def test_rates_follow_prometheus_rule_where_scrapes_are_missing():
    params = replace(EXACT, scrape_loss=0.4, rate_extrapolation=1.0, window_s=90.0, metric_lag_s=7.0)
    physics = ServicePhysics(params, 60, 5, 10)
    differing = 0
    for turn in range(30):
        physics.advance(seconds=13, rate_rps=50.0 + 10 * turn)
        for row, shown in enumerate(physics.metrics().request_rate):
            ring = physics.arrays.scrapes[row, : int(physics.read("scrapes")[row])]
            end_s = physics.clock_s[row] - 7.0
            expected = prometheus_rate(ring[:, 0], ring[:, 1], end_s - 90.0, end_s)
            assert shown == pytest.approx(expected, nan_ok=True)
            kept = ring[(ring[:, 0] > end_s - 90) & (ring[:, 0] <= end_s)]
            if len(kept) > 1:
                plain = (kept[-1, 1] - kept[0, 1]) / (kept[-1, 0] - kept[0, 0])
                differing += abs(plain - shown) > 0.01 * shown
    assert differing > 50


def test_a_window_that_the_kept_samples_do_not_cover_is_refused():
    with pytest.raises(ParameterError, match=r"window_s \+ metric_lag_s: 90.0 is not allowed"):
        ServicePhysics(ServiceParams(scrape_interval_s=1.0, window_s=60.0, metric_lag_s=30.0))


# the kernels and the draw


def test_the_kernels_can_be_called_directly():
    one, other = ServicePhysics(ServiceParams(), 5, 1, 4), ServicePhysics(ServiceParams(), 5, 1, 4)
    rows, shown = np.array([0, 2, 4]), np.empty((7, 3))
    other.scale(rows, 9)
    other.advance(rows, 90, 120.0)
    scale_rows(rows, np.full(3, 9), one.arrays)
    advance_rows(rows, np.full(3, 90), np.full(3, 120.0), one.arrays)
    metrics_rows(rows, one.arrays, shown)
    metrics = other.metrics(rows)
    assert np.array_equal(one.arrays.state, other.arrays.state)
    assert np.array_equal(shown[0], metrics.request_rate)
    assert np.array_equal(shown[6], metrics.current)


def test_the_default_scenarios_have_no_trouble_and_the_harsh_ones_all_of_it():
    rng = np.random.default_rng(0)
    calm = [draw_params(rng, ScenarioConfig()) for _ in range(20)]
    for name in TROUBLES:
        assert {getattr(params, name) for params in calm} == {getattr(ServiceParams(), name)}
    harsh = [draw_params(rng, ScenarioConfig.harsh()) for _ in range(200)]
    for name in TROUBLES:
        if name not in ("retry_after_s", "rate_extrapolation"):
            on = np.mean([getattr(params, name) != getattr(ServiceParams(), name) for params in harsh])
            assert on == pytest.approx(0.5, abs=0.12), name
    assert all(params.rate_extrapolation == 1.0 for params in harsh)
    for params in harsh:
        params.matrix(1)
    assert ScenarioConfig.harsh(stress_share=1.0).stress_share == 1.0


@pytest.mark.parametrize(
    ("field", "value"),
    [("service_cv2", 11.0), ("retry_share", 1.0), ("cold_share", 0.0), ("arrival_dispersion", 0.5),
     ("slow_share", 0.0), ("neighbour_share", 1.0), ("crashes_per_hour", -1.0)],
)  # fmt: skip
def test_a_feature_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ParameterError, match=f"{field}: {value}"):
        ServicePhysics(ServiceParams(**{field: value}))
