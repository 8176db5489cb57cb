from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import ParameterError
from sim.physics import ServiceParams, ServicePhysics
from sim.pools import PoolParams, PoolsPhysics, RouteParams, equal_weights
from sim.pools.kernels import thinned

PLAIN = ServiceParams(capacity_rps=25.0, start_up_s=20.0, start_up_spread=0.0, capacity_spread=0.0)
EXACT = RouteParams(propagation_s=0.0, poisson=0.0)
STORMY = PoolParams(
    reclaims_per_hour=3.0,
    sweeps_per_hour=4.0,
    sweep_share=0.7,
    notice_s=20.0,
    shortage_s=60.0,
    slowdowns_per_hour=6.0,
    slowdown_s=90.0,
    outages_per_hour=6.0,
    outage_s=90.0,
)


def pools(sets=1, count=3, **changes):
    usual = {"service": PLAIN, "params": PoolParams(), "route": RouteParams(), "seed": 0, "replicas": 4}
    return PoolsPhysics(sets, count, **usual | changes)


@pytest.mark.parametrize(("trials", "share"), [(1, 0.3), (20, 0.1), (20, 0.9), (60, 0.5), (400, 0.4)])
def test_thinning_draws_from_the_binomial_distribution(trials, share):
    steps = (np.arange(4000) + 0.5) / 4000
    drawn = np.array([thinned(float(trials), share, u) for u in steps])
    assert drawn.min() >= 0
    assert drawn.max() <= trials
    assert (np.diff(drawn) >= 0).all()
    hits = np.arange(trials + 1)
    chance = np.array([math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in hits])
    seen = np.array([(drawn <= k).mean() for k in hits])
    assert np.abs(seen - np.cumsum(chance)).max() < 0.003


def test_thinning_knows_its_limits():
    assert thinned(0.0, 0.5, 0.5) == 0.0
    assert thinned(10.0, 0.0, 0.999) == 0.0
    assert thinned(10.0, 1.0, 1e-9) == 10.0


def test_a_single_pool_is_a_service():
    alone = ServicePhysics(ServiceParams(poisson=0.0), 1, seed=3, replicas=3)
    route = pools(1, 1, service=ServiceParams(poisson=0.0), route=EXACT, replicas=3)
    route.services.arrays.seeds[:] = alone.arrays.seeds
    alone.place(None, 0)
    alone.reset(None, ServiceParams(poisson=0.0), alone.arrays.seeds, 3)
    route.services.reset(None, ServiceParams(poisson=0.0), alone.arrays.seeds, 3)
    for rate, replicas in ((60.0, 3), (120.0, 6), (90.0, 6), (30.0, 2), (70.0, 4)):
        alone.scale(None, replicas)
        route.scale(None, replicas)
        one, other = alone.advance(None, 37, rate), route.advance(None, 37, rate)
        for name in ("arrived", "served", "dropped", "violating", "replica_s", "p50_ms", "p95_ms", "p99_ms"):
            assert getattr(other, name)[0, 0] == getattr(one, name)[0], name
        assert np.array_equal(route.metrics().latency_ms[0], alone.metrics().latency_ms, equal_nan=True)


def test_how_many_requests_come_does_not_depend_on_weights_replicas_or_events():
    weights = ([100, 0, 0], [34, 33, 33], [1, 1, 98], [0, 50, 50])
    arrived = []
    for params in (PoolParams(), STORMY):
        for row, split in enumerate(weights):
            physics = pools(4, params=params, seed=np.arange(4), replicas=2 + row)
            physics.route(None, split)
            steps = [physics.advance(None, 30, 80.0) for _ in range(20)]
            arrived.append([step.arrived.sum(axis=1) for step in steps])
            assert np.array_equal(steps[3].offered, steps[3].arrived.sum(axis=1))
    assert all(np.array_equal(arrived[0], one) for one in arrived)
    assert len(np.unique(arrived[0])) > 40, "and it is random"


