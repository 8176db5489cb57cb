"""Label selectors mean what they mean to the API server."""

from __future__ import annotations

import itertools

import pytest

from controller.selector import parse_selector
from sim.twin.selectors import parse_label_selector

LABELS = [
    dict(zip(("shard", "team"), values, strict=True))
    for values in itertools.product(("a", "b", ""), ("web", "shop"))
] + [{}, {"team": "web"}, {"example.com/shard": "a"}]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "shard=a",
        "shard==a",
        "shard!=a",
        "shard",
        "!shard",
        "shard=",
        "team in (web, shop)",
        "team in (web,shop),shard!=b",
        "team notin (web)",
        "shard=a,team=web",
        "example.com/shard=a",
    ],
)
def test_a_selector_picks_what_the_api_server_picks(text: str) -> None:
    ours, theirs = parse_selector(text), parse_label_selector(text)
    for labels in LABELS:
        assert ours(labels) == theirs({"metadata": {"labels": labels}}), labels


@pytest.mark.parametrize("text", ["shard=a b", "team in web", "=a", "shard>3", "team in (a", ",", "a=b,,c"])
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="unreadable"):
        parse_selector(text)
