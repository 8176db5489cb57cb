"""What an API server that refuses, stalls, forgets or vanishes does to the replicas and to the loop.

Each service of this module meets its own trouble while its load rises: what was decided is done once the
API server lets it, and nobody else has to wait. The outage of 30 s goes on in a second namespace meanwhile.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.faults.conftest import RigFactory
from tests.faults.rig import CAREFUL, PATIENCE_REAL_S, PERIOD_S, Rig, control
from tests.integration.harness import Namespace, eventually, http_get

LOW, HIGH = 20.0, 60.0
AT_LOW, AT_HIGH = 4, 12
OUTAGE_REAL_S = 30.0
LONG_S = 12
"""Longer than one request may take: the next turn waits."""


@dataclass(frozen=True)
class Case:
    """Trouble of one service: what the proxy does to its requests, and what AbleToScale says meanwhile."""

    name: str
    path: str
    fault: dict[str, Any]
    reason: str = ""


TARGET = "/deployments/{}($|/)"
SCALE = "/deployments/{}/scale$"
STATUS = "/rlscalers/{}/status$"
CASES = (
    Case("conflict", SCALE, {"method": "PATCH", "code": 409}, "ScaleConflict"),
    Case("throttled", SCALE, {"method": "PATCH", "code": 429, "retry_after_s": 1}),
    Case("throttled-long", TARGET, {"code": 429, "retry_after_s": LONG_S}, "FailedGetScale"),
    Case("broken", TARGET, {"code": 500}, "FailedGetScale"),
    Case("broken-write", SCALE, {"code": 500}, "FailedUpdateScale"),
    Case("unavailable", TARGET, {"code": 503}, "FailedGetScale"),
    Case("forbidden", SCALE, {"method": "PATCH", "code": 403}, "Forbidden"),
    Case("closed", TARGET, {"close": True}, "FailedGetScale"),
    Case("slow", TARGET, {"delay_s": 1.0}),
    Case("status-conflict", STATUS, {"code": 409}),
    Case("status-broken", STATUS, {"code": 500}),
    Case("status-lost", STATUS, {"lose": True}),
)


class LongOutage:
    """An operator of its own whose API server is away for 30 s."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.alive_in_between: list[int] = []
        self.told = ""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        self.rig.service("web", rate=LOW, replicas=AT_LOW, behavior=CAREFUL)
        self.rig.start()
        self.rig.wait_condition("web", "Ready", "True")
        self._thread.start()

    def _run(self) -> None:
        rig = self.rig
        with rig.excuse():
            rig.api.down()
            rig.rate("web", HIGH)
            end = time.monotonic() + OUTAGE_REAL_S
            while time.monotonic() < end:
                time.sleep(1.0)
                self.alive_in_between.append(http_get(f"{rig.operator.url}/healthz")[0])
            rig.api.up()

    def wait(self) -> None:
        self._thread.join(OUTAGE_REAL_S + PATIENCE_REAL_S)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module", autouse=True)
def outage(make_rig: RigFactory, another_namespace: Namespace) -> LongOutage:
    """Begins with the module; the last test waits for its end."""
    found = LongOutage(make_rig(namespace=another_namespace, RLSCALER_RESYNC_SECONDS="300"))
    found.begin()
    return found


@pytest.fixture(scope="module")
def rig(make_rig: RigFactory) -> Iterator[Rig]:
    """Services under trouble; reads targets one by one."""
    rig = make_rig()
    for case in CASES:
        rig.service(case.name, rate=LOW, replicas=AT_LOW)
    for name in ("sound", "lost", "lost-down"):
        rig.service(name, rate=LOW, replicas=AT_LOW, behavior=CAREFUL)
    rig.start()
    for name in [*(case.name for case in CASES), "sound", "lost", "lost-down"]:
        rig.wait_condition(name, "Ready", "True")
    yield rig
    rig.verify()


@pytest.fixture(scope="module")
def suffered(rig: Rig) -> dict[str, dict[str, Any]]:
    """The conditions AbleToScale in the middle of it, by name; all is healed afterwards."""
    faults = {case.name: rig.api.inject(path=case.path.format(case.name), **case.fault) for case in CASES}
    found: dict[str, dict[str, Any]] = {}
    with rig.excuse(*faults):
        for name in [*faults, "sound"]:
            rig.rate(name, HIGH)
        rig.ns.wait_replicas("sound", AT_HIGH, timeout_s=PATIENCE_REAL_S)
        for case in CASES:
            eventually(lambda case=case: faults[case.name].hits >= 1, timeout_s=PATIENCE_REAL_S)
            if case.reason:
                found[case.name] = rig.wait_condition(case.name, "AbleToScale", "False", case.reason)
        rig.api.heal(*faults.values())
    return found


