"""Each alert under its fault and without it, by `promtool test rules`; and that Prometheus takes them all."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.conftest import CHART, Render, only, values_of
from tests.real_parts import real_part
from tests.telling.monitoring import alerts, rules

Json = dict[str, Any]
OF = '{namespace="shop",name="web",pod="a"}'
HERE = '{namespace="autoscaling",job="rl-scaler",pod="a"}'
OTHER = HERE.replace('pod="a"', 'pod="b"')
OBJECT = {"namespace": "shop", "name": "web"}
OPERATOR = {"namespace": "autoscaling", "job": "rl-scaler"}


def bucket(le: str) -> str:
    return f'rlscaler_tick_lag_seconds_bucket{HERE[:-1]},le="{le}"}}'


def queries(outcome: str) -> str:
    return f'rlscaler_metric_queries_total{HERE[:-1]},signal="requestRate",outcome="{outcome}"}}'


def clamped(clamp: str, reason: str) -> str:
    return f'rlscaler_clamped{OF[:-1]},clamp="{clamp}",reason="{reason}"}}'


@dataclass
class Fault:
    """Series (promtool's notation, a value a minute) with a fault and without; when the alert has to be."""

    bad: dict[str, str]
    good: dict[str, str]
    labels: dict[str, str] = field(default_factory=lambda: OBJECT)
    after: str = "40m"
    not_yet: str = ""


LONG = "x120"
SINCE_0 = "rlscaler_last_decision_timestamp_seconds" + OF
FAULTS = {
    "RLScalerOperatorDown": Fault(
        {"other": f"1{LONG}"}, {f"rlscaler_build_info{HERE}": f"1{LONG}"}, {}, "6m", "4m"
    ),
    "RLScalerNoLeader": Fault(
        {f"rlscaler_leader{HERE}": f"0{LONG}"},
        {f"rlscaler_leader{HERE}": f"0{LONG}", f"rlscaler_leader{OTHER}": f"1{LONG}"},
        OPERATOR,
        "6m",
        "4m",
    ),
    "RLScalerLoopLate": Fault(
        {bucket("1.0"): f"0{LONG}", bucket("2.5"): "0+100x100", bucket("+Inf"): "0+100x100"},
        {bucket("1.0"): "0+100x100", bucket("2.5"): "0+100x100", bucket("+Inf"): "0+100x100"},
        OPERATOR,
        "15m",
        "9m",
    ),
    "RLScalerInternalErrors": Fault(
        {f"rlscaler_tick_errors_total{HERE}": "0x5 1x100"},
        {f"rlscaler_tick_errors_total{HERE}": f"3{LONG}"},
        OPERATOR,
        "8m",
        "5m",
    ),
    "RLScalerApiErrors": Fault(
        {f'rlscaler_api_errors_total{HERE[:-1]},error="Unreachable"}}': "0+60x100"},
        {f'rlscaler_api_errors_total{HERE[:-1]},error="Unreachable"}}': "0+1x100"},
        OPERATOR,
        "20m",
        "9m",
    ),
    "RLScalerPrometheusFailing": Fault(
        {queries("OK"): "0+90x100", queries("PrometheusUnreachable"): "0+10x100"},
        {queries("OK"): "0+60x100", queries("NoData"): "0+40x100", queries("PrometheusSlow"): "0+1x100"},
        OPERATOR,
        "20m",
        "9m",
    ),
    "RLScalerNotReady": Fault(
        {f"rlscaler_ready{OF}": f"0{LONG}", f"rlscaler_paused{OF}": f"0{LONG}"},
        {f"rlscaler_ready{OF}": f"0{LONG}", f"rlscaler_paused{OF}": f"1{LONG}"},
        after="20m",
        not_yet="14m",
    ),
    "RLScalerNoDecision": Fault(
        {SINCE_0: f"0{LONG}", f"rlscaler_sync_period_seconds{OF}": f"60{LONG}"},
        {SINCE_0: f"0{LONG}", f"rlscaler_sync_period_seconds{OF}": f"3600{LONG}"},
        after="9m",
        not_yet="7m",
    ),
    "RLScalerFallback": Fault(
        {f"rlscaler_fallback{OF}": f"1{LONG}"},
        {f"rlscaler_fallback{OF}": "1x5 0x100"},
        after="11m",
        not_yet="9m",
    ),
    "RLScalerObjectiveMissed": Fault(
        {f"rlscaler_slo_in_danger{OF}": "0x10 1x100"},
        {f"rlscaler_slo_in_danger{OF}": "0x10 1 0x100"},
        after="20m",
        not_yet="11m",
    ),
    "RLScalerAtMaxReplicas": Fault(
        {clamped("Bounds", "TooManyReplicas"): f"1{LONG}"},
        {clamped("Bounds", "TooFewReplicas"): f"1{LONG}"},
        after="16m",
        not_yet="14m",
    ),
    "RLScalerBudgetExhausted": Fault(
        {clamped("Budget", "BudgetExhausted"): f"1{LONG}"},
        {clamped("MaxStep", "MaxStep"): f"1{LONG}"},
        after="16m",
        not_yet="14m",
    ),
    "RLScalerUnfamiliar": Fault(
        {f"rlscaler_out_of_distribution{OF}": f"1{LONG}"},
        {f"rlscaler_out_of_distribution{OF}": f"0{LONG}"},
        after="16m",
        not_yet="14m",
    ),
    "RLScalerFlapping": Fault(
        {f"rlscaler_desired_replicas{OF}": "2 3 " * 60},
        {f"rlscaler_desired_replicas{OF}": "2 2 2 3 3 3 " * 20},
        after="70m",
    ),
    "RLScalerPaused": Fault(
        {f"rlscaler_paused{OF}": "1x130"},
        {f"rlscaler_paused{OF}": "1x110 0x20"},
        after="125m",
        not_yet="115m",
    ),
}


def units(name: str, fault: Fault, severity: str) -> list[Json]:
    """promtool's unit tests: not there without the fault or too early, there with it."""
    expected = [{"exp_labels": {**fault.labels, "severity": severity}}]

    def unit(series: dict[str, str], checks: list[tuple[str, list[Json]]]) -> Json:
        return {
            "interval": "1m",
            "input_series": [{"series": key, "values": values} for key, values in series.items()],
            "alert_rule_test": [
                {"eval_time": at, "alertname": name, "exp_alerts": found} for at, found in checks
            ],
        }

    early: list[tuple[str, list[Json]]] = [(fault.not_yet, [])] if fault.not_yet else []
    return [unit(fault.bad, [*early, (fault.after, expected)]), unit(fault.good, [(fault.after, [])])]


def promtool(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [real_part("promtool"), *words]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)


def test_every_alert_has_its_fault() -> None:
    assert [alert["alert"] for alert in alerts(rules())] == list(FAULTS)


def test_each_alert_fires_under_its_fault_and_not_otherwise(tmp_path: Path) -> None:
    """Annotations are left out: promtool compares them word by word."""
    spec = rules(pausedFor="2h")
    severities = {alert["alert"]: alert["labels"]["severity"] for alert in alerts(spec)}
    for alert in alerts(spec):
        del alert["annotations"]
        del alert["labels"]
        alert["labels"] = {"severity": severities[alert["alert"]]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(spec))
    tests = [one for name, fault in FAULTS.items() for one in units(name, fault, severities[name])]
    body = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(body))
    done = promtool(tmp_path, "test", "rules", "test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_healthy_operator_raises_no_alert(tmp_path: Path) -> None:
    spec = rules()
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(spec))
    healthy = {
        f"rlscaler_build_info{HERE}": f"1{LONG}",
        f"rlscaler_leader{HERE}": f"1{LONG}",
        f"rlscaler_tick_errors_total{HERE}": f"0{LONG}",
        bucket("1.0"): "0+100x100",
        bucket("+Inf"): "0+100x100",
        queries("OK"): "0+100x100",
        f"rlscaler_ready{OF}": f"1{LONG}",
        f"rlscaler_paused{OF}": f"0{LONG}",
        f"rlscaler_fallback{OF}": f"0{LONG}",
        f"rlscaler_out_of_distribution{OF}": f"0{LONG}",
        f"rlscaler_slo_in_danger{OF}": f"0{LONG}",
        f"rlscaler_desired_replicas{OF}": "4x20 5x20 6x100",
        f"rlscaler_sync_period_seconds{OF}": f"15{LONG}",
        SINCE_0: "0+60x200",
    }
    checks = [
        {"eval_time": at, "alertname": alert["alert"], "exp_alerts": []}
        for alert in alerts(spec)
        for at in ("5m", "60m", "90m")
    ]
    series = [{"series": key, "values": values} for key, values in healthy.items()]
    unit = {"interval": "1m", "input_series": series, "alert_rule_test": checks}
    body = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [unit]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(body))
    done = promtool(tmp_path, "test", "rules", "test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules_and_their_templates(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules()))
    done = promtool(tmp_path, "check", "rules", "--lint-fatal", "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_points_to_its_paragraph_in_the_documentation() -> None:
    text = (CHART.parent / "docs" / "telemetry.md").read_text()
    paragraphs = re.findall(r"^### (RLScaler\w+)$", text, re.MULTILINE)
    assert paragraphs == list(FAULTS)
    for alert in alerts(rules(runbookBase="https://docs.example.com/")):
        url = f"https://docs.example.com/telemetry.md#{alert['alert'].lower()}"
        assert alert["annotations"]["runbook_url"] == url
        assert set(alert["annotations"]) == {"runbook_url", "summary", "description"}


def test_thresholds_and_labels_are_values(render: Render) -> None:
    rule = only(render(values_of("monitoring")), "PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    by_name = {alert["alert"]: alert for alert in alerts(rule["spec"])}
    assert by_name["RLScalerLoopLate"]["expr"].endswith("> 2.5")
    assert by_name["RLScalerFallback"]["for"] == "30m"
    assert all(alert["labels"]["team"] == "platform" for alert in by_name.values())


@pytest.mark.parametrize("value", sorted({*yaml.safe_load((CHART / "values.yaml").read_text())["alerts"]}))
def test_every_value_of_the_alerts_is_used(value: str) -> None:
    template = (CHART / "templates" / "prometheusrule.yaml").read_text()
    assert re.search(rf"\.{value}\b", template)


def test_alerts_look_only_at_metrics_that_are_documented() -> None:
    documented = (CHART.parent / "docs" / "telemetry.md").read_text()
    for alert in alerts(rules()):
        for name in re.findall(r"\brlscaler_[a-z_]+", alert["expr"]):
            assert f"`{name.removesuffix('_bucket')}`" in documented, name
