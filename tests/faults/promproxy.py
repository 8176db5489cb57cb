"""A Prometheus that misbehaves: a real one behind a proxy that delays, refuses or rewrites what it says.

Trouble is for everybody (`trouble`) or for one service (`spoil`), whether its series are asked for alone or
among many: the rows of an answer are told apart by Envoy's label.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import aiohttp.web

from tests.faults.relay import LoopThread, Relay, abort, forwarded, returned
from tests.faults.scripted import ScriptedPrometheus
from tests.integration.harness import Json

Rows = list[Json]
_ALONE = re.compile(r'envoy_cluster_name="([^"]+)"')
LONG_AGO_S = 10_000.0
SKEW_S = 90.0


def _with_value(rows: Rows, value: str) -> Rows:
    return [
        row
        | ({"value": [row["value"][0], value]} if "value" in row else {})
        | ({"values": [[time_s, value] for time_s, _ in row["values"]]} if "values" in row else {})
        for row in rows
    ]


def _twice(rows: Rows) -> Rows:
    """As two replicas of Prometheus behind a proxy that does not deduplicate."""
    return [row | {"metric": row["metric"] | {"replica": name}} for row in rows for name in ("a", "b")]


def _shifted(rows: Rows, by_s: float) -> Rows:
    def moved(sample: list[Any]) -> list[Any]:
        return [sample[0] + by_s, sample[1]]

    return [
        row
        | ({"value": moved(row["value"])} if "value" in row else {})
        | ({"values": [moved(sample) for sample in row["values"]]} if "values" in row else {})
        for row in rows
    ]


def _about_age(query: str) -> bool:
    return "timestamp(" in query


SPOILS: dict[str, Callable[[str, Rows], Rows]] = {
    "empty": lambda query, rows: [],
    "nan": lambda query, rows: rows if _about_age(query) else _with_value(rows, "NaN"),
    "infinite": lambda query, rows: rows if _about_age(query) else _with_value(rows, "+Inf"),
    "negative": lambda query, rows: rows if _about_age(query) else _with_value(rows, "-3"),
    "no number": lambda query, rows: rows if _about_age(query) else _with_value(rows, "many"),
    "duplicate": lambda query, rows: _twice(rows),
    "stale": lambda query, rows: _with_value(rows, str(LONG_AGO_S)) if _about_age(query) else rows,
    "ahead": lambda query, rows: _shifted(rows, SKEW_S),
    "behind": lambda query, rows: _shifted(rows, -SKEW_S),
}
"""What may be done to the rows about one service, by name."""
BLINDING = frozenset(SPOILS) - {"ahead", "behind"}
"""Those that leave the operator without a load."""

TROUBLES = ("slow", "refused", "closed", "error", "not json", "cut short", "empty", "timeout")
"""What may happen to every answer; "refused" closes the port."""


class PrometheusProxy(Relay):
    """In front of one Prometheus: the address of a real one, or a scripted one."""

    def __init__(self, thread: LoopThread, upstream: str | ScriptedPrometheus) -> None:
        self._to = upstream
        self._session: aiohttp.ClientSession | None = None
        self._lock = threading.Lock()
        self._spoiled: dict[str, str] = {}
        self._trouble = ""
        self.slow_s = 5.0
        self.asked = 0
        self.suffered = 0
        super().__init__(thread)

    @property
    def address(self) -> str:
        return self.url

    def trouble(self, kind: str = "") -> None:
        """From now on, for all; "" ends it."""
        assert kind in ("", *TROUBLES), kind
        self._trouble = kind
        if kind == "refused":
            self.down()
        else:
            self.up()

    def spoil(self, service: str, kind: str = "") -> None:
        """From now on, for one service; "" ends it."""
        assert kind == "" or kind in SPOILS, kind
        with self._lock:
            self._spoiled = {name: how for name, how in self._spoiled.items() if name != service}
            if kind:
                self._spoiled[service] = kind

    def close(self) -> None:
        super().close()
        if self._session is not None:
            self._thread.run(self._session.close())

    async def answer(self, request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        body = await request.read()
        self.asked += 1
        trouble = self._trouble
        if trouble:
            self.suffered += 1
            refusal = await self._suffer(trouble, request)
            if refusal is not None:
                return refusal
        if isinstance(self._to, ScriptedPrometheus):
            given = {key: values[0] for key, values in parse_qs(body.decode()).items()}
            parameters = given | dict(request.rel_url.query)
            data = self._to.respond(request.rel_url.path, parameters.get("query", ""), parameters)
            status, headers = 200, {"Content-Type": "application/json"}
        else:
            status, headers, data = await self._ask(request, body, self._to)
        if trouble == "cut short":
            data = data[: len(data) // 2]
        elif status == 200:
            data = self._rewritten(_query(request, body), data, trouble == "empty")
        return aiohttp.web.Response(status=status, headers=headers, body=data)

    async def _suffer(
        self, trouble: str, request: aiohttp.web.BaseRequest
    ) -> aiohttp.web.StreamResponse | None:
        if trouble == "slow":
            await asyncio.sleep(self.slow_s)
        if trouble in ("closed", "refused"):
            abort(request)
            return aiohttp.web.Response(status=502)
        if trouble == "error":
            return aiohttp.web.Response(status=500, text="out of memory")
        if trouble == "not json":
            return aiohttp.web.Response(status=200, text="<html>please log in</html>")
        if trouble == "timeout":
            said = {"status": "error", "errorType": "timeout", "error": "query timed out in expression"}
            return aiohttp.web.json_response(said, status=503)
        return None

    async def _ask(
        self, request: aiohttp.web.BaseRequest, body: bytes, upstream: str
    ) -> tuple[int, dict[str, str], bytes]:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=10)
            self._session = aiohttp.ClientSession(timeout=timeout)
        url = upstream + request.raw_path
        async with self._session.request(
            request.method, url, headers=forwarded(request), data=body or None
        ) as response:
            return response.status, returned(response.headers), await response.read()

    def _rewritten(self, query: str, data: bytes, empty: bool) -> bytes:
        with self._lock:
            spoiled = dict(self._spoiled)
        if not spoiled and not empty:
            return data
        parsed = json.loads(data)
        rows = parsed["data"]["result"]
        if parsed["data"]["resultType"] not in ("vector", "matrix"):
            return data
        alone = _ALONE.search(query)
        kept: Rows = []
        for service, mine in _by_service(rows, alone[1] if alone else None).items():
            how = "empty" if empty else spoiled.get(service)
            if how is None:
                kept += mine
            else:
                self.suffered += 1
                kept += SPOILS[how](query, mine)
        parsed["data"]["result"] = kept
        return json.dumps(parsed).encode()


def _by_service(rows: Rows, alone: str | None) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for row in rows:
        service = alone or row["metric"].get("envoy_cluster_name", "")
        found.setdefault(service, []).append(row)
    return found


def _query(request: aiohttp.web.BaseRequest, body: bytes) -> str:
    given = parse_qs(body.decode()) if body else {}
    return str(request.rel_url.query.get("query") or (given.get("query") or [""])[0])
