"""kill -9 before and after every step of a tick, while loads go up and down.

What must survive is in the API server and in Prometheus: the replicas obey bounds, rate rules and
stabilisation over the whole of it, as if there had been one operator all the time.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from tests.faults.conftest import RigFactory
from tests.faults.killpoints import POINTS, STEPS
from tests.faults.rig import CAREFUL, EAGER, PATIENCE_REAL_S, PERIOD_S, Rig, control
from tests.integration.harness import eventually

RATES = (15.0, 60.0, 35.0, 80.0, 5.0)
NAMES = ("eager", "careful", "alone")


@pytest.fixture(scope="module")
def rig(make_rig: RigFactory) -> Iterator[Rig]:
    """Three services; `alone` has a query of its own, so that it is observed by itself."""
    rig = make_rig(RLSCALER_WATCH_TARGETS_FROM="1")
    rig.service("eager", rate=RATES[0], replicas=3, behavior=EAGER, outsideChange={"holdSeconds": 0})
    rig.service("twin", rate=RATES[0], replicas=3, behavior=EAGER, outsideChange={"holdSeconds": 0})
    rig.service("careful", rate=RATES[0], replicas=3, behavior=CAREFUL)
    rig.service("alone", rate=RATES[0], replicas=3, behavior=EAGER, policy={"type": "RL"})
    rig.start()
    return rig


@pytest.fixture(scope="module")
def killed(rig: Rig) -> list[str]:
    """Every point once: what the runner says at which the operator was killed."""
    rates = itertools.cycle(RATES)
    found = []
    with rig.excuse():
        for point in POINTS:
            rig.operator.arm(point)
            if not rig.operator.running:
                rig.start(wait=False)
            eventually_dead(rig, rates, point)
            found.append(str(rig.operator.shared.take_killed()))
        rig.start()
    return found


def wiggle(rig: Rig, rate: float) -> None:
    """Something to do for the next turns."""
    for name in (*NAMES, "twin"):
        rig.rate(name, rate)


def eventually_dead(rig: Rig, rates: Iterator[float], point: str) -> None:
    """Change the loads until the point was passed, which some points wait for."""
    deadline = time.monotonic() + PATIENCE_REAL_S
    wiggle(rig, next(rates))
    while not rig.operator.wait_ended(control(6 * PERIOD_S)):
        assert time.monotonic() < deadline, f"{point!r} was not reached"
        wiggle(rig, next(rates))


def test_the_operator_was_killed_before_and_after_every_step(killed: list[str]) -> None:
    assert killed == list(POINTS)
    assert len(POINTS) == 2 * len(STEPS)


def test_decisions_go_on_after_the_last_kill(rig: Rig, killed: list[str]) -> None:
    rig.decisions_go_on(*NAMES)
    for name in NAMES:
        rig.wait_condition(name, "Ready", "True")


def test_the_policy_is_the_same_as_before(rig: Rig, killed: list[str]) -> None:
    policies = {name: {str(d["policy"]) for d in rig.operator.decisions(name)} for name in NAMES}
    assert all(len(seen) == 1 for seen in policies.values()), policies


def test_nothing_was_forgotten_over_all_the_restarts(rig: Rig, killed: list[str]) -> None:
    assert len(rig.restarts) > len(POINTS)
    rig.verify()


def test_the_past_that_a_wrong_clock_left_behind_holds_nobody_up_for_long(
    rig: Rig, killed: list[str]
) -> None:
    """A node whose clock was an hour ahead has written down recommendations of the future."""
    with rig.excuse():
        wiggle(rig, 60.0)
        rig.operator.kill()
        rig.start(ahead_s=3600.0)
        rig.decisions_go_on("eager")
        rig.ns.wait_replicas("eager", 12, 11, 13, timeout_s=PATIENCE_REAL_S)
        wiggle(rig, 20.0)
        rig.ns.wait_replicas("eager", 4, timeout_s=PATIENCE_REAL_S)
        wiggle(rig, 60.0)
        rig.ns.wait_replicas("eager", 12, timeout_s=PATIENCE_REAL_S)
        eventually(lambda: rig.ns.status("eager")["desiredReplicas"] == 12, timeout_s=PATIENCE_REAL_S)
        rig.operator.kill()
        rig.start()
        wiggle(rig, 20.0)
        rig.ns.wait_replicas("eager", 4, timeout_s=PATIENCE_REAL_S)
