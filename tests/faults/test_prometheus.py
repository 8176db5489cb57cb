"""What a broken Prometheus does to the replicas: nothing, until it is believed again.

All services of this module suffer at the same time, each in its own way: their load falls to almost nothing
just when it can no longer be read, so whoever takes missing for zero, or old for new, scales down.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.faults.conftest import RigFactory
from tests.faults.promproxy import TROUBLES, PrometheusProxy
from tests.faults.rig import CAREFUL, EAGER, PERIOD_S, Rig, control, tolerant
from tests.integration.harness import Json, Prometheus, eventually

HIGH, LOW = 40.0, 5.0
AT_HIGH, AT_LOW = 8, 1

SPOILED = {
    "empty": "NoData",
    "nan": "NotANumber",
    "infinite": "NotANumber",
    "negative": "Negative",
    "no number": "BadQuery",
    "duplicate": "SeveralSeries",
    "stale": "Stale",
}
"""What is done to one service's series, and the reason that MetricsAvailable gives."""

FOR_ALL = {
    "slow": "PrometheusSlow",
    "refused": "PrometheusUnreachable",
    "closed": "PrometheusUnreachable",
    "error": "PrometheusUnreachable",
    "not json": "PrometheusUnreachable",
    "cut short": "PrometheusUnreachable",
    "empty": "NoData",
    "timeout": "PrometheusSlow",
}
"""What happens to every answer of one Prometheus."""


def slug(kind: str, scope: str) -> str:
    return f"{scope}-{kind.replace(' ', '-')}"


@dataclass
class Ordeal:
    """What was seen of the services: statuses before and in the middle of it, and replicas all the while."""

    rig: Rig
    before: dict[str, Json]
    during: dict[str, Json]
    kept: dict[str, tuple[int, int]]
    """Replicas when the trouble began, and the fewest until it was over."""


@pytest.fixture(scope="module")
def ordeal(make_rig: RigFactory, sound_prometheus: Prometheus) -> Iterator[Ordeal]:
    """Loads fall and are hidden, all at once; then all is healed."""
    rig = make_rig(sound_prometheus)
    proxies: dict[str, PrometheusProxy] = {kind: rig.another_prometheus() for kind in FOR_ALL}
    names = [slug(kind, "one") for kind in SPOILED]
    for kind in SPOILED:
        rig.service(slug(kind, "one"), rate=HIGH, replicas=AT_HIGH, behavior=tolerant(EAGER))
    for kind, proxy in proxies.items():
        names.append(slug(kind, "all"))
        rig.service(names[-1], rate=HIGH, replicas=AT_HIGH, prometheus=proxy, behavior=tolerant(EAGER))
    rig.service("vanished", rate=HIGH, replicas=AT_HIGH, behavior=tolerant(EAGER))
    # what was counted between the last scrape and a restart is lost: a moment's dip, which windows are for
    for name in ("reset", "ahead", "behind"):
        rig.service(name, rate=HIGH, replicas=AT_HIGH, behavior=tolerant(CAREFUL))
    rig.settle()
    rig.start()
    everyone = [*names, "vanished", "reset", "ahead", "behind"]
    for name in everyone:
        rig.wait_condition(name, "Ready", "True")
    before = {name: rig.ns.status(name) for name in everyone}

    for kind in SPOILED:
        rig.prometheus.spoil(slug(kind, "one"), kind)
    for kind, proxy in proxies.items():
        proxy.trouble(kind)
    rig.traffic.hide(rig.ns.name, "vanished")
    rig.prometheus.spoil("ahead", "ahead")
    rig.prometheus.spoil("behind", "behind")
    rig.traffic.reset(rig.ns.name, "reset")
    spans = []
    for name in [*names, "vanished"]:
        rig.wait_condition(name, "MetricsAvailable", "False")
        spans.append(rig.begin_blind(name))
    began = time.time()
    at_first = {name: rig.ns.replicas(name) for name in everyone}
    for name in [*names, "vanished"]:
        rig.rate(name, LOW)
    time.sleep(control(6 * PERIOD_S))
    for name in [*names, "vanished"]:
        rig.wait_condition(name, "Fallback", "True")
    during = {name: rig.ns.status(name) for name in everyone}
    for span in spans:
        span.end()
    kept = {name: (at_first[name], fewest(rig, name, began)) for name in everyone}

    for kind in SPOILED:
        rig.prometheus.spoil(slug(kind, "one"))
    for proxy in proxies.values():
        proxy.trouble()
    rig.traffic.hide(rig.ns.name, "vanished", False)
    yield Ordeal(rig, before, during, kept)
    rig.verify()


