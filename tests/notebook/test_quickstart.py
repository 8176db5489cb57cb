"""notebooks/quickstart.ipynb, run from top to bottom as Jupyter would, without a screen."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def source() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_of(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def test_it_is_one_cell_that_holds_no_results(source: Any) -> None:
    nbformat.validate(source)
    (cell,) = code_of(source)
    assert cell.outputs == []
    assert cell.execution_count is None
    compile(cell.source, str(NOTEBOOK), "exec")


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False


@pytest.mark.timeout(900)
def test_it_trains_plots_serves_and_shows_the_dashboard(
    source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUICKSTART_STEPS", "8192")
    monkeypatch.setenv("QUICKSTART_OUT", str(tmp_path / "runs"))
    monkeypatch.delenv("NGROK_AUTHTOKEN", raising=False)
    client = NotebookClient(
        source, timeout=800, kernel_name="python3", resources={"metadata": {"path": ROOT}}
    )
    with client.setup_kernel():
        (place,) = [number for number, cell in enumerate(source.cells) if cell.cell_type == "code"]
        cell = client.execute_cell(source.cells[place], place)
        shown = [output.get("data", {}) for output in cell.outputs]
        text = "\n".join(data.get("text/plain", "") for data in shown)
        frame = re.search(
            r'src="(http://127\.0\.0\.1:\d+)(/demo)"', "\n".join(d.get("text/html", "") for d in shown)
        )
        assert frame, text
        assert answers(frame[1] + frame[2])
        assert sum("image/png" in data for data in shown) >= 2
        assert "'server':" in text
        assert "ngrok" not in text
    assert list((tmp_path / "runs").glob("*/policy.onnx"))
    assert not answers(f"{frame[1]}/healthz"), "the service outlives its notebook"
