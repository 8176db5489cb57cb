"""What the operator exposes: names, the right numbers, and that the documentation lists them all."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.objectseries import SERIES, Measured, ObjectSeries, told_by
from controller.telemetry import LONGEST_START_S, Telemetry, process_began_s
from tests.real_parts import real_part
from tests.telling.records import BY_RATE, TO_BOUND, record

DOC = Path(__file__).parents[2] / "docs" / "telemetry.md"
FULL = {
    "current": 4.0,
    "ready_replicas": 3.0,
    "recommended": 6.0,
    "hpa": 5.0,
    "desired": 5.0,
    "paused": 0.0,
    "fallback": 1.0,
    "unfamiliar": 0.0,
    "slo_in_danger": 1.0,
    "slo_latency_ratio": 1.2,
    "cost": 2.5,
    "decided_s": 1_800_000_000.0,
    "sync_period_s": 15.0,
    "clamps": (("Bounds", "TooManyReplicas"), ("ScalingPolicies", "ScaleUpLimit")),
    "policy": ("Active", "RL", 'odd "name"\\', "sha256:0123"),
}


def busy(telemetry: Telemetry) -> Telemetry:
    """Each metric has had something to say."""
    telemetry.reconciliations.labels("scale_up", "none").inc()
    telemetry.queries.labels("requestRate", "OK").inc()
    telemetry.api_errors.labels("Conflict").inc()
    telemetry.decided(record(clamps=(BY_RATE, TO_BOUND), fallback="InvalidAction", outcome="ScaledUp"))
    for histogram in (telemetry.duration, telemetry.lag, telemetry.delay, telemetry.batch_cpu):
        histogram.observe(0.01)
    telemetry.inference.observe(0.001)
    telemetry.budget("shop", "team", 20, 12, 15)
    telemetry.objects.measure("shop", "web", Measured(**FULL))
    status = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "policy": {"canary": {"costRatio": "0.9", "shortfall": "0.01"}},
        "budget": {"cap": 7},
        "canary": {"phase": "Paused", "weight": 20, "failedChecks": 1, "missingChecks": 2},
    }
    telemetry.objects.tell("shop", "web", told_by(status))
    return telemetry


def families(telemetry: Telemetry) -> dict[str, str]:
    """Type by name, as Prometheus reads them."""
    found = text_string_to_metric_families(telemetry.render().decode())
    return {family.name + ("_total" if family.type == "counter" else ""): family.type for family in found}


def test_promtool_finds_no_fault_in_the_metrics() -> None:
    done = subprocess.run(
        [real_part("promtool"), "check", "metrics"],
        input=busy(Telemetry()).render(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, "", "")


def test_the_documentation_lists_every_metric_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (gauge|counter|histogram) \|", DOC.read_text(), re.MULTILINE)
    assert dict(rows) == families(busy(Telemetry()))
    assert len(rows) == len(dict(rows))


def test_the_documentation_lists_the_labels_of_every_metric() -> None:
    text = DOC.read_text()
    for family in text_string_to_metric_families(busy(Telemetry()).render().decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        (row,) = re.findall(rf"^\| `{name}` \|.*$", text, re.MULTILINE)
        assert set(re.findall(r"`([a-z_]+)`", row.split("|")[3])) == labels, name


def test_every_number_of_an_object_is_exposed_under_its_labels() -> None:
    telemetry = busy(Telemetry())
    samples = {
        sample.name: sample
        for family in text_string_to_metric_families(telemetry.render().decode())
        for sample in family.samples
        if sample.labels.get("name") == "web"
    }
    for series in SERIES:
        assert samples[series.name].labels == {"namespace": "shop", "name": "web"}
        assert samples[series.name].value == telemetry.objects.value(series.name, "shop", "web")
    assert samples["rlscaler_current_replicas"].value == 4.0
    assert samples["rlscaler_ready"].value == 1.0
    assert samples["rlscaler_budget_cap_replicas"].value == 7.0
    assert samples["rlscaler_canary_cost_ratio"].value == 0.9
    assert samples["rlscaler_rollout_weight"].value == 20.0
    assert samples["rlscaler_rollout_failed_checks"].value == 3.0
    assert samples["rlscaler_rollout_phase"].labels["phase"] == "Paused"
    assert samples["rlscaler_policy_info"].labels["policy"] == 'odd "name"\\'


def test_what_is_not_known_has_no_sample() -> None:
    telemetry = Telemetry()
    telemetry.objects.measure("shop", "web", Measured(paused=1.0))
    text = telemetry.render().decode()
    told = {line.split("{")[0] for line in text.splitlines() if 'name="web"' in line}
    assert told == {"rlscaler_paused", "rlscaler_replica_seconds_total"}
    assert telemetry.objects.value("rlscaler_fallback", "shop", "web") is None


def test_the_time_of_the_last_decision_stays_while_none_is_made() -> None:
    objects = ObjectSeries(lambda: 0.0)
    objects.measure("shop", "web", Measured(decided_s=100.0, fallback=1.0))
    objects.measure("shop", "web", Measured(paused=1.0))
    assert objects.value("rlscaler_last_decision_timestamp_seconds", "shop", "web") == 100.0
    assert objects.value("rlscaler_fallback", "shop", "web") is None


def test_replica_seconds_add_up_between_turns_and_stop_while_nothing_is_known() -> None:
    now = 0.0
    objects = ObjectSeries(lambda: now)

    def total() -> float:
        found = objects.value("rlscaler_replica_seconds_total", "shop", "web")
        assert found is not None
        return found

    objects.measure("shop", "web", Measured(current=4.0))
    now = 10.0
    assert total() == 40.0
    objects.measure("shop", "web", Measured(current=4.0))
    objects.measure("shop", "web", Measured(current=6.0))
    now = 15.0
    assert total() == 70.0
    objects.measure("shop", "web", Measured())
    now = 100.0
    assert total() == 70.0
    objects.measure("shop", "web", Measured(current=1.0))
    now = 103.0
    assert total() == 73.0


def test_decisions_are_counted_by_outcome_clamp_and_fallback() -> None:
    telemetry = Telemetry()
    for _ in range(3):
        telemetry.decided(record(clamps=(BY_RATE, TO_BOUND), outcome="ScaledUp"))
    telemetry.decided(record(fallback="MetricsUnavailable", outcome="Held"))
    value = telemetry.registry.get_sample_value
    assert value("rlscaler_decisions_total", {"outcome": "ScaledUp"}) == 3
    assert value("rlscaler_decisions_total", {"outcome": "Held"}) == 1
    assert value("rlscaler_decisions_total", {"outcome": "ScaledDown"}) == 0
    assert value("rlscaler_clamps_total", {"clamp": "Bounds", "reason": "TooManyReplicas"}) == 3
    assert value("rlscaler_fallback_decisions_total", {"reason": "MetricsUnavailable"}) == 1


def test_a_deleted_objects_series_are_gone() -> None:
    telemetry = busy(Telemetry())
    telemetry.forget("shop", "web")
    assert 'name="web"' not in telemetry.render().decode()


def test_two_operators_in_one_process_do_not_share_numbers() -> None:
    first, second = Telemetry(), Telemetry()
    busy(first)
    assert second.registry.get_sample_value("rlscaler_tick_lag_seconds_count") == 0


def test_ten_thousand_objects_are_written_out_from_small_rows() -> None:
    telemetry = Telemetry()
    for number in range(10_000):
        telemetry.objects.measure("shop", f"web-{number}", Measured(**FULL))
    lines = telemetry.render().decode().splitlines()
    replicas = [line for line in lines if line.startswith("rlscaler_current_replicas{")]
    assert len(replicas) == 10_000
    assert len(lines) > 10_000 * 15


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({}, math.nan),
        ({"conditions": [{"type": "Ready", "status": "Unknown"}]}, 0.0),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, 1.0),
        ({"policy": {"name": "x"}, "conditions": [{"type": "Ready", "status": "False"}]}, 0.0),
    ],
)
def test_ready_is_what_the_condition_says(status: dict[str, object], ready: float) -> None:
    assert told_by(status).ready == pytest.approx(ready, nan_ok=True)


def test_numbers_of_a_status_that_are_none_are_missing() -> None:
    told = told_by({"policy": {"canary": {"costRatio": "?", "shortfall": None}}, "budget": {}})
    assert math.isnan(told.canary_cost_ratio)
    assert math.isnan(told.canary_shortfall)
    assert math.isnan(told.budget_cap)


def test_a_young_process_knows_when_it_began() -> None:
    before_s = time.time()
    script = "from controller.telemetry import process_began_s; print(process_began_s())"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    # the kernel counts from a boot time of whole seconds
    assert float(said) == pytest.approx(before_s, abs=5.0)
    assert time.time() - LONGEST_START_S - 1.0 <= process_began_s() <= time.time()


@pytest.mark.parametrize(("ahead_s", "since_s"), [(1e6, -LONGEST_START_S), (-1e6, 0.0)])
def test_a_process_began_within_the_last_minute_whatever_proc_says(
    ahead_s: float, since_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = time.time() + ahead_s
    monkeypatch.setattr("controller.telemetry.time.time", lambda: now_s)
    assert process_began_s() == now_s + since_s
