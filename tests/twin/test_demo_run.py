"""`python -m sim.demo` as a person runs it: in its own process, watched through its page, ended by Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.real_parts import real_part

from .conftest import Json, eventually

BROWSER_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--timeout=4000"),
)


def in_a_browser(page: str, profile: Path) -> str:
    """The page's document after its scripts have run in a real Chromium."""
    command = [real_part("chromium"), *BROWSER_FLAGS, f"--user-data-dir={profile}", "--dump-dom", page]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(output: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "sim.demo", "--time-scale", "120", "--out", str(output)]
    with (output / "stdout").open("w") as stdout:
        process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.STDOUT, text=True)
        yield process
        process.kill()
        process.wait()


def test_a_run_shows_its_page_and_ctrl_c_ends_all_of_it_with_a_table(
    demo: subprocess.Popen[str], output: Path
) -> None:
    def text() -> str:
        return (output / "stdout").read_text()

    page = eventually(lambda: re.search(r"page +(http://\S+)", text()), timeout_s=40)[1]
    html = httpx.get(page).text
    assert "/*snapshot*/ null" not in html
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", html), "the page must work offline"

    shot: Json = {}

    def well_into_the_window() -> bool:
        shot.update(httpx.get(f"{page}snapshot.json").json())
        return bool(shot["elapsed_s"] > 150)

    eventually(well_into_the_window, timeout_s=40)
    assert [s["label"] for s in shot["services"]] == ["RL policy", "HPA, 70 %"]
    assert all(s["conditions"]["MetricsAvailable"]["status"] == "True" for s in shot["services"])
    with httpx.stream("GET", f"{page}events") as stream:
        first_event = next(stream.iter_lines())
    assert json.loads(first_event.removeprefix("data: "))["from"] == 0

    document = re.sub(r"<script.*?</script>", "", in_a_browser(page, output / "profile"), flags=re.S)
    assert "Connecting" not in document
    assert document.count("<path") + document.count("<polyline") >= 4
    for label in ("RL policy", "HPA, 70 %", "SLO violations", "Cost / ideal"):
        assert label in document

    pids = shot["facts"]["pids"].values()
    demo.send_signal(signal.SIGINT)
    assert demo.wait(timeout=20) == 0
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert "stopped after" in text()
    assert re.search(r"cost / ideal .* \d\.\d\d .* \d\.\d\d", text())
    results = json.loads((output / "results.json").read_text())
    assert set(results["figures"]) == {"web", "web-hpa"}
    assert results["figures"]["web-hpa"]["cost_over_ideal"] > 1
    assert (output / "demo.png").read_bytes().startswith(b"\x89PNG")
