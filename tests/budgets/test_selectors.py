"""Selectors pick what the API server would pick, and costs are counted exactly."""

from __future__ import annotations

from decimal import ROUND_FLOOR

import pytest

from controller.api.budget import LabelSelector
from controller.budgets.book import COST_UNITS, cost_units, selector_text
from controller.selector import parse_selector

LABELS = {"team": "shop", "example.com/tier": "front", "empty": ""}


@pytest.mark.parametrize(
    ("selector", "picked"),
    [
        ({}, True),
        ({"matchLabels": {"team": "shop"}}, True),
        ({"matchLabels": {"team": "shop", "example.com/tier": "back"}}, False),
        ({"matchLabels": {"empty": ""}}, True),
        ({"matchLabels": {"absent": ""}}, False),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["web", "shop"]}]}, True),
        ({"matchExpressions": [{"key": "empty", "operator": "In", "values": ["", "x"]}]}, True),
        ({"matchExpressions": [{"key": "absent", "operator": "In", "values": ["", "x"]}]}, False),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["shop"]}]}, False),
        ({"matchExpressions": [{"key": "absent", "operator": "NotIn", "values": ["shop"]}]}, True),
        ({"matchExpressions": [{"key": "example.com/tier", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, False),
        (
            {
                "matchLabels": {"team": "shop"},
                "matchExpressions": [
                    {"key": "example.com/tier", "operator": "In", "values": ["front"]},
                    {"key": "old", "operator": "DoesNotExist"},
                ],
            },
            True,
        ),
    ],
)
def test_a_selector_picks_by_labels(selector: dict[str, object], picked: bool) -> None:
    text = selector_text(LabelSelector.model_validate(selector))
    assert parse_selector(text)(LABELS) is picked


def test_costs_are_whole_units_limits_rounded_down_and_prices_up() -> None:
    assert cost_units("1.0") == COST_UNITS
    assert cost_units("500m") == COST_UNITS // 2
    assert 10 * cost_units("0.1") == cost_units("1", ROUND_FLOOR)
    tiny = "0.00000000015"
    assert (cost_units(tiny), cost_units(tiny, ROUND_FLOOR)) == (1, 0)
