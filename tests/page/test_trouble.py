"""What the operator's page does when things go wrong: servers that go, text that would be HTML, a token."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from controller.core import Clamp, Outcome
from controller.metrics import SignalReading
from controller.server import HttpServer, create_app
from controller.status import PolicyFacts
from tests.integration.harness import eventually, free_port
from tests.operator.bodies import rlscaler
from tests.page.browser import Browser
from tests.telling.records import Operator, record

EVIL = "<img src=x onerror=\"document.title='gone'\"><script>document.title='gone'<b>"


class Server:
    """The operator's HTTP server in a thread, for one address, that can go and come again."""

    def __init__(self, app: FastAPI) -> None:
        self.app, self.port = app, free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: HttpServer | None = None

    def _do(self, work: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(timeout=30)

    def start(self) -> Server:
        async def begin() -> None:
            self.app.state.streams.closing = asyncio.Event()
            self._server = HttpServer(self.app, f"127.0.0.1:{self.port}")
            await self._server.start()

        self._do(begin())
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._do(self._server.stop())
            self._server = None

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@pytest.fixture
def operator() -> Operator:
    made = Operator()
    body = rlscaler("web")
    body["status"] = {"conditions": [{"type": "Ready", "status": "False", "reason": "Lost", "message": "no"}]}
    made.registry.apply(body)
    made.log.add(record("web", outcome="Held"))
    return made


@pytest.fixture
def server(operator: Operator) -> Iterator[Server]:
    started = Server(create_app(operator)).start()
    yield started
    started.close()


def test_a_server_that_goes_is_said_and_one_that_comes_back_is_followed(
    browser: Browser, server: Server, operator: Operator
) -> None:
    with browser.page(server.url) as page:
        page.wait_text("#connection", "Live")
        page.wait_text("#log", "hpa recommended")
        assert page.js("document.querySelector('#banner').hidden")
        server.stop()
        page.wait_text("#banner", "Disconnected")
        assert "what you see is from" in page.text("#banner")
        assert page.text("#connection") == "Disconnected"
        assert "hpa recommended" in page.text("#log"), "what was known is still shown"
        alert = [node for node in page.nodes() if node["role"] == "alert"]
        assert len(alert) == 1
        operator.log.add(record("web", -5.0, outcome="ScaledUp", message="4 -> 9: meanwhile"))
        server.start()
        page.wait("document.querySelector('#banner').hidden", timeout_s=40)
        page.wait_text("#log", "meanwhile")
        assert page.text("#connection") == "Live"


def evil(operator: Operator) -> None:
    """HTML wherever an RLScaler, a policy or Prometheus can put text."""
    body = rlscaler(EVIL, uid="evil")
    condition = {"type": EVIL, "status": "False", "reason": EVIL, "message": EVIL}
    body["metadata"]["namespace"] = "shop"
    body["status"] = {
        "conditions": [condition | {"type": "Ready"}, condition],
        "budget": {"name": EVIL, "message": EVIL},
        "canary": {"phase": EVIL, "message": EVIL},
        "policy": {"canary": {"name": EVIL, "phase": EVIL, "message": EVIL}},
        "backends": [{"name": EVIL, "currentReplicas": 1, "desiredReplicas": 2, "weight": 3}],
        "target": EVIL,
    }
    operator.registry.apply(body)
    made = record(
        EVIL,
        outcome="Held",
        message=EVIL,
        policy=PolicyFacts("RL", EVIL, EVIL),
        clamps=(Clamp("Bounds", EVIL, 1, 2, EVIL),),
        readings={"requestRate": SignalReading(1.0, Outcome.MISSING, EVIL)},
    )
    operator.log.add(made)
    operator.explanations["shop", EVIL] = {
        "namespace": "shop",
        "name": EVIL,
        "target": EVIL,
        "mode": "Active",
        "pausedByAnnotation": False,
        "decision": made.as_json(),
        "ageSeconds": 1.0,
        "policy": {"name": EVIL, "digest": EVIL},
        "objective": {},
        "conditions": [condition],
        "missing": [EVIL],
        "hpa": {"replicas": None},
        "guard": [{"name": EVIL, "reason": EVIL, "message": EVIL}],
        "besides": [EVIL],
        "wouldChange": [EVIL],
        "recommendation": {
            "replicas": 4,
            "fallback": None,
            "parameters": {},
            "note": EVIL,
            "groups": [{"what": EVIL, "replicas": 2}],
            "features": [
                {
                    "name": EVIL,
                    "description": EVIL,
                    "value": 1.0,
                    "below": 1,
                    "above": 0,
                    "step": 0.1,
                    "unit": "",
                }
            ],
        },
    }


def test_text_that_would_be_html_is_text(browser: Browser, server: Server, operator: Operator) -> None:
    evil(operator)
    with browser.page(server.url) as page:
        page.wait("document.querySelectorAll('#rows tr').length === 2")
        page.js(
            "[...document.querySelectorAll('#rows a')].find(one => one.innerText.includes('<img')).click()"
        )
        page.wait_text("#d-why", "What would change it")
        page.wait_text("#log", "<script>")
        for part in ("#rows", "#detail", "#d-notes", "#d-why", "#log"):
            assert "<img src=x" in page.text(part), part
        assert page.js("document.title") == "rl-scaler operator"
        assert page.js("document.querySelectorAll('main img, main script').length") == 0
        assert page.complaints() == []


def test_a_name_in_the_address_that_is_nobodys_is_said(browser: Browser, server: Server) -> None:
    with browser.page(server.url + "#/shop/nobody") as page:
        page.wait_text("#d-why", "there is no RLScaler 'nobody' in namespace 'shop'")
        assert [text for text in page.complaints() if "404" not in text] == []


def test_a_token_is_asked_for_once_and_kept_out_of_the_address(browser: Browser, operator: Operator) -> None:
    """A gateway before the operator, say; `rl-scaler serve` does the same by itself."""
    app = create_app(operator)

    @app.middleware("http")
    async def guard(request: Request, call: Any) -> Response:
        if (
            request.url.path.startswith("/v1")
            and request.headers.get("authorization") != "Bearer open-sesame"
        ):
            return JSONResponse({"detail": "no"}, status_code=401)
        return await call(request)  # type: ignore[no-any-return]

    server = Server(app).start()
    try:
        with browser.page(server.url) as page:
            page.wait_text("#banner", "This server needs a token.")
            page.tab_to("#token")
            page.type("open-sesame")
            page.key("Enter")
            page.wait_text("#connection", "Live")
            page.wait("document.querySelectorAll('#rows tr').length === 1")
        with browser.page(server.url + "#token=open-sesame") as page:
            page.wait_text("#connection", "Live")
            assert page.js("location.hash") == ""
            assert page.js("sessionStorage.getItem('rl-scaler-token')") == "open-sesame"
            assert page.complaints() == []
    finally:
        server.close()


def test_a_page_that_nobody_looks_at_asks_nothing(
    browser: Browser, server: Server, operator: Operator
) -> None:
    streams = server.app.state.streams
    with browser.page(server.url) as page:
        page.wait_text("#connection", "Live")
        assert streams.clients == 1
        page.js("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        page.js("document.dispatchEvent(new Event('visibilitychange'))")
        eventually(lambda: streams.clients == 0)
        asked = len(page.requests())
        page.js("new Promise(done => setTimeout(done, 4000))")  # longer than the list's period
        assert len(page.requests()) == asked
        operator.log.add(record("web", -5.0, outcome="ScaledUp", message="4 -> 9: meanwhile"))
        page.js("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        page.wait_text("#log", "meanwhile")
        assert page.complaints() == []
    eventually(lambda: streams.clients == 0)
