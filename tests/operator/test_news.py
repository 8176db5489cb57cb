"""Which changes of status become Events."""

from __future__ import annotations

from typing import Any

import pytest

from controller.news import news
from controller.status import Status


def status(**conditions: tuple[str, str]) -> Status:
    return {
        "conditions": [
            {"type": kind, "status": state, "reason": reason, "message": f"{kind} is {state}"}
            for kind, (state, reason) in conditions.items()
        ]
    }


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param({}, {"MetricsAvailable": ("True", "MetricsRead")}, [], id="well from the start"),
        pytest.param(
            {},
            {"MetricsAvailable": ("False", "NoData")},
            [("Warning", "MetricsUnavailable")],
            id="metrics missing from the start",
        ),
        pytest.param(
            {"MetricsAvailable": ("False", "NoData")},
            {"MetricsAvailable": ("False", "PrometheusSlow")},
            [],
            id="still missing, for another reason",
        ),
        pytest.param(
            {"MetricsAvailable": ("False", "NoData")},
            {"MetricsAvailable": ("True", "MetricsRead")},
            [("Normal", "MetricsRecovered")],
            id="metrics back",
        ),
        pytest.param(
            {"Fallback": ("False", "PolicyInCharge")},
            {"Fallback": ("True", "InvalidAction")},
            [("Warning", "FallbackStarted")],
            id="fallback entered",
        ),
        pytest.param(
            {"Fallback": ("True", "InvalidAction")},
            {"Fallback": ("False", "PolicyInCharge")},
            [("Normal", "FallbackEnded")],
            id="fallback left",
        ),
        pytest.param(
            {"PolicyReady": ("True", "PolicyLoaded")},
            {"PolicyReady": ("False", "ArtifactInvalid")},
            [("Warning", "PolicyUnavailable")],
            id="policy lost",
        ),
        pytest.param(
            {"AbleToScale": ("True", "ReadyForNewScale")},
            {"AbleToScale": ("False", "ConflictingAutoscaler")},
            [("Warning", "ConflictingAutoscaler")],
            id="conflict",
        ),
        pytest.param(
            {"AbleToScale": ("False", "ConflictingAutoscaler")},
            {"AbleToScale": ("False", "TargetNotFound")},
            [("Warning", "TargetNotFound")],
            id="one trouble after another",
        ),
        pytest.param(
            {"AbleToScale": ("True", "ReadyForNewScale")},
            {"AbleToScale": ("False", "ScaleConflict")},
            [("Warning", "FailedRescale")],
            id="a write that failed",
        ),
        pytest.param(
            {"Ready": ("True", "Scaling")},
            {"Ready": ("False", "InvalidSpec")},
            [("Warning", "InvalidSpec")],
            id="invalid",
        ),
        pytest.param({}, {"Paused": ("True", "PausedByMode")}, [("Normal", "Paused")], id="paused"),
        pytest.param({}, {"Paused": ("False", "NotPaused")}, [], id="never paused"),
        pytest.param(
            {"Paused": ("True", "PausedByMode")},
            {"Paused": ("False", "NotPaused")},
            [("Normal", "Resumed")],
            id="resumed",
        ),
        pytest.param(
            {"RoutesSynced": ("True", "WeightsApplied")},
            {"RoutesSynced": ("False", "RouteNotFound")},
            [("Warning", "FailedRouteUpdate")],
            id="route lost",
        ),
    ],
)
def test_changes_become_events(
    before: dict[str, Any], after: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    found = news(status(**before), status(**after), None, None, None)
    assert [(item.kind, item.reason) for item in found] == expected
    assert news(status(**after), status(**after), None, None, None) == []


def test_each_change_by_somebody_else_is_told_once() -> None:
    able = {"AbleToScale": ("True", "OutsideChange")}
    quiet = status(AbleToScale=("True", "ReadyForNewScale"))
    first = {**status(**able), "outsideChange": {"replicas": 9, "until": "2027-01-15T08:00:00Z"}}
    second = {**first, "outsideChange": {"replicas": 7, "until": "2027-01-15T08:01:00Z"}}
    for before, after in ((quiet, first), (first, second)):
        (item,) = news(before, after, None, None, None)
        assert (item.kind, item.reason) == ("Warning", "OutsideChange")
    assert news(first, first, None, None, None) == []
    assert news(second, quiet, None, None, None) == []