def test_requests_are_split_as_a_multinomial_by_the_weights():
    physics = pools(4000, seed=1, replicas=20)
    physics.route(None, [60, 30, 10])
    physics.advance(None, 10, 90.0)
    came = physics.advance(None, 1, 90.0).arrived
    shares = np.array([0.6, 0.3, 0.1])
    # Poisson arrivals thinned are independent Poissons: mean and variance are both rate * share
    assert came.mean(axis=0) == pytest.approx(90 * shares, rel=0.02)
    assert came.var(axis=0) == pytest.approx(90 * shares, rel=0.1)
    assert np.abs(np.corrcoef(came.T) - np.eye(3)).max() < 0.06


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**31),
    st.floats(5, 400),
    st.floats(0.0, 0.8),
    st.lists(st.integers(0, 12), min_size=9, max_size=9),
)
def test_requests_are_conserved_through_reclaims_failures_and_retries(seed, rate, retry, replicas):
    route = RouteParams(propagation_s=7.0, retry_share=retry, retry_after_s=3.0)
    physics = pools(2, params=STORMY, route=route, seed=np.array([seed, seed + 1]), replicas=3)
    rng = np.random.default_rng(seed)
    offered, arrived, dropped, done, late = (
        np.zeros(2),
        np.zeros(2),
        np.zeros(2),
        np.zeros((2, 3)),
        np.zeros(2),
    )
    for _ in range(12):
        physics.scale(None, rng.choice(replicas, (2, 3)))
        physics.route(None, rng.multinomial(100, [0.5, 0.3, 0.2], 2))
        step = physics.advance(None, 29, rate)
        offered += step.offered
        arrived += step.arrived.sum(axis=1)
        dropped += step.dropped.sum(axis=1)
        done += step.arrived - step.served - step.dropped
        late += step.violating.sum(axis=1)
        assert (late <= arrived + 1e-6).all()
        assert (step.violation_share <= 1.0).all()
    assert done == pytest.approx(physics.backlog, abs=1e-6)
    assert (physics.backlog >= 0).all()
    assert physics.total("arrived") == pytest.approx(arrived)
    # what failed and was going to be tried again either came, or is still to come
    assert arrived - offered + physics.total("retrying") == pytest.approx(retry * dropped, abs=1e-6)


def test_over_dispersed_arrivals_are_those_of_the_whole_set():
    physics = pools(4000, seed=3, replicas=20, route=RouteParams(arrival_dispersion=6.0))
    physics.route(None, [60, 30, 10])
    physics.advance(None, 6, 90.0)
    came = physics.advance(None, 1, 90.0).arrived
    total = came.sum(axis=1)
    assert total.mean() == pytest.approx(90, rel=0.02)
    assert total.var() == pytest.approx(6 * 90, rel=0.12)
    # thinned to a share, the excess over Poisson shrinks with it: 1 + share * (6 - 1)
    assert came.var(axis=0) / came.mean(axis=0) == pytest.approx([4.0, 2.5, 1.5], rel=0.12)
    assert np.corrcoef(came[:, 0], came[:, 1])[0, 1] > 0.3, "pools get their bursts together"


def test_weights_come_into_force_after_the_propagation_delay_and_in_order():
    physics = pools(route=RouteParams(propagation_s=12.0, poisson=0.0))
    physics.route(None, [100, 0, 0])
    physics.advance(None, 20, 50.0)
    physics.route(None, [0, 100, 0])
    physics.advance(None, 5, 50.0)
    physics.route(None, [0, 0, 100])
    assert physics.weights.tolist() == [[100, 0, 0]]
    assert physics.weights_asked.tolist() == [[0, 0, 100]]
    shares = [physics.advance(None, 1, 50.0).arrived[0].tolist() for _ in range(20)]
    assert shares == [[50, 0, 0]] * 7 + [[0, 50, 0]] * 5 + [[0, 0, 50]] * 8
    assert physics.metrics().weights.tolist() == [[0, 0, 100]]


def test_a_burst_of_changes_ends_with_the_last_one():
    physics = pools(route=RouteParams(propagation_s=300.0, poisson=0.0))
    for second in range(100):
        physics.route(None, [100 - second, second, 0])
        physics.advance(None, 1, 10.0)
    physics.advance(None, 300, 10.0)
    assert physics.weights.tolist() == [[1, 99, 0]]


