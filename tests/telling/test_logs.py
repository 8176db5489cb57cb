"""Log lines as machines read them."""

from __future__ import annotations

import json
import logging

from controller.logs import JsonFormatter, about
from tests.telling.records import BY_RATE, record


def line(**extra: object) -> dict[str, object]:
    made = logging.getLogger("test").makeRecord(
        "test", logging.INFO, __file__, 1, "%s: done", ("shop/web",), None, extra=dict(extra)
    )
    return dict(json.loads(JsonFormatter().format(made)))


def test_a_line_about_an_rlscaler_carries_its_namespace_name_and_uid() -> None:
    found = line(**about(record("web")))
    assert (found["namespace"], found["name"], found["uid"]) == ("shop", "web", "uid-web")
    assert found["message"] == "shop/web: done"
    assert "rlscaler" not in found


def test_a_line_about_a_decision_carries_the_whole_record() -> None:
    made = record(clamps=(BY_RATE,))
    found = line(**about(made), decision=made.as_json(features=True))
    assert found["decision"] == json.loads(json.dumps(made.as_json(features=True)))
    assert found["name"] == "web"


def test_other_lines_carry_what_they_are_given_and_nothing_else() -> None:
    assert line(port=8080).keys() == {"time", "level", "logger", "message", "port"}