def test_whoever_has_no_trouble_does_not_wait_for_those_who_have(
    rig: Rig, suffered: dict[str, dict[str, Any]]
) -> None:
    assert rig.ns.replicas("sound") == AT_HIGH


@pytest.mark.parametrize("case", [case for case in CASES if case.reason], ids=lambda case: case.name)
def test_a_refusal_is_the_condition_of_the_one_it_concerns(
    suffered: dict[str, dict[str, Any]], case: Case
) -> None:
    assert suffered[case.name]["message"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_once_the_api_server_lets_it_the_replicas_follow(
    rig: Rig, suffered: dict[str, dict[str, Any]], case: Case
) -> None:
    rig.ns.wait_replicas(case.name, AT_HIGH, timeout_s=PATIENCE_REAL_S)
    rig.wait_condition(case.name, "AbleToScale", "True")
    eventually(lambda: rig.ns.status(case.name)["currentReplicas"] == AT_HIGH, timeout_s=PATIENCE_REAL_S)


def test_a_retry_after_is_waited_out(rig: Rig, suffered: dict[str, dict[str, Any]]) -> None:
    asked = [e for e in rig.api.exchanges if e.path.endswith("/deployments/throttled/scale")]
    refused = [e for e in asked if e.told == 429]
    for before, after in itertools.pairwise(asked):
        if before in refused:
            assert after.at - before.at >= 0.95
    long = [e for e in rig.api.exchanges if e.path.endswith("/deployments/throttled-long")]
    refusals = [i for i, e in enumerate(long) if e.told == 429]
    assert refusals
    for i in refusals:
        assert all(after.at - long[i].at >= LONG_S - 1 for after in long[i + 1 :])


def test_a_write_whose_answer_is_lost_counts_for_the_rate_rules(rig: Rig) -> None:
    """The API server scaled, the operator was not told: it must not take the result for somebody else's."""
    for name, rate in (("lost", HIGH), ("lost-down", 5.0)):
        lost = rig.api.inject(path=SCALE.format(name), method="PATCH", lose=True, times=2)
        rig.rate(name, rate)
        eventually(lambda lost=lost: lost.hits == 2, timeout_s=PATIENCE_REAL_S)
        rig.api.heal(lost)
    rig.ns.wait_replicas("lost", AT_HIGH, timeout_s=PATIENCE_REAL_S)
    rig.ns.wait_replicas("lost-down", 1, timeout_s=PATIENCE_REAL_S)
    assert rig.violations() == []


@pytest.mark.parametrize("how", ["expired", "broken"])
def test_an_edit_is_noticed_after_the_watches_have_ended(rig: Rig, how: str) -> None:
    end = rig.api.expire_watches if how == "expired" else rig.api.break_watches
    assert end() >= 1
    bound = {"expired": 9, "broken": 7}[how]
    rig.ns.patch_spec("sound", maxReplicas=bound)
    rig.ns.wait_replicas("sound", bound, timeout_s=PATIENCE_REAL_S)


@pytest.mark.parametrize(
    ("code", "times", "bound"),
    [
        pytest.param(410, 2, 6, id="it cannot begin where it ended"),
        pytest.param(401, 1, 8, id="its credentials are refused"),
    ],
)
def test_a_watch_that_is_refused_begins_anew(rig: Rig, code: int, times: int, bound: int) -> None:
    refused = rig.api.inject(path="/rlscalers$", query="watch=true", code=code, times=times)
    rig.api.break_watches("rlscalers")
    eventually(lambda: refused.hits >= 1, timeout_s=PATIENCE_REAL_S)
    rig.api.heal(refused)
    rig.ns.patch_spec("sound", maxReplicas=bound)
    rig.ns.wait_replicas("sound", bound, timeout_s=PATIENCE_REAL_S)


def test_an_outage_of_30_seconds_is_waited_out_and_nothing_is_forgotten(outage: LongOutage) -> None:
    outage.wait()
    rig = outage.rig
    # 0: no answer within five seconds, on a machine that is busy with other things
    assert set(outage.alive_in_between) <= {200, 0}
    assert 200 in outage.alive_in_between
    rig.ns.wait_replicas("web", AT_HIGH, timeout_s=PATIENCE_REAL_S)
    rig.ns.patch_spec("web", maxReplicas=7)
    rig.ns.wait_replicas("web", 7, timeout_s=PATIENCE_REAL_S)
    rig.decisions_go_on("web")
    assert time.time() - rig.restarts[0] > control(PERIOD_S)
    rig.verify()