def test_weights_that_were_asked_for_earlier_never_come_back():
    route = RouteParams(propagation_s=10.0, propagation_spread=1.0)
    physics = pools(200, 2)
    physics.reset(None, PLAIN, PoolParams(), route, np.arange(200), 4, weights=[100, 0])
    seen = []
    for second in range(60):
        physics.route(None, [100 - second, second])
        physics.advance(None, 1, 10.0)
        seen.append(physics.weights[:, 1])
    seen = np.array(seen)
    assert (np.diff(seen, axis=0) >= 0).all()
    lag = np.arange(60)[30:, None] - seen[30:]
    assert lag.std() > 1
    assert 2 < np.median(lag) < 10, "whatever overtakes them makes earlier changes obsolete"


def test_a_pool_without_a_ready_replica_fails_its_share_at_once():
    physics = pools(route=EXACT, replicas=[4, 4, 0])
    physics.route(None, [40, 40, 20])
    step = physics.advance(None, 10, 50.0)
    assert step.dropped[0].tolist() == [0.0, 0.0, pytest.approx(100.0)]
    assert step.violating[0, 2] == pytest.approx(100.0)
    assert step.unrouted.tolist() == [pytest.approx(100.0)]
    assert step.violation_share[0] == pytest.approx(0.2, abs=0.01)
    assert physics.backlog[0, 2] == 0.0
    physics.advance(None, 60, 50.0)
    assert physics.metrics().error_ratio[0].tolist() == [0.0, 0.0, 1.0]
    physics.scale(None, 4)
    physics.advance(None, 40, 50.0)
    assert physics.advance(None, 10, 50.0).dropped.sum() == 0.0


def test_absent_pools_get_nothing_and_show_nothing():
    physics = pools(2)
    there = np.array([[True, True, False], [False, True, False]])
    physics.reset(None, PLAIN, STORMY, EXACT, np.arange(2), 4, present=there)
    assert physics.weights.tolist() == [[50, 50, 0], [0, 100, 0]]
    physics.scale(None, 6)
    step = physics.advance(None, 120, 50.0)
    assert (step.arrived[~there] == 0).all()
    assert (step.cost[~there] == 0).all()
    assert (step.arrived[there] > 0).all()
    assert physics.replicas[~there].tolist() == [0, 0, 0]
    shown = physics.metrics()
    assert np.isnan(shown.request_rate[~there]).all()
    assert np.isfinite(shown.request_rate[there]).all()
    assert np.isfinite(step.percentile_ms(95)).all()
    with pytest.raises(ParameterError, match="0 for a pool that is absent"):
        physics.route(None, [[50, 50, 0], [50, 50, 0]])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.floats(1.1, 3.0), st.integers(1, 12), st.integers(20, 90), st.data())
def test_shifting_weight_from_an_overloaded_to_an_idle_healthy_pool_never_hurts(
    seed, overload, replicas, weight, data
):
    """The first pool gets more than it can serve; the second is healthy and far from full after the shift.

    Tolerance: the same requests are counted, but another split draws other counts in each second: violating
    requests may rise by the noise of the idle pool's own second-to-second load, far below 0.1 % of requests.
    """
    rate = overload * replicas * 25.0 * 100 / weight
    shift = data.draw(st.integers(1, weight))
    idle = math.ceil(2.0 * rate * (100 - weight + shift) / 100 / 25.0) + 2

    def violating(first):
        physics = pools(1, 2, seed=seed, route=RouteParams(propagation_s=0.0), replicas=[replicas, idle])
        physics.route(None, [first, 100 - first])
        return sum(physics.advance(None, 30, rate).violating.sum() for _ in range(4))

    requests = 120 * rate
    assert violating(weight - shift) <= violating(weight) + 0.001 * requests


