"""Schemathesis against the real process: what /openapi.json says holds, and nothing brings it down."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.service.conftest import Process

EXAMPLES, SEED = "50", "7"
# what a schema cannot say: maxServers is no less than minServers, addAbove is more than removeBelow
RELATED = """
[[operations]]
include-name = "POST /scale"
checks.positive_data_acceptance.expected-statuses = ["2xx", "409", "422"]
"""


def test_no_request_breaks_the_service_or_its_description(
    serve: Callable[..., Process], tmp_path: Path
) -> None:
    (tmp_path / "schemathesis.toml").write_text(RELATED)
    process = serve("--servers", "3", "--strategy", "best-fit").wait()
    # events never end; everything else is asked
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{process.url}/openapi.json",
            "--checks", "all", "--max-examples", EXAMPLES, "--seed", SEED, "--no-color",
            "--phases", "coverage,fuzzing", "--exclude-path", "/v1/demo/events",
            "--generation-deterministic", "--no-shrink",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "Operations:       15 selected / 16 total" in done.stdout
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated is not None
    assert int(generated[1]) > 300, done.stdout
    assert httpx.get(f"{process.url}/readyz").status_code == 200
    assert "Traceback" not in process.log.read_text()
