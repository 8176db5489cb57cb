from __future__ import annotations

import heapq
import math
from dataclasses import replace

import numpy as np
import pytest

from sim.errors import ParameterError
from sim.physics import ServiceParams, ServicePhysics, service_seeds
from sim.pools import PoolParams, PoolsPhysics, RouteParams
from sim.requests import BALANCERS, RequestSimulator
from sim.requests.draws import (
    STREAM_BALANCER,
    bucket,
    bucket_edges_s,
    moments_in_second,
    percentile_ms,
    service_quantiles,
    service_share,
)
from sim.requests.simulator import _draw_counts

EQUAL = ServiceParams(
    capacity_rps=100.0, base_latency_ms=10.0, capacity_spread=0.0, timeout_s=3600.0, slo_latency_ms=100.0
)
"""Replicas of one worker that takes 10 ms."""


def run(params: ServiceParams, replicas: int, rho: float, balancer: str, seconds: int = 2000, **more):
    """Mean latency (ms) in a steady state, and the simulator."""
    simulator = RequestSimulator(params, 1, 3, replicas, balancer, **more)
    rate = rho * replicas * float(params.capacity_rps)
    simulator.advance(seconds=seconds // 10, rate_rps=rate)
    before = simulator.histogram[0]
    simulator.advance(seconds=seconds, rate_rps=rate)
    return mean_ms(simulator.histogram[0] - before, simulator.edges_s), simulator


def mean_ms(counts, edges_s):
    return float(1000 * (counts * 0.5 * (edges_s[1:] + edges_s[:-1])).sum() / counts.sum())


def erlang_c(servers: int, load: float) -> float:
    """P(W > 0) of M/M/c by Erlang B's recursion."""
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    rho = load / servers
    return blocked / (1 - rho + rho * blocked)


def drawn_requests(params: ServiceParams, rate: float, seconds: int, seed: int):
    """The arrivals and service shares that the simulator draws, from its own draws."""
    service_seed = service_seeds(seed, 1)[0]
    counts = np.zeros(seconds, dtype=np.int64)
    _draw_counts(np.full(seconds, rate), counts, 0, service_seed, 1.0)
    table = service_quantiles(float(params.service_cv2))
    arrivals: list[float] = []
    buffer = np.zeros(int(counts.max()) + 1)
    for second, count in enumerate(counts):
        moments_in_second(buffer, count, second, service_seed, len(arrivals), True)
        arrivals += buffer[:count].tolist()
    shares = [service_share(table, service_seed, index) for index in range(1, len(arrivals) + 1)]
    return arrivals, shares, service_seed


# known answers


@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_one_worker_with_exponential_service_is_m_m_1(rho):
    found, simulator = run(replace(EQUAL, service_cv2=1.0), 1, rho, "central", 8000)
    assert found == pytest.approx(10 / (1 - rho), rel=0.05)
    # the whole distribution: the time in an M/M/1 is exponential
    expected = [10 / (1 - rho) * -math.log(1 - q) for q in (0.5, 0.95)]
    assert simulator.percentiles_ms((50, 95))[0] == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_a_random_split_of_constant_service_is_m_d_1(rho):
    found, _ = run(EQUAL, 5, rho, "random", 5000)
    assert found == pytest.approx(10 + 10 * rho / (2 * (1 - rho)), rel=0.03)


@pytest.mark.parametrize("cv2", [0.3, 2.0])
def test_a_random_split_of_variable_service_follows_pollaczek_and_khinchine(cv2):
    found, _ = run(replace(EQUAL, service_cv2=cv2), 5, 0.7, "random", 8000)
    assert found == pytest.approx(10 + 10 * 0.7 * (1 + cv2) / (2 * 0.3), rel=0.04)


@pytest.mark.parametrize(("replicas", "workers"), [(4, 1), (5, 4), (2, 16)])
def test_one_queue_is_m_m_c_by_erlang(replicas, workers):
    params = replace(EQUAL, service_cv2=1.0, capacity_rps=100.0 * workers)
    found, _ = run(params, replicas, 0.85, "central", 4000)
    servers = replicas * workers
    wait = 10 * erlang_c(servers, 0.85 * servers) / (servers * 0.15)
    assert found == pytest.approx(10 + wait, rel=0.02)


def test_two_choices_are_mitzenmachers_limit():
    found, _ = run(replace(EQUAL, service_cv2=1.0), 200, 0.8, "power-of-two", 300)
    assert found == pytest.approx(10 * sum(0.8 ** (2**level - 2) for level in range(1, 12)), rel=0.02)


def test_round_robin_of_constant_service_never_waits_where_arrivals_are_even():
    _, simulator = run(replace(EQUAL, poisson=0.0), 4, 0.95, "round-robin", 100)
    assert simulator.percentiles_ms(100)[0, 0] < 10.4


def test_more_information_shortens_the_wait():
    params = replace(EQUAL, service_cv2=1.0)
    means = [run(params, 10, 0.85, name, 1500)[0] for name in BALANCERS]
    assert means == sorted(means)
    partly = run(params, 10, 0.85, "least-request", 1500, proxies=8)[0]
    assert means[1] * 1.1 < partly < means[-1]


# brute force


def test_one_queue_equals_a_simulation_that_looks_at_every_worker():
    params = replace(EQUAL, capacity_rps=300.0, service_cv2=1.0)
    arrivals, shares, _ = drawn_requests(params, 800.0, 20, 7)
    free = [0.0] * 9
    heapq.heapify(free)
    expected = np.zeros(len(bucket_edges_s()) - 1)
    for begin, share in zip(arrivals, shares, strict=True):
        end = max(begin, heapq.heappop(free)) + 0.01 * share
        heapq.heappush(free, end)
        expected[bucket(end - begin)] += end < 20
    simulator = RequestSimulator(params, 1, 7, 3, "central")
    simulator.advance(seconds=20, rate_rps=800.0)
    assert simulator.total("arrived")[0] == len(arrivals)
    np.testing.assert_array_equal(simulator.histogram[0], expected)


def test_two_choices_equal_a_simulation_that_lists_every_request():
    from sim.noise import uniform

    params = replace(EQUAL, service_cv2=0.5, capacity_rps=200.0)
    arrivals, shares, seed = drawn_requests(params, 1000.0, 10, 5)
    there: list[list[float]] = [[] for _ in range(6)]
    free = [[0.0, 0.0] for _ in range(6)]
    expected = np.zeros(len(bucket_edges_s()) - 1)
    for index, (begin, share) in enumerate(zip(arrivals, shares, strict=True), start=1):
        there = [[end for end in ends if end > begin] for ends in there]
        drawn = uniform(seed, index, STREAM_BALANCER)
        first = int(drawn * 6)
        second = int((drawn * 6 - first) * 5)
        second += second >= first
        chosen = first if len(there[first]) <= len(there[second]) else second
        end = max(begin, heapq.heappop(free[chosen])) + 0.01 * share
        heapq.heappush(free[chosen], end)
        there[chosen].append(end)
        expected[bucket(end - begin)] += end <= 10
    simulator = RequestSimulator(params, 1, 5, 6, "power-of-two")
    simulator.advance(seconds=10, rate_rps=1000.0)
    np.testing.assert_array_equal(simulator.histogram[0], expected)


def test_least_request_always_takes_a_replica_with_the_fewest():
    # with as many replicas as requests at once, nobody ever waits
    _, simulator = run(EQUAL, 60, 0.5, "least-request", 100)
    assert simulator.percentiles_ms(99.9)[0, 0] < 10.4


# conservation, common random numbers, determinism

TROUBLED = ServiceParams(
    capacity_rps=40.0,
    base_latency_ms=60.0,
    timeout_s=2.0,
    start_up_s=5.0,
    start_up_spread=0.3,
    service_cv2=0.7,
    arrival_dispersion=3.0,
    retry_share=0.6,
    retry_after_s=0.8,
    readiness_period_s=3.0,
    cold_share=0.4,
    warming_s=10.0,
    crashes_per_hour=200.0,
    node_losses_per_hour=100.0,
    node_share=0.3,
    slow_per_hour=300.0,
    slow_s=20.0,
    failing_per_hour=300.0,
    failing_s=10.0,
    neighbour_per_hour=100.0,
    neighbour_s=20.0,
)


@pytest.mark.parametrize("balancer", BALANCERS)
def test_every_attempt_is_served_dropped_or_queued_whatever_happens(balancer):
    simulator = RequestSimulator(TROUBLED, 1, 11, 8, balancer, 2)
    rng = np.random.default_rng(1)
    summed = np.zeros(3)
    for _ in range(60):
        simulator.scale(None, int(rng.integers(0, 16)))
        part = simulator.advance(seconds=5, rate_rps=float(rng.uniform(0, 500)))
        summed += part.arrived[0], part.served[0], part.dropped[0]
        arrived, served, dropped = (simulator.total(name)[0] for name in ("arrived", "served", "dropped"))
        assert arrived == served + dropped + simulator.queued[0]
        assert simulator.histogram[0].sum() == served
        assert simulator.total("violating")[0] <= arrived
    assert summed == pytest.approx([arrived, served, dropped])
    assert dropped > 100
    retried = arrived - simulator.total("offered")[0]
    assert 0.5 * dropped < retried + simulator.coming_again[0] < 0.7 * dropped
    # nobody comes any more: all of it ends
    simulator.scale(None, 16)
    simulator.advance(seconds=120, rate_rps=0.0)
    assert simulator.queued[0] == 0


@pytest.mark.parametrize("balancer", BALANCERS)
def test_the_same_seed_gives_the_same_and_calls_may_be_cut_anywhere(balancer):
    def once(seed: int, cuts: tuple[int, ...]):
        simulator = RequestSimulator(TROUBLED, 1, seed, 8, balancer)
        for cut in cuts:
            simulator.advance(seconds=cut, rate_rps=250.0)
        return simulator.histogram[0], simulator.total("dropped")[0], simulator.total("used_s")[0]

    whole, cut, other = once(4, (60,)), once(4, (1, 13, 30, 16)), once(5, (60,))
    np.testing.assert_array_equal(whole[0], cut[0])
    assert whole[1:] == cut[1:]
    assert not np.array_equal(whole[0], other[0])


@pytest.mark.parametrize("cv2", [0.0, 1.0])
def test_another_ready_replica_never_raises_any_wait_in_one_queue(cv2):
    params = replace(EQUAL, service_cv2=cv2, timeout_s=600.0)
    for rate in (350.0, 480.0, 600.0):
        below = []
        for replicas in (5, 6, 7):
            simulator = RequestSimulator(params, 1, 2, replicas, "central")
            simulator.advance(seconds=30, rate_rps=rate)
            simulator.advance(seconds=60, rate_rps=0.0)
            below.append(np.cumsum(simulator.histogram[0]))
        assert (np.diff(below, axis=0) >= 0).all()


@pytest.mark.parametrize("balancer", BALANCERS[1:])
def test_another_ready_replica_never_raises_the_mean_latency(balancer):
    for rate in (300.0, 460.0, 520.0):
        means = [
            mean_ms(simulator.histogram[0], simulator.edges_s)
            for replicas in (5, 6, 8)
            for simulator in [RequestSimulator(replace(EQUAL, timeout_s=5), 1, 2, replicas, balancer)]
            if simulator.advance(seconds=200, rate_rps=rate)
        ]
        assert means == sorted(means, reverse=True)


def test_requests_replicas_and_bills_are_the_fluids_own():
    params = replace(
        ServiceParams(start_up_s=20.0, start_up_spread=0.3, readiness_period_s=5.0), arrival_dispersion=4.0
    )
    fluid, single = ServicePhysics(params, 1, 9, 6), RequestSimulator(params, 1, 9, 6)
    rates = np.abs(np.sin(np.arange(40))) * 100
    fluid.set_rates(rates, 15.0)
    single.set_rates(rates, 15.0)
    for count in (9, 14, 12, 5, 5, 8, 8, 3):
        fluid.scale(None, count)
        single.scale(None, count)
        for _ in range(3):
            whole, parts = fluid.advance(seconds=7), single.advance(seconds=7)
            assert whole.arrived[0] == parts.arrived[0]
            assert whole.replica_s[0] == parts.replica_s[0]
            assert fluid.ready[0] == single.ready[0]
            assert fluid.replicas[0] == single.replicas[0]


def test_crashes_and_node_losses_strike_as_in_the_fluid():
    params = ServiceParams(
        start_up_s=20.0, crashes_per_hour=60.0, node_losses_per_hour=60.0, node_share=0.3, start_up_spread=0.2
    )
    fluid, single = ServicePhysics(params, 1, 3, 12), RequestSimulator(params, 1, 3, 12, "least-request")
    seen = []
    for _ in range(300):
        fluid.advance(seconds=1, rate_rps=100.0)
        single.advance(seconds=1, rate_rps=100.0)
        seen.append((int(fluid.ready[0]), int(single.ready[0])))
    assert min(ready for ready, _ in seen) < 10
    assert all(ready == other for ready, other in seen)


# time-outs, replicas that come, go and ail


@pytest.mark.parametrize("balancer", BALANCERS)
def test_overload_drops_what_is_too_much_and_nobody_waits_longer_than_his_patience(balancer):
    params = replace(EQUAL, timeout_s=2.0)
    simulator = RequestSimulator(params, 1, 1, 5, balancer)
    simulator.advance(seconds=30, rate_rps=650.0)
    part = simulator.advance(seconds=60, rate_rps=650.0)
    assert part.served[0] == pytest.approx(500 * 60, rel=0.01)
    assert part.dropped[0] == pytest.approx(part.arrived[0] - 500 * 60, rel=0.05)
    assert simulator.percentiles_ms(100)[0, 0] < 2010 * 1.032
    assert part.violation_share[0] > 0.95


def test_without_replicas_requests_wait_and_the_first_ones_there_take_them():
    simulator = RequestSimulator(replace(EQUAL, start_up_s=5.0, start_up_spread=0.0), 1, 1, 0)
    simulator.scale(None, 2)
    simulator.advance(seconds=5, rate_rps=20.0)
    assert simulator.total("served")[0] == 0
    assert simulator.queued[0] == simulator.total("arrived")[0] > 50
    simulator.advance(seconds=10, rate_rps=0.0)
    assert simulator.queued[0] == 0
    assert simulator.percentiles_ms(50)[0, 0] > 2000


@pytest.mark.parametrize("balancer", BALANCERS)
def test_a_removed_replica_finishes_what_it_holds_and_is_billed_for_its_drain(balancer):
    simulator = RequestSimulator(replace(EQUAL, drain_s=10.0), 1, 1, 5, balancer)
    simulator.advance(seconds=20, rate_rps=600.0)
    billed = simulator.total("replica_s")[0]
    simulator.scale(None, 2)
    assert simulator.total("replica_s")[0] == billed + 3 * 10
    simulator.advance(seconds=60, rate_rps=0.0)
    assert simulator.total("dropped")[0] == 0
    assert simulator.queued[0] == 0


def test_a_crash_loses_what_the_replica_holds():
    params = replace(EQUAL, crashes_per_hour=3000.0, start_up_s=2.0)
    simulator = RequestSimulator(params, 1, 1, 6, "least-request")
    simulator.advance(seconds=60, rate_rps=300.0)
    assert simulator.total("dropped")[0] > 10


def test_failing_replicas_answer_errors_by_their_share():
    params = replace(EQUAL, failing_per_hour=60.0, failing_s=60.0)
    simulator = RequestSimulator(params, 1, 1, 20, "random")
    fluid = ServicePhysics(params, 1, 1, 20)
    one, other = simulator.advance(seconds=600, rate_rps=800.0), fluid.advance(seconds=600, rate_rps=800.0)
    assert one.dropped[0] == pytest.approx(other.dropped[0], rel=0.02)
    assert one.dropped[0] > 0.2 * one.arrived[0]


def test_a_slow_replica_hurts_where_the_balancer_does_not_look():
    params = replace(EQUAL, slow_per_hour=20.0, slow_share=0.2, slow_s=60.0, timeout_s=5.0)
    blind, seeing = (
        RequestSimulator(params, 1, 1, 20, name).advance(seconds=900, rate_rps=1000.0).violation_share[0]
        for name in ("round-robin", "least-request")
    )
    assert blind > 0.05
    assert seeing < 0.25 * blind


def test_cold_replicas_and_neighbours_lengthen_service():
    cold = replace(EQUAL, cold_share=0.25, warming_s=20.0, start_up_s=1.0)
    simulator = RequestSimulator(cold, 1, 1, 0)
    simulator.scale(None, 50)
    simulator.advance(seconds=2, rate_rps=0.0)
    assert simulator.advance(seconds=1, rate_rps=300.0).p50_ms[0] == pytest.approx(
        10 / (1 - 0.75 * math.exp(-1.5 / 20)), rel=0.05
    )
    simulator.advance(seconds=100, rate_rps=0.0)
    assert simulator.advance(seconds=1, rate_rps=300.0).p50_ms[0] == pytest.approx(10, rel=0.05)
    crowded = replace(EQUAL, neighbour_per_hour=3600.0, neighbour_share=0.5, neighbour_s=1000.0)
    found = RequestSimulator(crowded, 1, 1, 50)
    found.advance(seconds=10, rate_rps=0.0)
    assert found.advance(seconds=5, rate_rps=300.0).p50_ms[0] == pytest.approx(20, rel=0.05)


def test_the_rest_of_the_base_latency_takes_no_worker():
    params = replace(EQUAL, base_latency_ms=25.0)  # two workers of 20 ms, and 5 ms
    simulator = RequestSimulator(params, 1, 1, 4, "central")
    simulator.advance(seconds=60, rate_rps=100.0)
    assert simulator.percentiles_ms(50)[0, 0] == pytest.approx(25, rel=0.03)
    simulator.advance(seconds=60, rate_rps=4000.0)
    assert simulator.advance(seconds=60, rate_rps=4000.0).served[0] == pytest.approx(400 * 60, rel=0.01)


# metrics, pools, input


def test_metrics_show_rate_utilisation_and_the_percentile_of_the_window():
    simulator = RequestSimulator(replace(EQUAL, service_cv2=1.0, idle_utilisation=0.0), 1, 1, 10, "random")
    assert np.isnan(simulator.metrics().request_rate[0])
    simulator.advance(seconds=300, rate_rps=600.0)
    shown = simulator.metrics()
    assert shown.request_rate[0] == pytest.approx(600, rel=0.03)
    assert shown.utilisation[0] == pytest.approx(0.6, rel=0.05)
    assert shown.latency_ms[0] == pytest.approx(10 / 0.4 * 3.0, rel=0.1)
    assert shown.error_ratio[0] == 0
    assert (shown.ready[0], shown.current[0]) == (10, 10)
    assert shown.in_flight[0] == pytest.approx(15, abs=14)


def test_weights_split_a_route_over_its_pools():
    params = replace(EQUAL, capacity_rps=np.array([100.0, 50.0]), base_latency_ms=np.array([10.0, 20.0]))
    simulator = RequestSimulator(params, 2, 1, np.array([8, 8]), "least-request")
    table = np.vstack([np.tile([90.0, 10.0], (100, 1)), [[40.0, 60.0]]])
    simulator.set_weights(table)
    first = simulator.advance(seconds=100, rate_rps=400.0)
    then = simulator.advance(seconds=100, rate_rps=400.0)
    assert first.arrived[1] / first.arrived.sum() == pytest.approx(0.1, abs=0.01)
    assert then.arrived[1] / then.arrived.sum() == pytest.approx(0.6, abs=0.02)
    total = simulator.total("arrived") - simulator.total("served") - simulator.total("dropped")
    np.testing.assert_array_equal(total, simulator.queued)
    # the route's requests are those of a service with the same seed
    alone = RequestSimulator(EQUAL, 1, service_seeds(1, 2)[:1], 8)
    assert alone.advance(seconds=100, rate_rps=400.0).arrived[0] == first.arrived.sum()


def test_reclaimed_replicas_are_replaced_and_go_when_their_notice_is_over():
    params = replace(EQUAL, start_up_s=20.0, start_up_spread=0.0)
    offer = PoolParams(sweeps_per_hour=60.0, sweep_share=0.5, notice_s=5.0)
    fluid = PoolsPhysics(1, 1, params, offer, RouteParams(), 4, 10)
    seeds = fluid.services.arrays.seeds
    simulator = RequestSimulator(params, 1, seeds, 10, "least-request", pools=offer)
    ready = []
    for _ in range(300):
        fluid.advance(seconds=1, rate_rps=300.0)
        simulator.advance(seconds=1, rate_rps=300.0)
        ready.append((int(fluid.ready[0, 0]), int(simulator.ready[0])))
        simulator.scale(None, 10)
        fluid.scale(None, 10)
    assert min(one for one, _ in ready) <= 5
    assert all(one == other for one, other in ready)
    arrived, served, dropped = (simulator.total(name)[0] for name in ("arrived", "served", "dropped"))
    assert arrived == served + dropped + simulator.queued[0]
    assert dropped == 0
    with pytest.raises(ParameterError, match="outages_per_hour"):
        RequestSimulator(params, pools=PoolParams(outages_per_hour=1.0))


def test_a_pool_without_replicas_refuses_where_a_service_lets_wait():
    pool = RequestSimulator(EQUAL, 1, 1, 0, pools=PoolParams())
    pool.advance(seconds=5, rate_rps=100.0)
    assert pool.total("dropped")[0] == pool.total("arrived")[0] > 400


def test_room_grows_with_a_queue_that_nobody_foresaw():
    for balancer in ("central", "least-request"):
        simulator = RequestSimulator(replace(EQUAL, timeout_s=300.0), 1, 1, 2, balancer)
        simulator.advance(seconds=20, rate_rps=5000.0)
        left = simulator.total("arrived")[0] - simulator.total("served")[0]
        assert simulator.queued[0] == left > 90_000


def test_gamma_service_times_have_mean_one_and_the_variance_asked_for():
    for cv2 in (0.1, 0.5, 1.0, 3.0):
        table = service_quantiles(cv2)
        drawn = np.array([service_share(table, 5, index) for index in range(40_000)])
        assert drawn.mean() == pytest.approx(1, abs=0.04)
        assert drawn.var() == pytest.approx(cv2, rel=0.1)
    np.testing.assert_allclose(service_quantiles(1.0)[64::64], np.arange(1, 41), rtol=2e-3)


def test_moments_ascend_within_their_second_and_buckets_hold_what_they_say():
    times = np.zeros(1000)
    moments_in_second(times, 1000, 42, 7, 0, True)
    assert (np.diff(times) > 0).all()
    assert times[0] >= 42
    assert times[-1] < 43
    assert np.histogram(times, 4, (42, 43))[0] == pytest.approx(250, abs=60)
    edges = bucket_edges_s()
    for value in (1e-5, 0.0123, 0.04, 1.0, 77.7):
        place = bucket(value)
        assert edges[place] <= value < edges[place + 1]
    counts = np.zeros(len(edges) - 1)
    assert np.isnan(percentile_ms(counts, 50, edges)[0])


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"balancer": "fastest"}, "balancer"),
        ({"proxies": 5000}, "proxies"),
        ({"services": 0}, "services"),
        ({"replicas": -1}, "replicas"),
        ({"params": ServiceParams(timeout_s=-1)}, "timeout_s"),
    ],
)
def test_bad_input_is_named(given, named):
    with pytest.raises(ParameterError, match=named):
        RequestSimulator(**given)


def test_bad_weights_and_rates_are_named():
    simulator = RequestSimulator(EQUAL, 2, 1, 2)
    for weights in ([[1.0]], [[-1.0, 2.0]], [[0.0, 0.0]]):
        with pytest.raises(ParameterError, match="weights"):
            simulator.set_weights(weights)
    with pytest.raises(ParameterError, match="rates_rps"):
        simulator.set_rates(np.ones((3, 4)), 1.0)
    with pytest.raises(ParameterError, match="rate_rps"):
        simulator.advance(seconds=1, rate_rps=-1.0)
    with pytest.raises(ParameterError, match="name"):
        simulator.total("requests")