def test_replicas_are_told_to_go_as_often_as_the_parameters_say():
    quick = ServiceParams(start_up_s=0.0)
    spot = PoolParams(reclaims_per_hour=[0.0, 0.5, 2.0], notice_s=0.0)
    physics = pools(400, service=quick, params=spot, route=EXACT, seed=7, replicas=10)
    physics.advance(None, 1800, 1.0)
    # half an hour x 400 sets x 10 replicas x (0.5 + 2) an hour; the deviation of a Poisson count is its root
    expected = 0.5 * 400 * 10 * 2.5
    assert physics.total("reclaimed").sum() == pytest.approx(expected, abs=4 * math.sqrt(expected))
    sweeping = PoolParams(sweeps_per_hour=2.0, sweep_share=0.5, notice_s=0.0)
    physics = pools(400, service=quick, params=sweeping, route=EXACT, seed=8, replicas=[10, 0, 0])
    physics.advance(None, 1800, 1.0)
    taken = physics.total("reclaimed")
    assert set(np.unique(taken)) <= set(range(0, 100, 5))
    assert taken.sum() / 5 == pytest.approx(400, abs=4 * math.sqrt(400))


def swept(physics, seconds):
    """(clock, ready, billed) of one set each second."""
    rows = []
    for second in range(seconds):
        step = physics.advance(None, 1, 10.0)
        rows.append((second, int(physics.ready[0, 0]), step.replica_s[0, 0]))
    return np.array(rows)


def test_a_reclaimed_pool_serves_through_its_notice_and_is_replaced_meanwhile():
    spot = PoolParams(sweeps_per_hour=10.0, notice_s=30.0)
    physics = pools(1, 1, params=spot, route=EXACT, seed=2, replicas=8)
    rows = swept(physics, 3000)
    billed, ready = rows[:, 2], rows[:, 1]
    told = np.flatnonzero((billed[1:] == 16) & (billed[:-1] == 8)) + 1
    alone = [first for first in told if first + 40 < 3000 and (billed[first + 31 : first + 40] == 8).all()]
    assert len(alone) > 2
    for first in alone:
        assert (billed[first : first + 30] == 16).all(), "those told and those that start are billed"
        assert (ready[first : first + 20] == 8).all()
        assert (ready[first + 20 : first + 30] == 16).all(), "the new ones are ready, the old still serve"
        assert ready[first + 30] == 8
    assert physics.replicas.tolist() == [[8]]


def test_a_shortage_keeps_replacements_away_until_it_ends():
    spot = PoolParams(sweeps_per_hour=10.0, notice_s=5.0, shortage_s=120.0)
    physics = pools(1, 1, params=spot, route=EXACT, seed=4, replicas=8)
    ready, short = [], []
    for _ in range(3000):
        physics.advance(None, 1, 10.0)
        ready.append(int(physics.ready[0, 0]))
        short.append(bool(physics.failing("shortage")[0, 0]))
    ready, short = np.array(ready), np.array(short)
    assert 0.1 < short.mean() < 0.6
    assert (ready == 0).any()
    assert (ready == 8).any()
    assert physics.metrics().current.tolist() == [[8.0]]
    begun = np.flatnonzero(np.diff(short.astype(int)) == 1) + 1
    ended = np.flatnonzero(np.diff(short.astype(int)) == -1) + 1
    assert len(begun) > 2
    for start, end in zip(begun, ended, strict=False):
        # those that become ready up to 20 s after its beginning had been had before
        assert (np.diff(ready[start + 21 : end + 19]) <= 0).all(), "nobody comes during a shortage"


def test_scaling_down_during_a_notice_leaves_what_was_asked_for():
    spot = PoolParams(sweeps_per_hour=60.0, sweep_share=0.5, notice_s=60.0)
    physics = pools(1, 1, params=spot, route=EXACT, seed=1, replicas=10)
    while physics.total("reclaimed")[0] == 0:
        physics.advance(None, 1, 10.0)
    physics.scale(None, 3)
    calm = physics.arrays.eventful.copy()
    physics.arrays.params[:, :, 2] = 0.0
    physics.advance(None, 200, 10.0)
    assert calm.all()
    assert physics.ready.tolist() == [[3]]
    assert physics.arrays.told.tolist() == [[0]]


