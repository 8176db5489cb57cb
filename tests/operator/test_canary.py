"""A canary's life: scored, promoted, taken back, and none of it forgotten by a restart."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from controller.canaries import Canaries
from controller.canary import LEAST_PREFIX, Canary, digests, renewed
from controller.case import Case, facts_of
from controller.clock import Clock
from controller.core import Engine, Outcome, Samples, UnavailablePolicy
from controller.core.samples import FloatArray
from controller.core.view import View
from controller.metrics import SignalReading
from controller.news import news
from controller.policybook import Chosen
from controller.registry import Entry, Registry
from controller.status import Status, build, fingerprint
from controller.trouble import Trouble
from controller.work import Work
from tests.operator.bodies import rlscaler

BASE, CANARY = "sha256:" + "b" * 64, "sha256:" + "c" * 64
PERIOD_S = 15.0


class Fixed:
    """Wants so many replicas, or says nothing."""

    type, schema = "RL", "autoscale/v1"

    def __init__(self, replicas: float, digest: str, name: str) -> None:
        self.replicas, self.digest, self.name = replicas, digest, name

    def recommend(self, view: View) -> FloatArray:
        return np.full(len(view), self.replicas)


class ManualClock(Clock):
    def __init__(self) -> None:
        super().__init__(1.0)
        self.at_s = 1_800_000_000.0

    def now(self) -> float:
        return self.at_s


def behaves(**canary: Any) -> dict[str, Any]:
    """A spec with a canary whose gate is soon met, on a service that starts replicas within a turn."""
    gate = {"minDurationSeconds": 150, **canary.pop("gate", {})}
    rollback = {"windowSeconds": 150, **canary.pop("rollback", {})}
    spec = {"artifact": {"configMap": {"name": "next"}}, "gate": gate, "rollback": rollback, **canary}
    return {
        "policy": {"type": "RL", "canary": spec},
        "objective": {
            "slo": {"latency": {"milliseconds": 100}},
            "capacityPerReplica": "10",
            "startUpSeconds": 15,
        },
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    }


@dataclass
class World:
    """One RLScaler with a canary, taken through its turns as the control loop would."""

    base: Chosen = field(default_factory=lambda: Chosen(Fixed(6, BASE, "now")))
    candidate: Chosen = field(default_factory=lambda: Chosen(Fixed(5, CANARY, "next")))
    spec: dict[str, Any] = field(default_factory=behaves)
    promote: str = ""
    status: Status = field(default_factory=dict)
    clock: ManualClock = field(default_factory=ManualClock)
    load: float = 40.0
    latency_ms: float = 20.0
    events: list[tuple[str, str, str]] = field(default_factory=list)
    writes: int = 0
    generation: int = 1

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """A new operator process: all that it knows is the status."""
        self.engine = Engine()
        self.canaries = Canaries(self.engine, self.clock)
        self.registry = Registry()
        self.entry = self.apply()
        self.row = self.engine.add(self.entry.service, self.base.policy)  # type: ignore[arg-type]
        self.prepare()

    def apply(self) -> Entry:
        body = rlscaler("web", generation=self.generation, version=str(self.generation), **self.spec)
        if self.promote:
            body["metadata"]["annotations"] = {"rlscaler.dev/promote": self.promote}
        body["status"] = copy.deepcopy(self.status)
        return self.registry.apply(body).entry

    def annotate(self, value: str) -> None:
        self.promote = value
        self.apply()

    def edit(self, **spec: Any) -> None:
        self.generation += 1
        self.spec = {**self.spec, **spec}
        self.apply()
        self.prepare()

    def prepare(self) -> None:
        old = self.entry.work.canary if self.entry.work is not None else None
        canary = renewed(self.entry, self.base, self.candidate, old, self.clock)
        chosen = self.base if canary is None else canary.in_charge
        assert self.entry.service is not None
        self.engine.update(self.row, self.entry.service, chosen.policy)
        self.entry.work = Work(
            self.generation, self.row, chosen, None, None, 0.0, base=self.base, canary=canary
        )

    @property
    def work(self) -> Work:
        assert self.entry.work is not None
        return self.entry.work

    @property
    def canary(self) -> Canary:
        assert self.work.canary is not None
        return self.work.canary

    @property
    def told(self) -> Status:
        return dict(self.status["policy"].get("canary") or {})

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.turn()

    def turn(self) -> None:
        self.clock.at_s += PERIOD_S
        case = Case(self.entry, self.generation, work=self.work)
        case.readings = {
            "requestRate": SignalReading(self.load, Outcome.OK),
            "latency": SignalReading(self.latency_ms, Outcome.OK),
        }
        samples = Samples(request_rate=[self.load], latency_ms=[self.latency_ms], ready=[6], current=[6])
        self.canaries.before([case])
        view = self.engine.observe(self.clock.at_s, samples, np.array([self.row]))
        decisions = self.engine.conclude(view, *self.engine.ask(view), record=False)
        case.decision = decisions[0]
        self.canaries.after([case], view)
        self.write(case)

    def write(self, case: Case) -> None:
        facts = facts_of(case)
        mark = fingerprint(facts)
        if mark == self.entry.published:
            return
        self.entry.published = mark
        fresh = build(facts, self.status, self.clock.at_s)
        if fresh != self.status:
            self.writes += 1
            self.events += [(n.kind, n.reason, n.message) for n in news(self.status, fresh, None, None, None)]
            self.status = fresh

    def heard(self) -> list[str]:
        """Reasons of the Events since last asked."""
        found, self.events = [reason for _, reason, _ in self.events], []
        return found

    @property
    def decides(self) -> str:
        return str(self.status["policy"]["name"])


def test_a_canary_is_scored_and_the_active_policy_decides() -> None:
    world = World()
    world.turns(13)
    assert world.decides == "now"
    assert world.told["phase"] == "Shadow"
    assert world.canary.scores.decisions == 13
    assert world.canary.scores.cost_ratio == pytest.approx(5 / 6)
    assert world.canary.scores.shortfall == 0.0
    assert world.heard() == ["CanaryStarted"]
    assert world.told["against"] == BASE


def test_by_hand_it_takes_an_annotation_even_if_the_gate_is_met() -> None:
    world = World()
    world.turns(30)
    assert world.canary.unmet() == []
    assert world.told["phase"] == "Shadow"
    world.annotate("true")
    world.turn()
    assert (world.told["phase"], world.decides) == ("Promoted", "next")
    assert world.heard() == ["CanaryStarted", "CanaryPromoted"]
    world.turns(20)
    assert world.heard() == []


@pytest.mark.parametrize(
    ("value", "promoted"),
    [
        ("true", True),
        ("c" * LEAST_PREFIX, True),
        (CANARY, True),
        (CANARY.upper().replace("SHA256", "sha256"), True),
        ("c" * (LEAST_PREFIX - 1), False),
        ("b" * 12, False),
        ("false", False),
        ("yes", False),
    ],
)
def test_the_annotation_is_true_or_the_digests_beginning(value: str, promoted: bool) -> None:
    world = World()
    world.turn()
    world.annotate(value)
    world.turn()
    assert (world.told["phase"] == "Promoted") is promoted
    if not promoted:
        world.turns(10)
        assert "is neither true nor the first characters of its digest" in world.canary._message(value)


def test_true_from_before_a_canary_does_not_promote_it_and_a_digest_does() -> None:
    world = World(promote="true")
    world.turns(3)
    assert world.told["phase"] == "Shadow"
    assert world.told["staleAnnotation"] == "true"
    assert "is from before this canary" in world.told["message"]
    world.start()
    world.turns(3)
    assert world.told["phase"] == "Shadow", "a restart does not make it new"
    world.annotate("")
    world.turn()
    world.annotate("true")
    world.turn()
    assert world.told["phase"] == "Promoted"

    early = World(promote="c" * 12)
    early.turn()
    assert early.told["phase"] == "Promoted"


def test_automatically_it_is_promoted_once_the_gate_is_met() -> None:
    world = World(spec=behaves(promotion="Automatic"))
    world.turns(10)
    assert world.told["phase"] == "Shadow"
    assert world.canary.scores.seconds == 150.0
    world.turn()
    assert (world.told["phase"], world.decides) == ("Promoted", "next")
    assert world.told["message"] == "promoted: the gate is met"


@pytest.mark.parametrize(
    ("replicas", "gate", "unmet"),
    [
        (5, {"minDurationSeconds": 3600}, "of 3600 s scored"),
        (7, {}, "cost ratio 1.167, at most 1.0"),
        (3, {}, "shortfall 1, at most 0.01"),
        (5, {"maxFlapRatio": "0.9"}, "flap ratio 1, at most 0.9"),
        (np.nan, {}, "shortfall 1, at most 0.01"),
    ],
)
def test_a_gate_that_is_not_met_keeps_it_in_shadow_and_says_why(
    replicas: float, gate: dict[str, Any], unmet: str
) -> None:
    world = World(
        candidate=Chosen(Fixed(replicas, CANARY, "next")), spec=behaves(promotion="Automatic", gate=gate)
    )
    world.turns(25)
    assert (world.told["phase"], world.decides) == ("Shadow", "now")
    assert unmet in world.canary._message("")


def breach(world: World, turns: int = 5) -> None:
    world.latency_ms = 300.0
    world.turns(turns)


def test_a_breach_of_the_objective_takes_it_back_for_good() -> None:
    world = World()
    world.turns(2)
    world.annotate("true")
    world.turns(2)
    assert world.decides == "next"
    breach(world, turns=1)
    assert (world.told["phase"], world.decides) == ("RolledBack", "now")
    assert "10.0% of 150 s over the objective, more than 5.0% and than 0.0%" in world.told["message"]
    assert world.heard() == ["CanaryStarted", "CanaryPromoted", "CanaryRolledBack"]
    world.latency_ms = 20.0
    world.turns(40)
    world.annotate("")
    world.turn()
    world.annotate("c" * 12)
    world.turns(3)
    world.start()
    world.turns(3)
    assert (world.told["phase"], world.decides) == ("RolledBack", "now")
    assert world.heard() == []


def test_a_breach_that_was_there_before_is_not_the_canarys() -> None:
    world = World()
    breach(world, turns=20)
    world.annotate("true")
    world.turns(20)
    assert world.told["violationRatioBefore"] == "1"
    assert (world.told["phase"], world.decides) == ("Promoted", "next")


def test_without_an_objective_nothing_is_a_breach() -> None:
    spec = behaves()
    del spec["objective"]["slo"]
    world = World(spec=spec)
    world.turn()
    world.annotate("true")
    breach(world, turns=20)
    assert world.told["phase"] == "Promoted"


def test_a_canary_that_says_nothing_once_in_charge_is_taken_back() -> None:
    world = World()
    world.turns(2)
    world.annotate("true")
    world.turns(2)
    world.candidate.policy.replicas = np.nan  # type: ignore[attr-defined]
    world.turns(5)
    assert (world.told["phase"], world.decides) == ("RolledBack", "now")
    assert "gave no action in 3 decisions in a row" in world.told["message"]


def test_a_rolled_back_canary_starts_over_when_its_spec_or_its_bytes_change() -> None:
    world = World()
    world.turns(2)
    world.annotate("true")
    world.turns(2)
    breach(world)
    world.latency_ms = 20.0
    world.turns(20)
    world.edit(**behaves(gate={"maxCostRatio": "0.9"}))
    world.turns(2)
    assert (world.told["phase"], world.decides) == ("Shadow", "now")
    assert world.told["staleAnnotation"] == "true"

    world.annotate("c" * 8)
    world.turn()
    breach(world)
    world.latency_ms = 20.0
    world.candidate = Chosen(Fixed(5, "sha256:" + "d" * 64, "third"))
    world.prepare()
    world.turns(2)
    assert (world.told["phase"], world.told["name"]) == ("Shadow", "third")
    assert world.canary.scores.decisions == 2


def test_scores_are_dropped_when_the_active_policy_is_another_and_kept_when_the_gate_is() -> None:
    world = World()
    world.turns(20)
    world.edit(**behaves(gate={"maxCostRatio": "0.9"}))
    world.turn()
    assert world.canary.scores.decisions == 21
    world.base = Chosen(Fixed(6, "sha256:" + "e" * 64, "now"))
    world.prepare()
    world.turn()
    assert world.canary.scores.decisions == 1


def test_a_spec_that_names_the_canarys_policy_ends_it_quietly() -> None:
    world = World()
    world.turns(2)
    world.annotate("true")
    world.turns(2)
    world.heard()
    world.edit(policy={**world.spec["policy"], "artifact": {"configMap": {"name": "next"}}})
    assert world.work.canary is None
    world.base = world.candidate
    world.prepare()
    world.turns(2)
    assert (world.told, world.decides) == ({}, "next")
    assert world.heard() == []


def test_equal_bytes_under_another_name_end_it_too() -> None:
    world = World()
    world.base = Chosen(Fixed(5, CANARY, "next"))
    world.prepare()
    assert world.work.canary is None


def test_a_canary_that_is_taken_out_of_the_spec_ends_and_says_so() -> None:
    world = World()
    world.turn()
    world.annotate("true")
    world.turns(2)
    world.heard()
    world.edit(policy={"type": "RL"})
    world.turn()
    assert (world.told, world.decides) == ({}, "now")
    assert world.heard() == ["CanaryEnded"]


def unavailable(reason: str = "ArtifactNotFound") -> Chosen:
    return Chosen(UnavailablePolicy(reason, "not there"), Trouble(reason, "not there"))


def test_a_canary_that_cannot_be_loaded_leaves_the_active_policy_alone() -> None:
    world = World(candidate=unavailable())
    world.turns(3)
    assert (world.told["phase"], world.decides) == ("Unavailable", "now")
    assert world.told["message"] == "ArtifactNotFound: not there"
    assert world.heard() == ["CanaryUnavailable"]
    ready = next(c for c in world.status["conditions"] if c["type"] == "PolicyReady")
    assert (ready["status"], ready["reason"]) == ("True", "PolicyLoaded")
    world.candidate = Chosen(Fixed(5, CANARY, "next"))
    world.prepare()
    world.turns(2)
    assert (world.told["phase"], world.told["name"]) == ("Shadow", "next")
    assert world.heard() == ["CanaryStarted"]


def test_a_restart_in_shadow_goes_on_with_the_scores() -> None:
    world = World()
    world.turns(40)
    held = dict(world.told)
    assert held["decisions"] >= 0.8 * 40
    world.start()
    assert world.canary.scores.decisions == held["decisions"]
    world.turns(1)
    assert world.told == held, "nothing is written again for a restart"
    world.turns(20)
    assert world.canary.scores.decisions == held["decisions"] + 21
    assert world.heard() == ["CanaryStarted"]


def test_a_restart_while_promoted_waits_for_the_artifact_and_does_not_forget() -> None:
    world = World()
    world.turns(2)
    world.annotate("true")
    world.turns(2)
    good = world.candidate
    world.candidate = unavailable("ArtifactUnreachable")
    world.start()
    world.turns(3)
    assert (world.told["phase"], world.decides) == ("Promoted", "now"), "what cannot be loaded cannot decide"
    assert "promote: true -- ArtifactUnreachable: not there" in world.told["message"]
    world.start()
    world.turn()
    world.candidate = good
    world.prepare()
    world.turns(2)
    assert (world.told["phase"], world.decides) == ("Promoted", "next")
    assert "CanaryRolledBack" not in world.heard()
    world.turns(5)
    assert world.told["message"] == "promoted by rlscaler.dev/promote: true"


def test_an_annotation_of_any_length_leaves_a_status_that_can_be_written() -> None:
    world = World()
    world.turn()
    world.annotate("x" * 200_000)
    world.turns(10)
    assert len(str(world.told)) < 5_000
    assert world.told["phase"] == "Shadow"


def test_a_restart_in_mid_breach_still_counts_what_was_seen_before_it() -> None:
    world = World(spec=behaves(rollback={"violationRatio": "0.25"}))
    world.turns(2)
    world.annotate("true")
    world.turns(2)
    breach(world, turns=2)
    world.latency_ms = 20.0
    world.turns(4)
    assert float(world.told["violationRatio"]) == pytest.approx(0.2)
    world.start()
    breach(world, turns=1)
    assert (world.told["phase"], world.decides) == ("RolledBack", "now")


def test_digests_of_an_earlier_operator_are_those_of_the_same_spec() -> None:
    world = World()
    world.turns(2)
    world.annotate("true")
    world.turns(2)
    world.start()
    assert (digests(world.entry).base, digests(world.entry).canary) == (BASE, CANARY)
    world.generation += 1
    world.start()
    assert (digests(world.entry).base, digests(world.entry).canary) == ("", "")


def test_a_garbled_status_is_a_fresh_start() -> None:
    world = World()
    world.turns(3)
    world.status["policy"]["canary"] |= {"costRatio": "much", "since": "yesterday", "violationRatio": "?"}
    world.start()
    world.turns(30)
    assert world.canary.scores.decisions > 30 - 1
    world.status["policy"]["canary"]["phase"] = "Dancing"
    world.start()
    world.turn()
    assert world.told["phase"] == "Shadow"


def test_scores_are_written_rarely_and_ever_more_rarely() -> None:
    world = World()
    world.turns(100)
    first = world.writes
    world.turns(200)
    assert first <= 25
    assert world.writes - first <= 13, "each write stands for a tenth more decisions"
    world.annotate("true")
    world.turns(2)
    quiet = world.writes
    world.turns(100)
    assert world.writes == quiet, "a promoted canary that is well behaved says nothing"


def test_nothing_is_scored_while_something_else_decides_for_the_active_policy() -> None:
    world = World(base=Chosen(Fixed(np.nan, BASE, "now")))
    world.turns(10)
    assert world.canary.scores.decisions == 0


def test_one_call_asks_a_canary_for_all_who_have_it() -> None:
    worlds = [World(), World()]
    engine, canaries = worlds[0].engine, worlds[0].canaries
    policy = worlds[0].candidate.policy
    asked: list[int] = []
    recommend = policy.recommend
    policy.recommend = lambda view: asked.append(len(view)) or recommend(view)  # type: ignore[method-assign, func-returns-value]
    service = worlds[0].entry.service
    assert service is not None
    rows = [worlds[0].row, engine.add(service, worlds[1].base.policy)]
    cases = []
    for world, row in zip(worlds, rows, strict=True):
        world.candidate = worlds[0].candidate
        world.prepare() if world is worlds[0] else None
        world.work.row = row
        if world.work.canary is not None:
            world.work.canary.candidate = worlds[0].candidate
        cases.append(Case(world.entry, 1, work=world.work))
    samples = Samples(request_rate=[40.0, 40.0], ready=[6, 6], current=[6, 6])
    for _ in range(2):
        worlds[0].clock.at_s += PERIOD_S
        canaries.before(cases)
        view = engine.observe(worlds[0].clock.at_s, samples, np.array(rows))
        for index, decision in enumerate(engine.conclude(view, *engine.ask(view))):
            cases[index].decision = decision
        canaries.after(cases, view)
    assert asked == [2, 2]
    assert [world.canary.scores.decisions for world in worlds] == [2, 2]
