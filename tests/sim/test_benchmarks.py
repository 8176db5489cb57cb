from __future__ import annotations

from benchmarks.__main__ import YARDSTICK, environments, table, yardsticks


def test_the_benchmark_measures_and_compares_with_its_yardstick():
    rows = [*yardsticks(0.05), *environments(0.05)]
    assert all(row.steps_per_s > 0 for row in rows)
    lines = table(rows).splitlines()
    assert len(lines) == len(rows) + 2
    assert f"| {YARDSTICK} |" in lines[3]
    assert "| 1.0000 |" in lines[3]
