"""Balancers under grey failures: known answers, and a plain simulation of the Prequal-like one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.errors import ParameterError
from sim.noise import uniform
from sim.physics import ServiceParams
from sim.requests import ALL_BALANCERS, RequestSimulator, prequal
from sim.requests.draws import STREAM_BALANCER, STREAM_PROBE, bucket, bucket_edges_s, percentile_ms
from tests.sim.test_requests import EQUAL, drawn_requests, mean_ms, run

VARIED = replace(EQUAL, service_cv2=1.0)


def test_two_choices_have_mitzenmachers_tail():
    """The share of queues with at least k requests is rho^(2^k - 1) in the limit of many."""
    simulator = RequestSimulator(VARIED, 1, 3, 200, "power-of-two")
    simulator.advance(seconds=20, rate_rps=16_000.0)
    at_least = np.zeros(4)
    for _ in range(40):
        simulator.advance(seconds=1, rate_rps=16_000.0)
        there = simulator.in_flight()[0]
        at_least += [(there >= k).mean() / 40 for k in (1, 2, 3, 4)]
    assert at_least == pytest.approx([0.8 ** (2**k - 1) for k in (1, 2, 3, 4)], rel=0.05, abs=0.012)


def test_probes_are_worth_about_as_much_as_looking_where_all_replicas_are_alike():
    means = {
        name: run(VARIED, 40, 0.8, name, 200)[0]
        for name in ("least-request", "prequal-like", "power-of-two", "random")
    }
    assert means["least-request"] < means["prequal-like"] < 0.5 * means["random"]
    assert means["prequal-like"] < 1.3 * means["power-of-two"]


def test_probes_keep_requests_away_from_slow_replicas():
    tails, slow = {}, {}
    for name in ("random", "power-of-two", "prequal-like"):
        simulator = RequestSimulator(VARIED, 1, 3, 50, name, proxies=8)
        simulator.advance(seconds=10, rate_rps=2000.0)
        simulator.disturb(0, slice(40, None), slower=5.0)
        before = simulator.histogram[0]
        for _ in range(40):
            simulator.advance(seconds=1, rate_rps=2000.0)
            slow[name] = slow.get(name, 0.0) + simulator.in_flight()[0, 40:].sum() if name != "random" else 0
        tails[name] = percentile_ms(simulator.histogram[0] - before, 99, simulator.edges_s)[0]
    assert tails["prequal-like"] < 0.8 * tails["power-of-two"] < 0.2 * tails["random"]
    assert slow["prequal-like"] < 0.5 * slow["power-of-two"]


def plain_prequal(params: ServiceParams, rate: float, seconds: int, seed: int, replicas: int):
    """The latencies' histogram, by lists and sorting: one proxy, replicas of one worker."""
    arrivals, shares, drawn_seed = drawn_requests(params, rate, seconds, seed)
    service_s, counts = 1.0 / float(params.capacity_rps), np.zeros(len(bucket_edges_s()) - 1)
    free, flights = [0.0] * replicas, []
    told = [[[] for _ in range(prequal.RIFS)] for _ in range(replicas)]
    here = [0] * replicas
    pool, shown, sent = [], [], 0

    def latency_at(slot, rif, now):
        for level in sorted(range(prequal.RIFS), key=lambda k: (abs(k - min(rif, prequal.RIFS - 1)), k)):
            recent = sorted(
                t for t, at in told[slot][level][-prequal.LASTS :] if now - at <= prequal.LATENCY_S
            )
            if recent:
                return recent[(len(recent) - 1) // 2]
        return 0.0

    for index, (now, share) in enumerate(zip(arrivals, shares, strict=True), start=1):
        for flight in sorted(f for f in flights if f[0] <= now):
            end, begin, slot, rif = flight
            told[slot][min(rif, prequal.RIFS - 1)].append((end - begin, end))
            here[slot] -= 1
        flights = [f for f in flights if f[0] > now]
        pool = [probe for probe in pool if now - probe["at"] <= prequal.PROBE_S]
        ranked = sorted(min(rif, prequal.RIFS - 1) for rif in shown[-prequal.SHOWN :])
        limit = ranked[int(np.ceil(prequal.Q_RIF * len(ranked))) - 1] if ranked else 0

        def rank(probe, limit=limit):
            return (1, probe["rif"]) if probe["rif"] > limit else (0, probe["latency"])

        slot = int(uniform(drawn_seed, index, STREAM_BALANCER) * replicas)
        if len(pool) >= 2:
            best = min(pool, key=rank)
            slot = best["slot"]
            best["rif"] += 1
        if len(pool) > 2:
            pool.remove(min(pool, key=lambda p: p["at"]) if index % 2 == 0 else max(pool, key=rank))
        for _ in range(min(prequal.PROBES, replicas)):
            sent += 1
            asked = int(uniform(drawn_seed, sent, STREAM_PROBE) * replicas)
            shown.append(here[asked])
            pool = [probe for probe in pool if probe["slot"] != asked]
            latency = latency_at(asked, here[asked], now)
            pool.append({"slot": asked, "rif": here[asked], "latency": latency, "at": now})
        end = max(now, free[slot]) + service_s * share
        free[slot] = end
        flights.append((end, now, slot, here[slot]))
        here[slot] += 1
        counts[bucket(end - now)] += end < seconds
    return counts


def test_the_prequal_like_balancer_equals_a_simulation_that_sorts_its_probes():
    params = replace(EQUAL, service_cv2=1.0)
    expected = plain_prequal(params, 800.0, 12, 5, 10)
    simulator = RequestSimulator(params, 1, 5, 10, "prequal-like")
    simulator.advance(seconds=12, rate_rps=800.0)
    found = simulator.histogram[0]
    assert found.sum() == pytest.approx(expected.sum(), abs=10)
    # ties (several probes alike, several ends between two arrivals) may be broken otherwise
    edges = simulator.edges_s
    assert mean_ms(found, edges) == pytest.approx(mean_ms(expected, edges), rel=0.03)
    wanted = percentile_ms(expected, (50, 95, 99), edges)
    assert percentile_ms(found, (50, 95, 99), edges) == pytest.approx(wanted, rel=0.06)


def test_slow_replicas_take_longer_until_they_are_well():
    simulator = RequestSimulator(EQUAL, 1, 3, 5, "random")
    simulator.advance(seconds=1, rate_rps=200.0)
    simulator.disturb(0, slower=2.0)
    simulator.advance(seconds=100, rate_rps=200.0)
    before = simulator.histogram[0]
    simulator.advance(seconds=3000, rate_rps=200.0)
    slow = simulator.histogram[0]
    # M/D/1 of 20 ms at rho 0.8
    assert mean_ms(slow - before, simulator.edges_s) == pytest.approx(20 + 20 * 0.8 / (2 * 0.2), rel=0.05)
    simulator.disturb(0)
    simulator.advance(seconds=10, rate_rps=200.0)
    settled = simulator.histogram[0]
    simulator.advance(seconds=1000, rate_rps=200.0)
    assert mean_ms(simulator.histogram[0] - settled, simulator.edges_s) == pytest.approx(13.33, rel=0.03)


@pytest.mark.parametrize("balancer", ALL_BALANCERS)
def test_errors_come_as_often_as_asked_and_nothing_is_lost(balancer):
    simulator = RequestSimulator(EQUAL, 1, 3, 4, balancer)
    simulator.advance(seconds=2, rate_rps=200.0)
    simulator.disturb(0, errors=0.3)
    simulator.advance(seconds=100, rate_rps=200.0)
    arrived, dropped = simulator.total("arrived")[0], simulator.total("dropped")[0]
    assert dropped / arrived == pytest.approx(0.3, abs=0.02)
    assert arrived == simulator.total("served")[0] + dropped + simulator.queued[0]


def test_who_fails_at_once_draws_requests_from_balancers_that_count_them():
    """The sink hole: a replica that answers errors without work always looks idle."""
    failed = {}
    for name in ("random", "least-request", "prequal-like"):
        simulator = RequestSimulator(VARIED, 1, 3, 10, name)
        simulator.advance(seconds=5, rate_rps=600.0)
        simulator.disturb(0, slice(0, 1), errors=1.0, errors_at_once=True)
        before = simulator.total("dropped")[0]
        simulator.advance(seconds=30, rate_rps=600.0)
        failed[name] = (simulator.total("dropped")[0] - before) / (30 * 600)
    assert failed["random"] == pytest.approx(0.1, abs=0.02)
    assert failed["least-request"] > 1.5 * failed["random"]
    assert failed["prequal-like"] > 1.5 * failed["random"]


@pytest.mark.parametrize(("name", "value"), [("slower", 0.5), ("slower", 1e9), ("errors", 1.1)])
def test_a_bad_disturbance_is_told(name, value):
    with pytest.raises(ParameterError, match=name):
        RequestSimulator(EQUAL).disturb(0, **{name: value})


def test_a_bad_balancer_is_told():
    with pytest.raises(ParameterError, match=r"balancer: 'best'.*prequal-like"):
        RequestSimulator(EQUAL, balancer="best")
