"""The chart's dashboard and alerts as the tests use them, and a real Prometheus that has both."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
import yaml
from helm_python.chart import Chart

from tests.charts.conftest import CHART
from tests.metrics.servers import free_port, get, process, wait_for
from tests.real_parts import real_part

Json = dict[str, Any]

INTERVAL = "10s"
"""What Grafana fills in for $__rate_interval here: four scrapes or more."""


@functools.cache
def dashboard() -> Json:
    loaded: Json = json.loads((CHART / "dashboards" / "rl-scaler.json").read_text())
    return loaded


def panels() -> list[Json]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """(panel and letter, PromQL as Grafana would send it for "All")."""
    return [
        (f"{panel['title']} {target['refId']}", filled(target["expr"]))
        for panel in panels()
        for target in panel["targets"]
    ]


def filled(query: str) -> str:
    query = query.replace("$__rate_interval", INTERVAL)
    return re.sub(r"\$(namespace|name)\b", ".*", query)


def rules(**values: Any) -> Json:
    """spec of the PrometheusRule that the chart makes."""
    with Chart.load(CHART) as chart:
        files = chart.render(
            {"alerts": {"enabled": True, **values}}, name="rl-scaler", namespace="autoscaling"
        )
    spec: Json = yaml.safe_load(files["rl-scaler/templates/prometheusrule.yaml"])["spec"]
    return spec


def alerts(spec: Json) -> list[Json]:
    return [rule for group in spec["groups"] for rule in group["rules"]]


class Prometheus:
    """A real Prometheus that scrapes one target and evaluates rules, both twice a second."""

    def __init__(self, address: str) -> None:
        self.address = address

    def query(self, promql: str) -> list[Json]:
        """Samples of an instant query; AssertionError when Prometheus refuses it."""
        found = requests.get(f"{self.address}/api/v1/query", {"query": promql}, timeout=10).json()
        assert found["status"] == "success", found
        result: list[Json] = found["data"]["result"]
        return result

    def rules(self) -> list[Json]:
        groups = requests.get(f"{self.address}/api/v1/rules", timeout=10).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def firing(self) -> set[tuple[str, str]]:
        """(alert, name label) of all that fire now."""
        found = requests.get(f"{self.address}/api/v1/alerts", timeout=10).json()["data"]["alerts"]
        return {
            (one["labels"]["alertname"], one["labels"].get("name", ""))
            for one in found
            if one["state"] == "firing"
        }


@contextlib.contextmanager
def watching(directory: Path, port: int, spec: Json | None = None) -> Iterator[Prometheus]:
    """Scrapes 127.0.0.1:port/metrics as the chart's ServiceMonitor would: our labels win."""
    directory.mkdir(parents=True, exist_ok=True)
    job = {
        "job_name": "rl-scaler",
        "honor_labels": True,
        "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "autoscaling"}}],
    }
    config: Json = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "scrape_configs": [job],
    }
    if spec is not None:
        (directory / "rules.yml").write_text(yaml.safe_dump(spec))
        config["rule_files"] = ["rules.yml"]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    own = free_port()
    command = [
        real_part("prometheus"),
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{own}",
        "--log.level=warn",
    ]
    with process(command, directory / "prometheus.log"):
        wait_for(lambda: get(own, "/-/ready")[0] == 200, "Prometheus", 60.0)
        yield Prometheus(f"http://127.0.0.1:{own}")


@contextlib.contextmanager
def served(app: Any) -> Iterator[int]:
    """The operator's HTTP application under uvicorn in a thread; yields its port."""
    import uvicorn

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started, "the server")
        yield port
    finally:
        server.should_exit = True
        thread.join(timeout=10)
