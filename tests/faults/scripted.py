"""A Prometheus without a database: answers queries about Envoy from the rates that a test has set.

Behind `PrometheusProxy` where thousands of ticks are to cost little and a load has to be what the test says,
at once and on a busy machine. It knows the request rate and the age of its samples; all else has no series.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

from tests.faults.traffic import TIME_SCALE, UnsteadyTraffic

MOST_POINTS = 20
AGE_S = 0.1
_NAMES = re.compile(r'envoy_cluster_name=(~?)"([^"]*)"')
_NAMESPACES = re.compile(r'namespace=~?"([^"]*)"')


class ScriptedPrometheus:
    """The part of /api/v1 that the operator uses, over one UnsteadyTraffic."""

    def __init__(self, traffic: UnsteadyTraffic) -> None:
        self._traffic = traffic

    def respond(self, path: str, query: str, parameters: dict[str, str]) -> bytes:
        """The body of an answer; paths are /api/v1/query and /api/v1/query_range."""
        over_range = path.endswith("query_range")
        rows = [
            {"metric": labels, **self._samples(value, parameters, over_range)}
            for labels, value in self._values(query)
        ]
        data = {"resultType": "matrix" if over_range else "vector", "result": rows}
        return json.dumps({"status": "success", "data": data}).encode()

    def _values(self, query: str) -> list[tuple[dict[str, str], float]]:
        names, namespaces = _NAMES.search(query), _NAMESPACES.search(query)
        if names is None or namespaces is None or "upstream_rq_total" not in query:
            return []
        together, found = bool(names[1]), []
        for name in names[2].split("|"):
            rate = self._traffic.seen_rate(namespaces[1], name)
            if rate is not None:
                labels = {"namespace": namespaces[1], "envoy_cluster_name": name} if together else {}
                found.append((labels, AGE_S if "timestamp(" in query else rate * TIME_SCALE))
        return found

    def _samples(self, value: float, parameters: dict[str, str], over_range: bool) -> dict[str, Any]:
        if not over_range:
            return {"value": [time.time(), repr(value)]}
        end, step = float(parameters["end"]), float(parameters["step"])
        first = max(float(parameters["start"]), end - MOST_POINTS * step)
        points = int((end - first) / step) + 1
        return {"values": [[end - step * i, repr(value)] for i in reversed(range(points))]}