def test_a_slow_pool_is_slower_by_its_factor_and_recovers_completely():
    slow = PoolParams(slowdowns_per_hour=[0.0, 40.0], slowdown_factor=5.0, slowdown_s=60.0)
    physics = pools(1, 2, params=slow, route=EXACT, seed=3, replicas=20)
    base, capacity = physics.services.arrays.params[:, 4].copy(), physics.services.read("capacity_rps")
    seen = {False: [], True: []}
    for _ in range(900):
        step = physics.advance(None, 1, 100.0)
        seen[bool(physics.failing("slowdown")[0, 1])].append(step.p50_ms[0])
    calm, slowed = np.array(seen[False]), np.array(seen[True])
    assert len(slowed) > 50
    assert len(calm) > 50
    assert calm[:, 1].min() == pytest.approx(40.0, rel=0.02)
    assert slowed[:, 1].min() == pytest.approx(200.0, rel=0.02)
    assert np.ptp(seen[True], axis=0)[0] < 1.0, "the other pool does not notice"
    while physics.failing("slowdown")[0, 1]:
        physics.advance(None, 1, 100.0)
    assert physics.services.arrays.params[:, 4] == pytest.approx(base)
    assert physics.services.read("capacity_rps") == pytest.approx(capacity)


def test_an_outage_answers_errors_that_only_the_error_ratio_shows():
    bad = PoolParams(outages_per_hour=[0.0, 1000.0], outage_error_share=0.3, outage_s=3600.0)
    physics = pools(1, 2, params=bad, route=EXACT, seed=1, replicas=10)
    physics.advance(None, 120, 100.0)
    assert physics.failing("outage").tolist() == [[False, True]]
    step = physics.advance(None, 60, 100.0)
    assert step.dropped[0] == pytest.approx([0.0, 0.3 * 3000])
    shown = physics.metrics()
    assert shown.error_ratio[0] == pytest.approx([0.0, 0.3], abs=0.01)
    assert shown.ready.tolist() == [[10.0, 10.0]]
    assert shown.request_rate[0] == pytest.approx([50.0, 50.0])


def test_failed_attempts_come_again_as_often_as_the_retry_share_says():
    bad = PoolParams(outages_per_hour=3600.0, outage_error_share=0.5, outage_s=36000.0)
    route = RouteParams(propagation_s=0.0, poisson=0.0, retry_share=0.8, retry_after_s=2.0)
    physics = pools(1, 1, params=bad, route=route, replicas=20)
    physics.advance(None, 300, 50.0)
    step = physics.advance(None, 100, 50.0)
    # each attempt fails with 0.5 and comes again with 0.8: 1 / (1 - 0.4) attempts a request
    assert step.offered[0] == pytest.approx(5000)
    assert step.arrived[0, 0] == pytest.approx(5000 / 0.6, rel=0.01)


def test_cost_is_replica_seconds_at_the_pools_price():
    priced = PoolParams(cost_per_replica=[1.0, 0.3, 4.0])
    physics = pools(params=priced, route=EXACT, replicas=[2, 5, 1])
    step = physics.advance(None, 60, 10.0)
    assert step.replica_s[0].tolist() == [120.0, 300.0, 60.0]
    assert step.cost[0] == pytest.approx([120.0, 90.0, 240.0])


def test_joint_percentiles_are_those_of_all_requests_together():
    bounds = np.geomspace(5, 20_000, 400)
    kinds = ServiceParams(
        capacity_rps=np.array([25.0, 25.0, 100.0]), base_latency_ms=np.array([40.0, 60.0, 10.0]), poisson=0.0
    )
    physics = pools(1, 3, service=kinds, route=EXACT, replicas=[6, 3, 2], le_ms=bounds)
    physics.route(None, [50, 25, 25])
    step = physics.advance(None, 300, 200.0)
    counts = physics.histogram[0]
    for percentile, tolerance in ((60, 0.06), (90, 0.03), (95, 0.03), (99, 0.03)):
        counted = np.interp(percentile / 100 * step.served.sum(), counts, bounds)
        assert step.percentile_ms(percentile)[0] == pytest.approx(counted, rel=tolerance)
    single = np.stack([step.p50_ms, step.p95_ms, step.p99_ms])
    assert single[:, 0].min() < step.percentile_ms(95)[0] < single[:, 0].max()


