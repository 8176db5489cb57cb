"""The replays of an evaluation in parts: same results for any number of processes and after interruptions."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from sim.replay import Protocol, Window
from tests.training.conftest import ROOT, environment
from training import playing
from training.contestants import Sweep, contestant, generated_windows
from training.frontier import FIGURES, Outcomes
from training.playing import Part, Setup, play_all, split

NAMES = ("HPA", "clairvoyant")
SEEDS = (3, 4)
PROTOCOL = Protocol(window_s=1200.0)
SWEEP = Sweep(penalties=(100, 1000))


@pytest.fixture(scope="module")
def windows() -> list[Window]:
    """Three windows of 20 minutes."""
    return generated_windows(3, 5, PROTOCOL)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of two or three cases, so that there are several of each contestant."""
    monkeypatch.setattr(playing, "ROWS_AT_ONCE", 100)


def run(
    windows: list[Window],
    jobs: int = 1,
    cache: Path | None = None,
    advance: Callable[[str, int], None] = lambda label, cases: None,
) -> list[Outcomes]:
    return play_all(NAMES, windows, SEEDS, Setup(PROTOCOL, SWEEP, "core", jobs, cache), advance)


def assert_same(first: list[Outcomes], second: list[Outcomes]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.settings == other.settings
        for figure in FIGURES:
            assert np.array_equal(getattr(one, figure), getattr(other, figure), equal_nan=True), figure


def test_two_artifacts_of_one_label_are_two_contestants(windows: list[Window], tmp_path: Path) -> None:
    paths = []
    for folder, name in (("a", "default"), ("b", "ppo")):
        path = tmp_path / folder / "20260101-000000-ppo-0" / "policy.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes((resources.files("controller.policies") / "builtin" / f"{name}.onnx").read_bytes())
        paths.append(str(path))
    setup = Setup(PROTOCOL, Sweep(preferences=(50,)), "core", 1, None)
    together = play_all(paths, windows[:1], SEEDS, setup, lambda label, cases: None)
    apart = [play_all([path], windows[:1], SEEDS, setup, lambda label, cases: None)[0] for path in paths]
    assert_same(together, apart)
    assert not np.array_equal(together[0].cost, together[1].cost)


def test_results_do_not_depend_on_the_number_of_processes(windows: list[Window], tmp_path: Path) -> None:
    alone = run(windows)
    both = run(windows, jobs=2, cache=tmp_path)
    assert [one.shape for one in alone] == [(len(one.settings), 3, 2) for one in alone]
    assert_same(alone, both)
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_every_case_belongs_to_its_window_and_seed(windows: list[Window], small_parts: None) -> None:
    bound = contestant("clairvoyant", SWEEP, PROTOCOL)
    whole = run(windows)[1]
    for w, window in enumerate(windows):
        for k, seed in enumerate(SEEDS):
            alone = bound.replay([window], PROTOCOL, seed, "core")
            assert np.array_equal(alone.cost[:, 0], whole.cost[:, w, k])
            assert np.array_equal(alone.violation[:, 0], whole.violation[:, w, k])
    assert not np.array_equal(whole.violation[:, :, 0], whole.violation[:, :, 1])


def test_after_an_interruption_only_what_is_missing_is_played(
    windows: list[Window], tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_at_the_second(label: str, cases: int) -> None:
        done.append(label)
        if len(done) == 2:
            raise KeyboardInterrupt

    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run(windows, cache=tmp_path, advance=stop_at_the_second)
    assert len(list(tmp_path.glob("*.npz"))) == 2

    played: list[Part] = []
    original = playing.play
    monkeypatch.setattr(playing, "play", lambda part, setup: played.append(part) or original(part, setup))
    advanced: list[int] = []
    resumed = run(windows, cache=tmp_path, advance=lambda label, cases: advanced.append(cases))
    total = len(list(tmp_path.glob("*.npz")))
    assert len(played) == total - 2
    assert sum(advanced) == len(NAMES) * len(windows) * len(SEEDS)
    assert_same(resumed, run(windows))


def test_a_damaged_part_is_played_again(windows: list[Window], tmp_path: Path) -> None:
    first = run(windows, cache=tmp_path)
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(path.read_bytes()[:200])
    assert_same(first, run(windows, cache=tmp_path))
    assert not list(tmp_path.glob("*.tmp"))


def test_a_parts_key_changes_with_all_that_decides_its_result(
    windows: list[Window], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(PROTOCOL, SWEEP, "core")
    one = Part("HPA", "", (windows[0],), (3,), (0,))
    others = [
        (Part("KEDA", "", (windows[0],), (3,), (0,)), setup),
        (Part("HPA", "sha256:1", (windows[0],), (3,), (0,)), setup),
        (Part("HPA", "", (windows[1],), (3,), (0,)), setup),
        (Part("HPA", "", (Window(windows[0].trace),), (3,), (0,)), setup),
        (Part("HPA", "", (windows[0],), (4,), (0,)), setup),
        (one, Setup(Protocol(window_s=1200.0, max_replicas=90), SWEEP, "core")),
        (one, Setup(PROTOCOL, Sweep(penalties=(100,)), "core")),
        (one, Setup(PROTOCOL, SWEEP, "fused")),
    ]
    keys = [part.key(each) for part, each in others]
    assert one.key(setup) not in keys
    assert len(set(keys)) == len(keys)
    # what only says where results go, and how they are made, changes nothing
    assert Part("HPA", "", (windows[0],), (3,), (7,)).key(Setup(PROTOCOL, SWEEP, "core", 5)) == one.key(setup)
    before = one.key(setup)
    monkeypatch.setattr(playing, "code_digest", lambda: "another version")
    assert one.key(setup) != before


def test_parts_are_small_and_cover_every_case_once(windows: list[Window]) -> None:
    one = contestant("HPA", SWEEP, PROTOCOL)
    parts = split("HPA", one, windows * 10, range(4))
    assert sorted(case for part in parts for case in part.cases) == list(range(120))
    rows = [len(part.cases) * len(one.settings) for part in parts]
    assert max(rows) <= playing.ROWS_AT_ONCE
    assert max(rows) < 2 * min(rows)


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(tmp_path: Path) -> None:
    script, cache = ROOT / "training" / "evaluate.py", tmp_path / "cache"
    command = [
        sys.executable, str(script), "--windows", "120", "--hours", "0.25",
        "--policy", "HPA", "KEDA", "Knative", "MovingMaximum", "ErlangC",
        "--cache", str(cache), "--engine", "core", "--json", str(tmp_path / "report.json"), "--no-progress",
    ]  # fmt: skip
    first = subprocess.Popen(
        command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    until = time.monotonic() + 90
    while not list(cache.glob("*.npz")) and time.monotonic() < until and first.poll() is None:
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=90)
    assert first.returncode == 130, said
    assert "the same command continues" in said
    assert "Traceback" not in said
    kept = {path.name for path in cache.glob("*.npz")}
    assert kept
    assert not (tmp_path / "report.json").exists()
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert kept < {path.name for path in cache.glob("*.npz")}
    assert (tmp_path / "report.json").exists()
