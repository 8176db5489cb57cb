"""The scaling formulas: each against numbers worked out by hand, on views of a real engine."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from controller.core import (
    Behavior,
    Engine,
    FormulaPolicy,
    HpaPolicy,
    Samples,
    ScalingPolicy,
    ScalingRules,
    ServiceSpec,
    SpecError,
    View,
)
from controller.core.formulas import (
    FORMULAS,
    ErlangCPolicy,
    HoltWintersPolicy,
    KedaPolicy,
    KnativePolicy,
    MovingMaximumPolicy,
    SeasonalNaivePolicy,
)
from controller.core.formulas.maximum import weighted_percentile

NOW_S = 10 * 86400.0 + 7 * 3600.0
SPEC = ServiceSpec(1, 100, capacity_rps=10.0, slo_latency_ms=500.0, start_up_s=45.0, target_utilisation=0.5)
EVERY = [policy() for policy in FORMULAS.values()]


def seen(
    rate: float,
    past: np.ndarray | list[float] = (),
    step_s: float = 15.0,
    spec: ServiceSpec = SPEC,
    current: int = 4,
    ready: int | None = None,
    **others: float,
) -> View:
    """The view of one service at `rate` requests/s after the rates `past`, which end a step ago."""
    engine = Engine(spec, HpaPolicy())
    if len(past):
        times = NOW_S - step_s * np.arange(len(past), 0, -1)
        engine.backfill(times, np.asarray(past, dtype=float)[:, None])
    reading = Samples(
        request_rate=[rate],
        current=[current],
        ready=[current if ready is None else ready],
        **{name: [value] for name, value in others.items()},
    )
    return engine.observe(NOW_S, reading)


def replicas(policy: FormulaPolicy, view: View) -> float:
    return float(policy.recommend(view)[0])


# --- what a view shows ----------------------------------------------------------------------------


def test_fine_and_coarse_end_with_this_reading_and_are_loads_in_replicas() -> None:
    view = seen(70.0, [10.0, 20.0, 30.0, 40.0, 50.0])
    assert view.fine(4)[0].tolist() == [3.0, 4.0, 5.0, 7.0]
    assert view.fine(2, ago_s=30.0)[0].tolist() == [3.0, 4.0]
    assert np.isnan(view.fine(8)[0, :2]).all()
    # NOW_S is the first second of its minute, so the minute before holds the four readings before
    assert view.coarse(2)[0].tolist() == [3.5, 7.0]
    with pytest.raises(ValueError, match=r"bins: 1501 is not allowed, must be in 1\.\.1500"):
        view.coarse(1501)
    with pytest.raises(ValueError, match=r"bins: 0 is not allowed, must be in 1\.\.244"):
        view.fine(0)


def test_a_part_of_a_view_shows_its_own_history_and_settings() -> None:
    specs = [replace(SPEC, max_replicas=high, start_up_s=10.0 * high) for high in (3, 4, 5)]
    engine = Engine(specs, HpaPolicy())
    engine.step(NOW_S - 15, Samples(request_rate=[1, 2, 3], current=[1, 1, 1]))
    view = engine.observe(NOW_S, Samples(request_rate=[4, 5, 6], current=[1, 1, 1]))
    part = view.take(np.array([2, 0])).take(np.array([0]))
    assert part.fine(2)[0].tolist() == pytest.approx([0.3, 0.6])
    assert (part.max_replicas[0], part.start_up_s[0], part.min_replicas[0]) == (5, 50, 1)
    assert (part.sync_period_s[0], part.slo_latency_ms[0], part.slo_percentile[0]) == (15, 500, 95)
    assert (part.capacity_rps[0], part.tolerance_up[0], part.tolerance_down[0]) == (10, 0.1, 0.1)


def test_a_service_without_request_rates_has_a_history_but_no_capacity() -> None:
    engine = Engine(SPEC, HpaPolicy())
    view = engine.observe(NOW_S, Samples(utilisation=[0.5], current=[4], ready=[4]))
    assert view.fine(1)[0, 0] == 2.0
    assert np.isnan(view.capacity_rps[0])


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", EVERY, ids=lambda policy: policy.name)
def test_a_missing_load_recommends_nothing(policy: FormulaPolicy) -> None:
    assert math.isnan(replicas(policy, seen(math.nan, [50.0] * 100)))


@pytest.mark.parametrize("policy", EVERY, ids=lambda policy: policy.name)
def test_gaps_in_the_history_never_lower_the_recommendation_below_the_load(policy: FormulaPolicy) -> None:
    past = np.full(400, 60.0)
    past[::3] = np.nan
    past[250:330] = np.nan
    # a load of 6 replicas, whatever a formula adds: never fewer, never what a zero would have made
    assert replicas(policy, seen(60.0, past, current=12)) >= 6


@pytest.mark.parametrize("policy", EVERY, ids=lambda policy: policy.name)
def test_a_batch_recommends_what_each_service_alone_would(policy: FormulaPolicy) -> None:
    rng = np.random.default_rng(5)
    specs = [
        replace(
            SPEC,
            capacity_rps=rng.uniform(5, 40),
            start_up_s=rng.uniform(0, 400),
            target_utilisation=rng.uniform(0.3, 1),
            preference=rng.uniform(0, 100),
        )
        for _ in range(6)
    ]
    rates = rng.gamma(4.0, 20.0, (700, 6))
    rates[rng.random(rates.shape) < 0.05] = np.nan
    rates[:500, 4] = np.nan
    times = NOW_S - 60.0 * np.arange(700, 0, -1)
    now = Samples(
        request_rate=rng.gamma(4.0, 20.0, 6), current=[1, 3, 9, 20, 50, 70], ready=[1, 2, 9, 8, 50, 60]
    )
    together = Engine(specs, HpaPolicy())
    together.backfill(times, rates)
    found = policy.recommend(together.observe(NOW_S, now))
    for row, spec in enumerate(specs):
        engine = Engine(spec, HpaPolicy())
        engine.backfill(times, rates[:, [row]])
        mine = Samples(
            request_rate=now.request_rate[[row]], current=now.current[[row]], ready=now.ready[[row]]
        )
        assert policy.recommend(engine.observe(NOW_S, mine))[0] == found[row]


@pytest.mark.parametrize("policy", EVERY, ids=lambda policy: policy.name)
def test_a_restart_forgets_nothing(policy: FormulaPolicy) -> None:
    rates = 60.0 + 50.0 * np.sin(np.arange(300) / 20.0) + np.arange(300) % 7
    running, sample = Engine(SPEC, policy), Samples(request_rate=[95.0], current=[12], ready=[11])
    for index, rate in enumerate(rates):
        running.observe(NOW_S + 15.0 * index, Samples(request_rate=[rate], current=[12]))
    restarted = Engine(SPEC, policy)
    restarted.backfill(NOW_S + 15.0 * np.arange(300), rates[:, None])
    then = NOW_S + 15.0 * 300
    assert policy.recommend(restarted.observe(then, sample)) == policy.recommend(
        running.observe(then, sample)
    )


def test_equal_parameters_are_equal_policies_and_carry_the_names_that_status_shows() -> None:
    for name, policy in FORMULAS.items():
        assert policy() == policy()
        assert hash(policy()) == hash(policy())
        assert (policy.name, policy().type) == (name, "Formula")
    assert KedaPolicy(3.0) != KedaPolicy(4.0)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: KedaPolicy(requests_per_replica=0.0), "requestsPerReplica: 0.0"),
        (lambda: KedaPolicy(activation_rps=-1.0), "activationRequestsPerSecond: -1.0"),
        (lambda: KedaPolicy(cooldown_s=7200.0), "cooldownSeconds: 7200.0"),
        (lambda: KnativePolicy(metric="cpu"), "metric: 'cpu'"),  # type: ignore[arg-type]
        (lambda: KnativePolicy(metric="concurrency"), "target: None"),
        (lambda: KnativePolicy(panic_window_percentage=101.0), "panicWindowPercentage: 101.0"),
        (lambda: KnativePolicy(stable_window_s=3.0), "stableWindowSeconds: 3.0"),
        (lambda: KnativePolicy(max_scale_down_rate=1.0), "maxScaleDownRate: 1.0"),
        (lambda: HoltWintersPolicy(alpha=1.5), "alpha: 1.5"),
        (lambda: HoltWintersPolicy(season_s=7200.0), "seasonSeconds: 7200.0"),
        (lambda: SeasonalNaivePolicy(season_s=604800.0), "seasonSeconds: 604800.0"),
        (lambda: MovingMaximumPolicy(averaging_s=90.0), "averagingSeconds: 90.0"),
        (lambda: MovingMaximumPolicy(window_s=172800.0), "windowSeconds: 172800.0"),
        (lambda: MovingMaximumPolicy(percentile=0.0), "percentile: 0.0"),
        (lambda: ErlangCPolicy(wait_probability=1.0), "waitProbability: 1.0"),
        (lambda: ErlangCPolicy(requests_at_once=0), "requestsAtOnce: 0"),
    ],
)
def test_a_parameter_out_of_range_is_named_with_its_value(make: object, field: str) -> None:
    with pytest.raises(SpecError, match=r"^policy\.formula\." + field.replace(".", r"\.")):
        make()  # type: ignore[operator]


# --- KEDA -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "current", "ready", "expected"),
    [
        pytest.param(101.0, 4, 4, 6, id="rounds up"),
        pytest.param(100.0, 4, 4, 5, id="an exact multiple is not rounded up"),
        pytest.param(86.0, 4, 4, 4, id="inside the tolerance nothing moves"),
        pytest.param(89.0, 4, 4, 5, id="outside it it does"),
        pytest.param(73.0, 4, 4, 4, id="nor on the way down"),
        pytest.param(30.0, 4, 4, 2, id="down"),
        pytest.param(101.0, 4, 1, 6, id="pods that are not ready do not matter"),
        pytest.param(0.0, 4, 4, 1, id="an idle service keeps one replica while it cools down"),
    ],
)
def test_keda_divides_the_rate_by_the_target(rate: float, current: int, ready: int, expected: int) -> None:
    view = seen(rate, [1.0] * 20, current=current, ready=ready)
    assert replicas(KedaPolicy(requests_per_replica=20.0), view) == expected


def test_keda_without_a_target_takes_capacity_times_target_utilisation() -> None:
    # 10 requests/s a replica at 50 %
    assert replicas(KedaPolicy(), seen(101.0)) == 21


@pytest.mark.parametrize(
    ("past", "now", "expected"),
    [
        pytest.param([9.0] + [0.0] * 19, 0.0, 0, id="300 s of nothing"),
        pytest.param([9.0] * 2 + [0.0] * 18, 0.0, 1, id="15 s less are not enough"),
        pytest.param([5.0] * 20, 5.0, 0, id="the threshold itself is idle"),
        pytest.param([5.0] * 20, 5.1, 1, id="above it is not"),
        pytest.param([0.0] * 10 + [math.nan] + [0.0] * 9, 0.0, 1, id="a gap might have been anything"),
        pytest.param([0.0] * 5, 0.0, 1, id="a short history says too little"),
    ],
)
def test_keda_goes_to_zero_after_its_cooldown(past: list[float], now: float, expected: int) -> None:
    policy = KedaPolicy(requests_per_replica=50.0, activation_rps=5.0)
    assert replicas(policy, seen(now, past, spec=replace(SPEC, min_replicas=0), current=1)) == expected


def test_the_engine_asks_keda_while_capacity_is_unknown_if_it_needs_none() -> None:
    spec = replace(SPEC, capacity_rps=math.nan, policy_type="Formula")
    decisions = Engine([spec, spec], [KedaPolicy(requests_per_replica=20.0), KedaPolicy()]).step(
        NOW_S, Samples(request_rate=[100.0] * 2, current=[4] * 2, ready=[4] * 2)
    )
    assert decisions.recommended_replicas[0] == 5
    assert [decisions[0].fallback, decisions[1].fallback] == [None, "CapacityUnknown"]


def test_a_service_sleeps_after_kedas_cooldown_and_wakes_above_its_threshold() -> None:
    at_once = Behavior(scale_down=ScalingRules(0, "Max", (ScalingPolicy("Percent", 100, 15),)))
    spec = replace(
        SPEC,
        min_replicas=0,
        policy_type="Formula",
        behavior=at_once,
        idle_after_s=60.0,
        activation_rps=5.0,
    )
    engine = Engine(spec, KedaPolicy(activation_rps=5.0, cooldown_s=60.0))
    current, replicas_at = 4, []
    for turn, rate in enumerate([20.0] * 5 + [5.0] * 8 + [5.5] * 2):
        decisions = engine.step(NOW_S + 15.0 * turn, Samples(request_rate=[rate], current=[current]))
        current = int(decisions.desired_replicas[0])
        replicas_at.append(current)
    # 5 requests/s are one replica of 10 at 50 %; they end the activity, and 60 s later the replica goes
    assert replicas_at == [4] * 5 + [1] * 3 + [0] * 5 + [2] * 2


# --- Knative --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("past", "now", "ready", "expected"),
    [
        pytest.param([40.0] * 8, 40.0, 4, 4, id="steady"),
        pytest.param([40.0] * 8, 60.0, 4, 5, id="the mean of 60 s: (3 x 40 + 60) / 4 / 10"),
        pytest.param([40.0] * 8, 70.0, 4, 5, id="7 wanted of 4 ready is no panic yet"),
        pytest.param([40.0] * 8, 80.0, 4, 8, id="8 wanted of 4 ready is"),
        pytest.param([40.0] * 8, 71.0, 4, 8, id="desired pods are whole before they are compared"),
        pytest.param([100.0] * 8, 10.0, 10, 8, id="(3 x 100 + 10) / 4 is 78"),
        pytest.param([10.0] * 8, 10.0, 10, 5, id="at most to half of the ready ones"),
        pytest.param([10.0] * 8, 10.0, 11, 5, id="rounded down"),
        pytest.param([0.0] * 8, 0.0, 1, 0, id="the last one may go"),
        pytest.param([0.0] * 8, 6000.0, 0, 600, id="none ready counts as one"),
    ],
)
def test_knative_windows(past: list[float], now: float, ready: int, expected: int) -> None:
    view = seen(now, past, current=ready, ready=ready)
    assert replicas(KnativePolicy(target=10.0), view) == expected


def test_knative_never_scales_down_in_panic_until_a_stable_window_later() -> None:
    calm, surge = [20.0] * 8, 100.0
    policy = KnativePolicy(target=10.0)
    # 10 wanted where 2 were: panic; then the surge is over, and 10 replicas have come up
    assert replicas(policy, seen(surge, calm, current=2)) == 10
    for after in (1, 2, 3, 4):
        past = [*calm, surge, *[20.0] * (after - 1)]
        assert replicas(policy, seen(20.0, past, current=10)) == 10
    # after 60 s panic ends: (20 + 20 + 20 + 20) / 4 / 10 = 2, but no more than half at once
    assert replicas(policy, seen(20.0, [*calm, surge, *[20.0] * 4], current=10)) == 5


def test_knative_grows_at_most_a_thousandfold_at_once() -> None:
    assert replicas(KnativePolicy(target=0.001), seen(50.0, [50.0] * 8, current=2)) == 2000


def test_knative_on_concurrency_scales_the_window_by_what_is_in_flight_now() -> None:
    policy = KnativePolicy(metric="concurrency", target=10.0)
    view = seen(20.0, [10.0] * 3, in_flight=40.0, current=4)
    # 40 in flight at 20 requests/s now, so 20 at 10 before: (3 x 20 + 40) / 4 = 25
    assert replicas(policy, view) == 3
    assert math.isnan(replicas(policy, seen(20.0, [10.0] * 3, current=4)))
    assert replicas(policy, seen(0.0, [0.0] * 3, in_flight=12.0, current=4)) == 2


def test_knative_keeps_the_last_replica_for_the_stable_window_and_the_grace_period() -> None:
    assert KnativePolicy().idle_after_s == 90.0


# --- seasonal naive -------------------------------------------------------------------------------


def daily(value_at_minute: dict[int, float], level: float = 40.0, hours: float = 25.0) -> np.ndarray:
    """Rates a minute over the last `hours`; `value_at_minute` counts from exactly a day ago."""
    minutes = np.arange(-int(hours * 60), 0)
    rates = np.full(len(minutes), level)
    for minute, value in value_at_minute.items():
        rates[minutes == minute - 1440] = value
    return rates


def test_seasonal_naive_expects_what_came_a_day_ago_in_the_lead_time() -> None:
    policy = SeasonalNaivePolicy()
    # lead time 45 + 15 s: this minute and the next of yesterday; 10 requests/s at 50 % a replica
    assert replicas(policy, seen(40.0, daily({1: 90.0}), 60.0)) == 18
    assert replicas(policy, seen(40.0, daily({2: 90.0}), 60.0)) == 8
    slow = replace(SPEC, start_up_s=105.0)
    assert replicas(policy, seen(40.0, daily({2: 90.0}), 60.0, slow)) == 18


def test_seasonal_naive_scales_yesterday_by_todays_level() -> None:
    past = daily({1: 90.0})
    past[-9:] = 80.0
    # the last ten minutes are at 80, those of yesterday were at 40
    assert replicas(SeasonalNaivePolicy(), seen(80.0, past, 60.0)) == 36
    past[-9:] = 400.0
    assert replicas(SeasonalNaivePolicy(), seen(400.0, past, 60.0)) == 80  # at most fourfold: 360 < 400


def test_seasonal_naive_looks_back_an_hour_if_asked_to() -> None:
    past = np.full(61, 40.0)
    past[61 - 60 + 1] = 90.0
    assert replicas(SeasonalNaivePolicy(season_s=3600.0), seen(40.0, past, 60.0)) == 18
    assert replicas(SeasonalNaivePolicy(), seen(40.0, past, 60.0)) == 8  # no day is known: the load now


# --- moving maximum -------------------------------------------------------------------------------


def test_moving_maximum_takes_the_largest_five_minute_mean_of_the_window() -> None:
    past = np.full(61, 20.0)
    past[61 - 7] = 120.0  # one minute in the second block of five: (4 x 20 + 120) / 5 = 40
    view = seen(20.0, past, 60.0)
    assert MovingMaximumPolicy().statistic(view)[0] == pytest.approx(4.0)
    assert replicas(MovingMaximumPolicy(), view) == 8
    assert replicas(MovingMaximumPolicy(window_s=300.0), view) == 4
    assert replicas(MovingMaximumPolicy(averaging_s=60.0), view) == 24


def test_weighted_percentile_against_a_table() -> None:
    values = np.array([[4.0, 1.0, 3.0, 2.0], [4.0, np.nan, 3.0, 2.0], [np.nan] * 4])
    even, newest = np.ones(4), np.array([0.125, 0.25, 0.5, 1.0])
    assert weighted_percentile(values, even, 50.0)[:2].tolist() == [2.0, 3.0]
    assert weighted_percentile(values, even, 75.0)[:2].tolist() == [3.0, 4.0]
    assert weighted_percentile(values, even, 100.0)[:2].tolist() == [4.0, 4.0]
    # weights of the sorted row 1, 2, 3, 4 are 0.25, 1, 0.5, 0.125 of 1.875
    assert weighted_percentile(values, newest, 66.0)[0] == 2.0
    assert weighted_percentile(values, newest, 67.0)[0] == 3.0
    assert np.isnan(weighted_percentile(values, even, 50.0)[2])


def test_old_peaks_weigh_half_after_a_half_life() -> None:
    # twelve blocks: the older six at 100, the newer six at 20
    past = np.concatenate([np.full(30, 100.0), np.full(29, 20.0)])
    view = seen(20.0, past, 60.0)

    def load(percentile: float) -> float:
        policy = MovingMaximumPolicy(averaging_s=300.0, percentile=percentile, half_life_s=1800.0)
        return float(policy.statistic(view)[0])

    # a half-life of six blocks: the older half has a third of the weight
    assert (load(66.0), load(67.0), load(100.0)) == pytest.approx((2.0, 10.0, 10.0))


# --- queueing theory ------------------------------------------------------------------------------


def test_preference_moves_the_probability_of_waiting_by_decades() -> None:
    def probability(preference: float) -> float:
        view = seen(50.0, spec=replace(SPEC, preference=preference))
        return float(ErlangCPolicy()._probability(view)[0])

    found = [probability(preference) for preference in (0, 25, 50, 75, 100)]
    assert found == pytest.approx([0.5, 0.5, 0.05, 0.005, 0.0005])


def test_erlang_c_counts_servers_by_the_slack_that_the_objective_leaves() -> None:
    # 10 requests/s a replica: 100 ms each, so 500 ms leave a slack of 4 service times.
    # a = 5: P(wait > 4) of 6 servers is 0.5875 e^-4 = 0.0108, so 6 are enough for 5 %.
    textbook = replace(SPEC, target_utilisation=1.0)
    assert replicas(ErlangCPolicy(), seen(50.0, spec=textbook)) == 6
    # without an objective nobody may wait: C(9, 5) = 0.0805, C(10, 5) = 0.0361
    assert replicas(ErlangCPolicy(), seen(50.0, spec=replace(textbook, slo_latency_ms=math.nan))) == 10
    # at 50 % a replica serves 5 requests/s: a = 10, slack 1.5 service times;
    # C(12, 10) e^-3 = 0.4494 x 0.0498 = 0.0224, C(11, 10) e^-1.5 = 0.6821 x 0.2231 = 0.152
    assert replicas(ErlangCPolicy(), seen(50.0)) == 12


def test_erlang_c_counts_several_servers_in_a_replica() -> None:
    textbook = replace(SPEC, target_utilisation=1.0, slo_latency_ms=math.nan)
    # a = 10 servers; C(16, 10) = 0.0627, C(17, 10) = 0.0356: 17 servers are 9 replicas of two
    assert replicas(ErlangCPolicy(requests_at_once=2), seen(50.0, spec=textbook)) == 9


def test_erlang_c_remembers_the_highest_load_of_its_window() -> None:
    policy = ErlangCPolicy(load_window_s=60.0)
    high = replicas(policy, seen(300.0))
    assert replicas(policy, seen(50.0, [300.0, 50.0, 50.0])) == high
    assert replicas(policy, seen(50.0, [300.0, 50.0, 50.0, 50.0])) == replicas(policy, seen(50.0))
    assert replicas(policy, seen(1e9)) == 100  # maxReplicas
    assert replicas(policy, seen(0.0)) == 0
