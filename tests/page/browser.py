"""A real Chromium, driven by its DevTools protocol, for the tests of the pages and for their pictures."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websocket

from tests.integration.harness import eventually
from tests.real_parts import real_part

Json = dict[str, Any]

FLAGS = (
    *(
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
    ),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    *(
        "--disable-dev-shm-usage",
        "--disable-extensions",
        "--remote-debugging-port=0",
        "--force-color-profile=srgb",
    ),
    *("--lang=en-GB", "--disable-features=Translate,OptimizationHints,MediaRouter", "--mute-audio"),
)
KEYS = {
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    " ": (32, " "),
    "End": (35, ""),
    "Home": (36, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
}


class Browser:
    """One Chromium process; `page` opens a tab of its own."""

    def __init__(self, profile: Path) -> None:
        self._profile = profile
        command = [real_part("chromium"), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        profile.mkdir(parents=True, exist_ok=True)
        with (profile / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        port = eventually(self._port, timeout_s=60.0)
        self._socket = Connection(f"ws://127.0.0.1:{port[0]}{port[1]}")

    def _port(self) -> list[str]:
        assert self._process.poll() is None, (self._profile / "log").read_text()[-2000:]
        file = self._profile / "DevToolsActivePort"
        return file.read_text().split("\n")[:2] if file.exists() and "\n" in file.read_text() else []

    @contextlib.contextmanager
    def page(
        self, url: str, width: int = 1280, height: int = 900, theme: str = "light", scale: float = 1.0
    ) -> Iterator[Page]:
        """A tab of its own, with storage of its own, on a screen of this size."""
        context = self._socket.send("Target.createBrowserContext")["browserContextId"]
        target = self._socket.send("Target.createTarget", url="about:blank", browserContextId=context)
        attached = self._socket.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self._socket, attached["sessionId"])
        page.prepare(width, height, theme, scale)
        page.open(url)
        try:
            yield page
        finally:
            self._socket.send("Target.disposeBrowserContext", browserContextId=context)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._socket.send("Browser.close")
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Connection:
    """Commands and their answers; events wait in `events` until a page reads them."""

    def __init__(self, url: str) -> None:
        self._socket = websocket.create_connection(url, timeout=30, suppress_origin=True)
        self._ids = itertools.count(1)
        self.events: list[Json] = []

    def send(self, method: str, session: str = "", **params: Any) -> Json:
        """The result of a command. Raises AssertionError when Chromium refuses it."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer: Json = json.loads(self._socket.recv())
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            if "method" in answer:
                self.events.append(answer)


class Page:
    """One tab."""

    def __init__(self, connection: Connection, session: str) -> None:
        self._connection, self._session = connection, session

    def send(self, method: str, **params: Any) -> Json:
        return self._connection.send(method, self._session, **params)

    def prepare(self, width: int, height: int, theme: str, scale: float) -> None:
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility", "DOM"):
            self.send(f"{domain}.enable")
        self.resize(width, height, scale)
        self.prefer(theme)

    def resize(self, width: int, height: int, scale: float = 1.0) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )

    def prefer(self, theme: str, motion: str = "no-preference") -> None:
        features = [
            {"name": "prefers-color-scheme", "value": theme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        self.send("Emulation.setEmulatedMedia", features=features)

    def open(self, url: str) -> None:
        self.js("window.left = true")
        self.send("Page.navigate", url=url)
        eventually(lambda: self.js("!window.left && document.readyState === 'complete'"), timeout_s=30.0)

    def js(self, expression: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self, selector: str) -> str:
        """The text that a person sees in the first element of this kind; "" without one."""
        return str(self.js(f"(document.querySelector({json.dumps(selector)}) || {{}}).innerText || ''"))

    def wait(self, expression: str, timeout_s: float = 30.0) -> Any:
        """The value of an expression once it is true."""
        return eventually(lambda: self.js(expression), timeout_s=timeout_s)

    def wait_text(self, selector: str, words: str, timeout_s: float = 30.0) -> str:
        """The text of an element once it has these words in it."""

        def check() -> str:
            text = self.text(selector)
            assert words in text, text
            return text

        return eventually(check, timeout_s)

    def key(self, name: str, shift: bool = False) -> None:
        """One key, pressed and let go."""
        code, text = KEYS[name] if name in KEYS else (ord(name.upper()), name)
        params: Json = {
            "key": name,
            "code": name,
            "windowsVirtualKeyCode": code,
            "modifiers": 8 if shift else 0,
        }
        self.send("Input.dispatchKeyEvent", type="keyDown", **params, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **params)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def tab_to(self, selector: str, most: int = 60) -> None:
        """From the top of the page, move the focus by Tab alone until it is on this element."""
        self.js("document.querySelector('.skip').focus()")
        wanted = f"document.activeElement.matches({json.dumps(selector)})"
        for _ in range(most):
            if self.js(wanted):
                return
            self.key("Tab")
        raise AssertionError(f"{selector} is not reached by {most} times Tab")

    def picture(self, path: Path, whole: bool = False) -> Path:
        """A PNG of what is seen, or of the whole page."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def events(self, *methods: str) -> list[Json]:
        """Parameters of this tab's events of these kinds so far."""
        self.js("1")  # whatever has happened has been sent before the answer to this
        mine = [event for event in self._connection.events if event.get("sessionId") == self._session]
        return [event["params"] for event in mine if event["method"] in methods]

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and exceptions."""
        logged = [event["entry"] for event in self.events("Log.entryAdded")]
        said = [
            f"{entry['text']} {entry.get('url', '')}"
            for entry in logged
            if entry["level"] in ("error", "warning")
        ]
        said += [
            str(e["args"])
            for e in self.events("Runtime.consoleAPICalled")
            if e["type"] in ("error", "warning")
        ]
        thrown = [event["exceptionDetails"] for event in self.events("Runtime.exceptionThrown")]
        return said + [one.get("exception", {}).get("description", one["text"]) for one in thrown]

    def forgive(self, words: str) -> None:
        """Complaints with these words in them are what the test has brought about."""
        self.js("1")
        kept = [event for event in self._connection.events if words not in json.dumps(event)]
        self._connection.events[:] = kept

    def requests(self) -> list[str]:
        """Addresses of everything that was requested."""
        return [event["request"]["url"] for event in self.events("Network.requestWillBeSent")]

    def nodes(self) -> list[Json]:
        """What a screen reader is told: role, name, value and properties of each node."""
        found = self.send("Accessibility.getFullAXTree")["nodes"]
        return [_node(node) for node in found if not node.get("ignored")]


def _node(node: Json) -> Json:
    properties = {one["name"]: one["value"].get("value") for one in node.get("properties", [])}
    plain = {key: node.get(key, {}).get("value", "") for key in ("role", "name", "value")}
    return plain | {"properties": properties}


def settle(page: Page, seconds: float = 1.0) -> None:
    """For pictures: let transitions end."""
    page.js("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    time.sleep(seconds)
