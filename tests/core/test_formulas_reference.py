"""Erlang C, Holt-Winters and Knative's panic against plain scalar versions that are written here."""

from __future__ import annotations

import math

import numpy as np
import pytest

from controller.core import Engine, HpaPolicy, Samples, ServiceSpec
from controller.core.formulas import HoltWintersPolicy, KnativePolicy
from controller.core.formulas.erlang import least_servers, square_root_staffing, wait_probability
from controller.core.formulas.holtwinters import last_known, smoothing_weights

NOW_S = 20 * 86400.0


def erlang_c(servers: int, offered: float) -> float:
    """The textbook's sum, in logarithms: a^c/c! c/(c-a) over the sum of a^k/k! and itself."""
    logs = [k * math.log(offered) - math.lgamma(k + 1) for k in range(servers)]
    last = servers * math.log(offered) - math.lgamma(servers + 1) + math.log(servers / (servers - offered))
    top = max(*logs, last)
    return math.exp(last - top) / (sum(math.exp(each - top) for each in logs) + math.exp(last - top))


@pytest.mark.parametrize(
    ("servers", "offered", "expected"),
    [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (3, 2.0, 4 / 9), (10, 8.0, 0.409180)],
)
def test_the_probability_of_waiting(servers: int, offered: float, expected: float) -> None:
    assert wait_probability(servers, offered) == pytest.approx(expected, abs=2e-5)
    assert wait_probability(servers, offered) == pytest.approx(erlang_c(servers, offered), rel=1e-10)


def test_servers_that_cannot_keep_up_let_everybody_wait() -> None:
    assert wait_probability(3, 3.0) == wait_probability(2, 3.0) == 1.0
    assert wait_probability(5, 0.0) == 0.0


def test_least_servers_are_the_least_by_the_textbooks_sum() -> None:
    rng = np.random.default_rng(3)
    offered = np.exp(rng.uniform(np.log(0.01), np.log(900.0), 400))
    slack, probability = rng.choice([0.0, 0.3, 5.0], 400), 10.0 ** rng.uniform(-9.0, -0.3, 400)
    found = least_servers(offered, slack, probability, np.full(400, 5000.0))

    def late(servers: float, row: int) -> float:
        if servers <= offered[row]:
            return 1.0
        spare = servers - offered[row]
        return erlang_c(int(servers), offered[row]) * math.exp(-spare * slack[row])

    for row, servers in enumerate(found):
        assert late(servers, row) <= probability[row] * (1 + 1e-9)
        assert late(servers - 1, row) > probability[row] * (1 - 1e-9)


def test_least_servers_of_huge_and_odd_loads() -> None:
    offered = np.array([0.0, 1e5, 50.0, 1e12, 3.0])
    aim, slack = np.array([0.01, 0.01, 1e-300, 0.01, 0.6]), np.zeros(5)
    found = least_servers(offered, slack, aim, np.array([10.0, 2e5, 60.0, 100.0, 100.0]))
    assert found[[0, 2, 3]].tolist() == [0.0, 60.0, 100.0]
    # Halfin and Whitt: 1 % at beta = 2.38; the recursion began nine deviations below, not at nought
    assert found[1] == pytest.approx(1e5 + 2.377 * math.sqrt(1e5), abs=3)
    # at nought it would say the same
    assert wait_probability(int(found[1]), 1e5) <= 0.01 < wait_probability(int(found[1]) - 1, 1e5)
    assert found[4] == 4


def test_the_square_root_rule_is_near_and_not_what_decides() -> None:
    offered = np.array([4.0, 40.0, 400.0, 4000.0])
    aim, slack = np.full(4, 0.05), np.zeros(4)
    exact = least_servers(offered, slack, aim, np.full(4, 1e5))
    assert np.abs(square_root_staffing(offered, slack, aim) - exact).max() < 1.6


def holt_winters(
    series: list[float], alpha: float, beta: float, gamma: float, season: int, horizon: int
) -> list[float]:
    """The recursion, one observation after the other."""
    if season:
        level = sum(series[:season]) / season
        seasonal = [value - level for value in series[:season]]
    else:
        level, seasonal = series[0], [0.0]
    trend = 0.0
    for t in range(season or 1, len(series)):
        old, slot = level, t % len(seasonal)
        level = alpha * (series[t] - seasonal[slot]) + (1 - alpha) * (old + trend)
        if season:
            seasonal[slot] = gamma * (series[t] - old - trend) + (1 - gamma) * seasonal[slot]
        trend = beta * (level - old) + (1 - beta) * trend
    count = len(series)
    return [level + h * trend + seasonal[(count + h - 1) % len(seasonal)] for h in range(1, horizon + 1)]


@pytest.mark.parametrize(
    ("alpha", "beta", "gamma", "season", "bins"),
    [
        (0.5, 0.02, 0.3, 60, 360),
        (0.9, 0.3, 0.9, 24, 100),
        (0.2, 0.0, 0.0, 7, 50),
        (1.0, 1.0, 1.0, 5, 23),
        (0.4, 0.2, 0.0, 0, 40),
    ],
)
def test_the_weights_give_what_the_recursion_gives(
    alpha: float, beta: float, gamma: float, season: int, bins: int
) -> None:
    rng = np.random.default_rng(bins)
    series = 10.0 + 5.0 * np.sin(np.arange(bins) / 4.0) + rng.normal(size=bins) + 0.05 * np.arange(bins)
    found = series @ smoothing_weights(alpha, beta, gamma, season, bins, 6)
    assert found == pytest.approx(holt_winters(series.tolist(), alpha, beta, gamma, season, 6), rel=2e-4)


