"""Two turns with one fingerprint leave one status; what only wavers is told from what was done."""

from __future__ import annotations

import dataclasses
import random

import pytest

from controller.budgets.share import Share
from controller.core import Clamp
from controller.status import Facts, build, difference, fingerprint, is_minor
from controller.trouble import Trouble
from tests.operator.test_status import NOW, decision, facts

TROUBLES = (
    None,
    Trouble("NoData", "requestRate: the query gave no series"),
    Trouble("Stale", "the newest sample is 50 s old, the limit 45 s"),
    Trouble("Stale", "the newest sample is 61.5 s old, the limit 45 s"),
    Trouble("FailedGetScale", "no answer", unknown=True),
)
CLAMPS = (
    (),
    (Clamp("bounds", "TooManyReplicas", 30, 20, "30 -> 20: maxReplicas"),),
    (Clamp("stabilization", "ScaleDownStabilized", 3, 4, "3 -> 4: window"),),
)


def random_facts(rng: random.Random) -> Facts:
    """A turn out of a small world, so that equal ones come often."""
    decided = None
    if rng.random() < 0.9:
        current = rng.choice((0, 4))
        decided = decision(
            current_replicas=current,
            recommended_replicas=rng.choice((None, 4, 5)),
            desired_replicas=rng.choice((4, 5)),
            outcome=rng.choice(("NoChange", "Held")),
            clamps=rng.choice(CLAMPS),
            message=rng.choice(("stays at 4: x", "Held at 0 replicas", "stays at 5: x")),
            fallback=rng.choice((None, None, "MetricsUnavailable")),
            hpa_replicas=rng.choice((4, 5)),
            load=rng.random(),
        )
    return facts(
        generation=rng.choice((3, 4)),
        mode=rng.choice(("Active", "Active", "Shadow", "Paused")),
        decision=decided,
        observed={"requestRate": rng.random()},
        current_replicas=rng.choice((4, 4, 5, None)),
        desired_replicas=decided.desired_replicas if decided else None,
        metrics_trouble=rng.choice(TROUBLES),
        policy_trouble=rng.choice((None, None, TROUBLES[1])),
        target_trouble=rng.choice((None, None, TROUBLES[4])),
        metrics_note=rng.choice(("", "latency: Stale: 50 s old", "latency: Stale: 51 s old")),
        budget=rng.choice((None, Share("shop"), *(Share("shop", 5, f"5 of {n} replicas") for n in (8, 9)))),
    )


@pytest.mark.parametrize("seed", range(4))
def test_an_equal_fingerprint_means_nothing_to_write(seed: int) -> None:
    rng = random.Random(seed)
    equal = 0
    for _ in range(3000):
        first = random_facts(rng)
        other = vars(random_facts(rng))
        share = 1.0 if rng.random() < 0.2 else 0.1
        changes = {name: value for name, value in other.items() if rng.random() < share}
        second = dataclasses.replace(first, **(changes | {"observed": {"requestRate": rng.random()}}))
        if fingerprint(first) != fingerprint(second):
            continue
        equal += 1
        earlier = build(random_facts(rng), {}, NOW)
        written = build(first, earlier, NOW + 60)
        assert difference(written, build(second, written, NOW + 120)) is None
    assert equal > 300


@pytest.mark.parametrize(
    ("changes", "minor"),
    [
        pytest.param({"recommended_replicas": 5, "outcome": "Held"}, True, id="another recommendation"),
        pytest.param({"clamps": CLAMPS[2], "outcome": "Held"}, True, id="another clamp"),
        pytest.param({"desired_replicas": 5, "outcome": "ScaledUp"}, False, id="another wish"),
        pytest.param({"fallback": "MetricsUnavailable"}, False, id="a fallback"),
    ],
)
def test_what_was_only_thought_is_minor(changes: dict[str, object], minor: bool) -> None:
    written = build(facts(), {}, NOW)
    decided = decision(**changes)
    built = build(facts(decision=decided, desired_replicas=decided.desired_replicas), written, NOW + 15)
    assert difference(written, built) is not None
    assert is_minor(written, built) is minor


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"current_replicas": 5}, id="replicas"),
        pytest.param({"scaled": True}, id="a scale"),
        pytest.param({"generation": 4}, id="a new spec"),
        pytest.param({"metrics_trouble": TROUBLES[1]}, id="a trouble"),
        pytest.param({"paused_by_annotation": True}, id="a pause"),
    ],
)
def test_whatever_happened_is_not_minor(changes: dict[str, object]) -> None:
    written = build(facts(), {}, NOW)
    assert not is_minor(written, build(facts(**changes), written, NOW + 15))


def test_the_first_status_is_not_minor() -> None:
    assert not is_minor({}, build(facts(), {}, NOW))
