from __future__ import annotations

import json

from benchmarks.__main__ import main, table
from benchmarks.cases import YARDSTICK, Case, environment
from benchmarks.measuring import measure


def test_cases_take_turns_and_are_compared_with_the_yardstick():
    turns: list[str] = []
    cases = [
        Case(YARDSTICK, "steps/s", lambda: float(sum(range(1000)) > 0)),
        Case("slower", "steps/s", lambda: float(sum(range(20_000)) > 0), bar=1e12),
        Case("with a low bar", "steps/s", lambda: float(sum(range(1000)) > 0), bar=1e-3),
    ]
    rows = measure(cases, rounds=3, slice_s=0.01, tick=turns.append)
    assert turns[3:] == [YARDSTICK, "slower", "with a low bar"] * 3
    assert rows[0].ratio == 1.0
    assert rows[1].ratio < 0.5
    assert [row.verdict for row in rows] == ["", "no", "yes"]
    lines = table(rows).splitlines()
    assert len(lines) == len(rows) + 2
    assert "| 1.0000 |" in lines[2]
    assert "| 1,000,000,000,000 | no |" in lines[3]


def test_the_command_writes_its_figures_as_json_too(tmp_path, capsys):
    main(["--rounds", "1", "--slice", "0.01", "--only", "cartpole", "--json", str(tmp_path / "bench.json")])
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["yardstick"] == YARDSTICK
    assert [row["what"] for row in found["rows"]] == [YARDSTICK, "CartPole Env"]
    assert all(row["rate"] > 0 for row in found["rows"])
    assert YARDSTICK in capsys.readouterr().out


def test_an_environment_is_measured_with_its_resets():
    run = environment(2)
    assert sum(run() for _ in range(300)) == 600
