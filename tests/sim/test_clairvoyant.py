from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from sim.clairvoyant import Problem, make_plan
from sim.errors import ParameterError
from sim.latency import BALANCERS
from sim.physics import ServiceParams, ServicePhysics

SERVICE = ServiceParams(capacity_rps=10.0, start_up_s=30.0, start_up_spread=0.0, drain_s=15.0)


def problem_of(loads: list[float], most: int = 4) -> Problem:
    rates = np.repeat(np.array(loads)[:, None] * 10.0, 3, axis=1)
    return Problem(rates, SERVICE, sync_period_s=15.0, min_replicas=1, max_replicas=most)


def cost_of(path: tuple[int, ...], late: np.ndarray, penalty: float) -> float:
    total = 0.0
    for step, count in enumerate(path):
        total += count + penalty * len(path) * late[step, count - 1]
        if step:
            change = count - path[step - 1]
            total += 2.0 * max(change, 0) + 1.0 * max(-change, 0)
    return total


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("penalty", [0.5, 5.0, 200.0])
def test_the_plan_is_the_best_of_all_plans(seed, penalty):
    loads = np.random.default_rng(seed).uniform(0.0, 3.5, 6).tolist()
    problem = problem_of(loads)
    late = problem.violations()
    best = min(cost_of(path, late, penalty) for path in itertools.product(range(1, 5), repeat=6))
    plan = make_plan(problem, penalty)
    assert cost_of(tuple(plan.ready), late, penalty) == pytest.approx(best)


def test_replicas_are_asked_for_a_start_up_time_ahead():
    problem = problem_of([0.5] * 10 + [3.0] * 10 + [0.5] * 10, most=8)
    plan = make_plan(problem, 1000.0)
    assert problem.start_up_steps == 2
    assert plan.ready[9] < plan.ready[10]
    assert plan.desired[8] == plan.ready[10] > plan.ready[8]
    assert np.all(plan.desired >= plan.ready)


def test_a_higher_penalty_never_plans_more_violations():
    loads = np.random.default_rng(3).uniform(0.0, 6.0, 60).tolist()
    problem = problem_of(loads, most=12)
    late = problem.violations()
    planned = [
        late[np.arange(60), make_plan(problem, penalty).ready - 1].sum() for penalty in (1, 10, 100, 1000)
    ]
    assert np.all(np.diff(planned) <= 1e-12)
    assert planned[0] > planned[-1]


@pytest.mark.parametrize("balancer", BALANCERS)
def test_a_plans_violations_are_those_of_the_physics(balancer):
    """A steady load on steady replicas, every one of mean capacity: the share that the plan expects."""
    params = ServiceParams(
        capacity_rps=25.0,
        capacity_spread=0.0,
        poisson=0.0,
        balancer=float(BALANCERS.index(balancer)),
        proxies=3.0,
    )
    rate, counts = 300.0, np.arange(13, 21)
    planned = Problem(np.full((1, 1), rate), params, 15.0, 13, 20).violations()[0]
    physics = ServicePhysics(params, len(counts), 0, counts)
    interval = physics.advance(None, 600, rate)
    assert planned == pytest.approx(interval.violating / interval.arrived, rel=1e-3, abs=1e-7)
    assert planned[0] > 2 * planned[-1] > 0


def test_readiness_probes_are_allowed_for():
    slow = replace(SERVICE, readiness_period_s=10.0)
    assert Problem(np.ones((2, 1)), SERVICE, 15.0).start_up_steps == 2
    assert Problem(np.ones((2, 1)), slow, 15.0).start_up_steps == 3


def test_a_problem_without_sense_is_refused():
    with pytest.raises(ParameterError, match="max_replicas"):
        problem_of([1.0], most=0)
    with pytest.raises(ParameterError, match="steps by moments"):
        Problem(np.ones(3), SERVICE, 15.0)