def at(minutes: np.ndarray) -> np.ndarray:
    """A day with a peak, a small trend, and a wave of an hour."""
    phase = 2 * np.pi * minutes / 1440.0
    return 100.0 + 60.0 * np.sin(phase) + 15.0 * np.sin(24.0 * phase) + 0.01 * minutes


@pytest.mark.parametrize(("season_s", "bins"), [(86400.0, 1500), (3600.0, 360)])
def test_the_policy_forecasts_the_largest_load_of_the_lead_time(season_s: float, bins: int) -> None:
    policy = HoltWintersPolicy(season_s=season_s)
    spec = ServiceSpec(1, 500, capacity_rps=1.0, start_up_s=285.0, target_utilisation=1.0)  # lead 5 min
    engine = Engine(spec, HpaPolicy())
    minutes = np.arange(-1600, 1)
    engine.backfill(NOW_S + 60.0 * minutes[:-1], at(minutes[:-1])[:, None])
    view = engine.observe(NOW_S, Samples(request_rate=[at(minutes)[-1]], current=[100]))
    ahead = holt_winters(at(minutes[-bins:]).tolist(), 0.5, 0.02, 0.3, round(season_s / 60), 5)
    assert policy.forecast(view)[0] == pytest.approx(max(ahead), rel=1e-4)
    assert policy.recommend(view)[0] == math.ceil(max(at(minutes)[-1], max(ahead)) - 1e-3)
    truth = at(np.arange(1, 6)).max()
    assert max(ahead) == pytest.approx(truth, rel=0.12)


def test_without_a_season_the_trend_alone_is_followed() -> None:
    spec = ServiceSpec(1, 500, capacity_rps=1.0, start_up_s=45.0, target_utilisation=1.0)
    engine = Engine(spec, HpaPolicy())
    rates = 10.0 + np.arange(40.0)
    engine.backfill(NOW_S - 60.0 * np.arange(39, 0, -1), rates[:-1, None])
    view = engine.observe(NOW_S, Samples(request_rate=[rates[-1]], current=[50]))
    # what came before the history began is taken to have been its first value
    series = [10.0] * 80 + rates.tolist()
    expected = holt_winters(series, 0.5, 0.02, 0.3, 0, 1)[0]
    assert HoltWintersPolicy().forecast(view)[0] == pytest.approx(expected, rel=1e-4)


def test_unknown_bins_take_the_value_before_them() -> None:
    nan = math.nan
    values = np.array([[nan, 2.0, nan, nan, 5.0, nan], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [nan] * 6])
    expected = [[2.0, 2.0, 2.0, 2.0, 5.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0] * 6]
    assert last_known(values).tolist() == expected


class StatefulKpa:
    """One revision's autoscaler as Knative has it: it remembers when panic was last seen, and its peak."""

    def __init__(self) -> None:
        self.panic_s: float | None = None
        self.most = 0

    def scale(self, now_s: float, stable: float, newest: float, ready: int) -> int:
        """Desired pods at a target of 10 a pod."""
        pods = max(1, ready)
        lowest, highest = pods // 2, 1000 * pods
        wanted = math.ceil(newest / 10.0)
        desired = min(max(math.ceil(stable / 10.0), lowest), highest)
        if wanted / pods >= 2.0:
            self.panic_s = now_s
        elif self.panic_s is not None and self.panic_s + 60.0 < now_s:
            self.panic_s, self.most = None, 0
        if self.panic_s is None:
            return desired
        self.most = max(self.most, desired, min(max(wanted, lowest), highest))
        return self.most


@pytest.mark.parametrize(("start_up_turns", "least_agreement"), [(0, 0.99), (4, 0.96)])
def test_panic_told_from_the_history_is_the_panic_that_is_remembered(
    start_up_turns: int, least_agreement: float
) -> None:
    """Not always: how many pods were ready earlier is an estimate. Surging services, pods that follow."""
    rng = np.random.default_rng(1)
    turns, services = 250, 120
    surges = np.zeros((turns, services))
    for t in range(1, turns):
        surges[t] = 0.93 * surges[t - 1] + (rng.random(services) < 0.01) * rng.uniform(0.5, 2.0, services)
    walk = np.cumsum(rng.normal(0.0, 0.04, (turns, services)), axis=0)
    rates = np.exp(walk + surges) * rng.uniform(20.0, 400.0, services)
    engine = Engine([ServiceSpec(1, 10**6, capacity_rps=10.0)] * services, HpaPolicy())
    remembering = [StatefulKpa() for _ in range(services)]
    replicas = [np.full(services, 20)]
    same, panics = [], 0
    for t in range(turns):
        current = replicas[-1]
        ready = np.minimum(current, replicas[max(len(replicas) - 1 - start_up_turns, 0)])
        view = engine.observe(NOW_S + 15.0 * t, Samples(request_rate=rates[t], current=current, ready=ready))
        found = KnativePolicy(target=10.0).recommend(view)
        stable = rates[max(t - 3, 0) : t + 1].mean(axis=0)
        expected = np.array(
            [
                one.scale(15.0 * t, stable[row], rates[t, row], int(ready[row]))
                for row, one in enumerate(remembering)
            ]
        )
        same.append(found == expected)
        panics += sum(one.panic_s is not None for one in remembering)
        replicas.append(np.maximum(expected, 1))
    assert np.mean(same) > least_agreement
    assert panics > 0.02 * turns * services
