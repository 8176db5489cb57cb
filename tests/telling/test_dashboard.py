"""Every query of the dashboard against a real Prometheus that scrapes the server's own /metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import pytest

from controller.objectseries import Measured, told_by
from controller.server import create_app
from controller.telemetry import Telemetry
from tests.charts.conftest import CHART, Render, only, values_of
from tests.metrics.servers import wait_for
from tests.telling.monitoring import Prometheus, dashboard, filled, panels, queries, served, watching
from tests.telling.records import Operator
from tests.telling.test_telemetry import FULL, busy


class Busy(Operator):
    """An operator of which everything that telemetry can tell is true, more so with each scrape."""

    def __init__(self) -> None:
        super().__init__()
        self.telemetry = Telemetry()
        self.telemetry.leader.set(1)
        self.telemetry.managed.set(2)

    def exposition(self) -> Iterable[bytes]:
        busy(self.telemetry)
        self.telemetry.tick_errors.inc()
        self.telemetry.status_writes.inc()
        self.telemetry.objects.measure("shop", "other", Measured(**{**FULL, "current": 2.0}))
        self.telemetry.objects.tell("shop", "other", told_by({"conditions": []}))
        return self.telemetry.pieces()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    directory = tmp_path_factory.mktemp("dashboard")
    with served(create_app(Busy())) as port, watching(directory, port) as found:
        wait_for(
            lambda: bool(found.query("count_over_time(rlscaler_leader[10s]) > 5")), "the third scrape", 60.0
        )
        yield found


@pytest.mark.parametrize(("panel", "query"), queries(), ids=[panel for panel, _ in queries()])
def test_every_query_has_data(prometheus: Prometheus, panel: str, query: str) -> None:
    """Asked again where a busy machine made a scrape late, which leaves a moment without series."""

    def numbers() -> bool:
        found = [sample["value"][1] for sample in prometheus.query(query)]
        return bool(found) and "NaN" not in found

    wait_for(numbers, query)


def test_the_variables_find_namespaces_and_names(prometheus: Prometheus) -> None:
    lists = [item for item in dashboard()["templating"]["list"] if item["type"] == "query"]
    assert [item["name"] for item in lists] == ["namespace", "name"]
    for item in lists:
        matched = re.fullmatch(r"label_values\((.*), (\w+)\)", item["query"]["query"])
        assert matched is not None
        label, query = matched[2], filled(matched[1])
        expected = {"shop"} if label == "namespace" else {"web", "other"}

        def offered(label: str = label, query: str = query) -> set[str]:
            return {sample["metric"][label] for sample in prometheus.query(query)}

        wait_for(lambda found=offered, expected=expected: found() == expected, label)  # type: ignore[misc]


def test_legends_name_labels_that_the_queries_return(prometheus: Prometheus) -> None:
    for panel in panels():
        for target in panel["targets"]:
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            for sample in prometheus.query(filled(target["expr"])):
                assert labels <= sample["metric"].keys(), (panel["title"], sample)


def test_the_dashboard_names_only_metrics_that_are_documented() -> None:
    documented = (CHART.parent / "docs" / "telemetry.md").read_text()
    for _, query in queries():
        for name in re.findall(r"\b(?:rlscaler|process)_[a-z_]+", query):
            plain = re.sub(r"_(bucket|count|sum)$", "", name)
            assert f"`{name}`" in documented or f"`{plain}`" in documented, name


def test_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


def test_every_panel_says_what_it_shows() -> None:
    assert [panel["title"] for panel in panels() if not panel["description"].endswith((".", ")"))] == []


def test_the_config_map_holds_the_dashboard_under_the_label_of_the_sidecar(render: Render) -> None:
    found = only(render(values_of("monitoring")), "ConfigMap")
    assert found["metadata"]["namespace"] == "monitoring"
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["annotations"] == {"grafana_folder": "Autoscaling"}
    held = found["data"]["rl-scaler.json"]
    assert held.rstrip() == (CHART / "dashboards" / "rl-scaler.json").read_text().rstrip()


def test_the_service_monitor_keeps_the_namespaces_of_the_objects(render: Render) -> None:
    monitor = only(render(values_of("monitoring")), "ServiceMonitor")
    assert [endpoint["honorLabels"] for endpoint in monitor["spec"]["endpoints"]] == [True]


def test_neither_is_there_unless_it_is_asked_for(render: Render) -> None:
    assert {"ConfigMap", "PrometheusRule"} & {item["kind"] for item in render()} == set()
