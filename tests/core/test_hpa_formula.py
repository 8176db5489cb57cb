"""The HPA's formula, case by case, with the numbers of its own documentation."""

from __future__ import annotations

import numpy as np
import pytest

from controller.core.hpa import hpa_replicas

CASES = [
    pytest.param(2, 2, 200 / 100, 0, 4, id="docs: 200m against 100m doubles"),
    pytest.param(4, 4, 50 / 100, 0, 2, id="docs: 50m against 100m halves"),
    pytest.param(10, 10, 1.05, 0, 10, id="inside the tolerance nothing moves"),
    pytest.param(10, 10, 1.1, 0, 10, id="the edge of the tolerance is inside"),
    pytest.param(10, 10, 1.11, 0, 12, id="just outside it rounds up"),
    pytest.param(10, 10, 0.9, 0, 10, id="the lower edge is inside"),
    pytest.param(10, 10, 0.89, 0, 9, id="below it rounds up too"),
    pytest.param(3, 3, 0.0, 0, 0, id="no usage recommends nothing"),
    pytest.param(4, 2, 1.6, 0, 4, id="unready pods count as idle on the way up and hold it"),
    pytest.param(4, 2, 3.0, 0, 6, id="enough usage goes up in spite of unready pods"),
    pytest.param(4, 2, 0.5, 0, 1, id="unready pods are left out on the way down"),
    pytest.param(4, 4, 1.5, 2, 4, id="silent pods count as idle on the way up"),
    pytest.param(4, 4, 0.5, 2, 3, id="silent pods count as on target on the way down"),
    pytest.param(4, 4, 0.85, 2, 4, id="they can bring the ratio into the tolerance"),
]


@pytest.mark.parametrize(("current", "ready", "ratio", "missing", "expected"), CASES)
def test_formula(current: int, ready: int, ratio: float, missing: int, expected: int) -> None:
    tolerance = np.array([0.1])
    result = hpa_replicas(
        np.array([current]), np.array([ready]), np.array([ratio]), tolerance, tolerance, np.array([missing])
    )
    assert result.tolist() == [expected]


@pytest.mark.parametrize(
    ("ready", "ratio"),
    [pytest.param(0, 1.5, id="no ready pod"), pytest.param(3, np.nan, id="no metric")],
)
def test_formula_says_nothing_without_a_measurement(ready: int, ratio: float) -> None:
    tolerance = np.array([0.1])
    result = hpa_replicas(np.array([3]), np.array([ready]), np.array([ratio]), tolerance, tolerance)
    assert np.isnan(result).all()


def test_tolerance_differs_by_direction() -> None:
    one = np.array([10])
    up = hpa_replicas(one, one, np.array([1.15]), np.array([0.0]), np.array([0.2]))
    down = hpa_replicas(one, one, np.array([0.97]), np.array([0.02]), np.array([0.2]))
    assert (up[0], down[0]) == (10, 10)
    assert hpa_replicas(one, one, np.array([0.97]), np.array([0.0]), np.array([0.2]))[0] == 10
    assert hpa_replicas(one, one, np.array([0.85]), np.array([0.02]), np.array([0.2]))[0] == 9