def condition(status: Json, kind: str) -> Json:
    return next(c for c in status["conditions"] if c["type"] == kind)


def fewest(rig: Rig, name: str, since: float) -> int:
    """The fewest replicas from a Unix time on."""
    seen = rig.watcher.history.of(name)
    at_first = [record.replicas for record in seen if record.at <= since][-1:]
    return min(at_first + [record.replicas for record in seen if record.at > since])


def test_every_trouble_that_the_proxy_can_make_is_tried() -> None:
    assert set(FOR_ALL) == set(TROUBLES)


@pytest.mark.parametrize(
    ("name", "reason"),
    [(slug(kind, "one"), reason) for kind, reason in SPOILED.items()]
    + [(slug(kind, "all"), reason) for kind, reason in FOR_ALL.items()]
    + [("vanished", "")],
)
def test_without_a_load_to_be_read_nothing_is_scaled_down_and_the_condition_says_why(
    ordeal: Ordeal, name: str, reason: str
) -> None:
    during = ordeal.during[name]
    at_first, fewest_since = ordeal.kept[name]
    assert fewest_since == at_first > AT_LOW
    assert condition(ordeal.before[name], "MetricsAvailable")["status"] == "True"
    available = condition(during, "MetricsAvailable")
    assert available["status"] == "False"
    assert reason in ("", available["reason"]), available
    assert condition(during, "Fallback")["reason"] == "MetricsUnavailable"
    assert condition(during, "Ready")["status"] == "False"


@pytest.mark.parametrize(
    "name", [slug(kind, "one") for kind in SPOILED] + [slug(kind, "all") for kind in FOR_ALL] + ["vanished"]
)
def test_once_the_load_can_be_read_again_the_policy_is_back_by_itself(ordeal: Ordeal, name: str) -> None:
    rig = ordeal.rig
    rig.wait_condition(name, "MetricsAvailable", "True")
    rig.wait_condition(name, "Fallback", "False")
    rig.ns.wait_replicas(name, AT_LOW, timeout_s=60.0)


@pytest.mark.parametrize("name", ["reset", "ahead", "behind"])
def test_a_counter_that_restarts_and_a_clock_that_is_off_change_nothing(ordeal: Ordeal, name: str) -> None:
    during = ordeal.during[name]
    assert condition(during, "MetricsAvailable")["status"] == "True"
    at_first, fewest_since = ordeal.kept[name]
    assert fewest_since == at_first


def test_samples_that_stand_still_under_old_timestamps_are_not_taken_for_a_falling_load(
    make_rig: RigFactory, ordeal: Ordeal
) -> None:
    """As after a remote write that has stopped: rate() gives ever smaller values until they count as stale.

    It takes the stabilisation window to see through that: see docs/faults.md.
    """
    rig = ordeal.rig
    rig.service("frozen", rate=HIGH, replicas=AT_HIGH, behavior=tolerant(CAREFUL))
    rig.wait_condition("frozen", "Ready", "True")
    began, at_first = time.time(), rig.ns.replicas("frozen")
    rig.traffic.freeze(rig.ns.name, "frozen")
    rig.wait_condition("frozen", "MetricsAvailable", "False", "Stale")
    assert fewest(rig, "frozen", began) == at_first
    rig.traffic.freeze(rig.ns.name, "frozen", False)
    rig.wait_condition("frozen", "MetricsAvailable", "True")


def test_a_target_that_cannot_be_scraped_is_stale_for_all_at_once(ordeal: Ordeal) -> None:
    rig = ordeal.rig
    rig.service("unscraped", rate=HIGH, replicas=AT_HIGH, behavior=tolerant(EAGER))
    rig.wait_condition("unscraped", "Ready", "True")
    rig.traffic.failing = True
    try:
        rig.wait_condition("unscraped", "MetricsAvailable", "False")
        began, at_first = time.time(), rig.ns.replicas("unscraped")
        rig.rate("unscraped", LOW)
        time.sleep(control(6 * PERIOD_S))
        assert fewest(rig, "unscraped", began) == at_first > AT_LOW
    finally:
        rig.traffic.failing = False
    rig.wait_condition("unscraped", "MetricsAvailable", "True")
    eventually(lambda: rig.ns.replicas("unscraped") < at_first, timeout_s=60.0)