def test_each_set_of_a_batch_lives_as_it_would_alone():
    seeds, rates = np.arange(6) + 100, np.linspace(20, 200, 6)
    together = pools(6, params=STORMY, seed=seeds)
    alone = [pools(1, params=STORMY, seed=seeds[row : row + 1]) for row in range(6)]
    for weights in ([34, 33, 33], [10, 10, 80], [60, 40, 0]):
        together.route(None, weights)
        step = together.advance(None, 200, rates)
        for row, physics in enumerate(alone):
            physics.route(None, weights)
            one = physics.advance(None, 200, rates[row])
            assert np.array_equal(one.violating[0], step.violating[row])
            assert np.array_equal(one.cost[0], step.cost[row])
    some = np.array([4, 1])
    picked = together.advance(some, 50, rates[some])
    for place, row in enumerate(some):
        assert np.array_equal(alone[row].advance(None, 50, rates[row]).served[0], picked.served[place])


def test_a_reset_forgets_everything():
    physics = pools(3, params=STORMY, seed=np.arange(3))
    fresh = pools(3, params=STORMY, seed=np.arange(3))
    physics.route(None, [0, 0, 100])
    physics.scale(None, 9)
    physics.advance(None, 700, 150.0)
    physics.reset(None, PLAIN, STORMY, RouteParams(), np.arange(3), 4)
    one, other = physics.advance(None, 400, 90.0), fresh.advance(None, 400, 90.0)
    assert np.array_equal(one.violating, other.violating)
    assert np.array_equal(one.replica_s, other.replica_s)
    assert np.array_equal(physics.metrics().latency_ms, fresh.metrics().latency_ms, equal_nan=True)


def test_rates_of_a_table_are_followed():
    physics = pools(2, route=EXACT, replicas=20)
    physics.set_rates([[0.0, 30.0, 30.0], [90.0, 90.0, 90.0]], 10.0)
    assert physics.rate_now().tolist() == [0.0, 90.0]
    first = physics.advance(None, 10)
    assert first.offered == pytest.approx([sum(range(0, 30, 3)), 900.0])
    assert physics.rate_now() == pytest.approx([30.0, 90.0])


def test_equal_weights_sum_to_100_for_any_number_of_pools():
    rng = np.random.default_rng(0)
    present = rng.random((300, 7)) < 0.5
    present[:, 3] = True
    weights = equal_weights(present)
    assert (weights.sum(axis=1) == 100).all()
    assert (weights[~present] == 0).all()
    spread = np.where(present, weights, 0).max(axis=1) - np.where(present, weights, 100).min(axis=1)
    assert spread.max() <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pools(0), "sets: 0"),
        (lambda: pools(1, 40), "pools: 40"),
        (lambda: pools(params=PoolParams(sweep_share=1.5)), "sweep_share: 1.5 is not allowed, must be in"),
        (lambda: pools(params=PoolParams(cost_per_replica=[1, 2])), "cost_per_replica: .* one number"),
        (lambda: pools(params=PoolParams(slowdown_factor=0.5)), "slowdown_factor: 0.5"),
        (lambda: pools(route=RouteParams(propagation_s=-1)), "propagation_s: -1"),
        (lambda: pools(service=ServiceParams(capacity_rps=[1.0, 2.0])), "capacity_rps"),
        (lambda: pools(replicas=-1), "replicas: -1"),
        (lambda: pools(service=ServiceParams(retry_share=0.5)), "retry_share: 0.5 .* the route's"),
        (lambda: pools(route=RouteParams(arrival_dispersion=0.5)), "arrival_dispersion: 0.5"),
        (lambda: pools().route(None, [50, 40, 5]), "weights: 95.0 .* rows that sum to 100"),
        (lambda: pools().route(None, [150, -50, 0]), "weights: -50"),
        (lambda: pools().advance(None, 1, -5.0), "rate_rps: -5"),
        (lambda: pools().set_rates(np.ones((1, 2)), 1.0, np.array([1])), "rate_rows"),
        (lambda: pools().advance(None, 1, 5.0).percentile_ms(10), "percentile: 10"),
        (lambda: pools().failing("mood"), "what: 'mood'"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(ParameterError, match=message):
        make()
