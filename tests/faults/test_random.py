"""A thousand faults and more at random, on forty services of one operator, and what must hold all the while.

Every service has a lane of its own in which fault follows fault; so has each Prometheus, the API server, and
the operator. What a lane does follows from the seed: RLSCALER_FAULT_SEED repeats a sequence (not its timing),
and RLSCALER_FAULTS sets its length.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from tests.faults import artifacts, catalogue
from tests.faults.catalogue import Kind, Stage
from tests.faults.conftest import RigFactory
from tests.faults.rig import CAREFUL, EAGER, PATIENCE_REAL_S, Rig
from tests.integration.harness import Json, eventually, http_get

FAULTS = int(os.environ.get("RLSCALER_FAULTS", "1000"))
SEED = int(os.environ.get("RLSCALER_FAULT_SEED") or random.SystemRandom().randrange(1_000_000))
SERVICES = 40
WITH_ARTIFACT = 4
REST_REAL_S = (0.1, 0.6)
CALM_REAL_S = (4.0, 8.0)
"""Between faults of the API server, which stop everything: the others are to have something to hit."""
JUDGE_EVERY_REAL_S = 8.0
AT_LAST = 30.0
AT_LAST_REPLICAS = 6
MOST = {"threads": 60, "tasks": 300, "files": 250, "memory_mb": 500}


@dataclass
class Fault:
    """One that was injected; times are Unix seconds."""

    lane: str
    kind: str
    began: float
    ended: float = 0.0

    def __str__(self) -> str:
        return f"{self.began:.3f} - {self.ended:.3f} {self.lane}: {self.kind}"


@dataclass
class Run:
    """The faults so far, over all lanes."""

    wanted: int
    faults: list[Fault] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, lane: str, kind: Kind) -> Fault | None:
        """A fault to inject, or None when there were enough."""
        with self._lock:
            if self.over.is_set() or len(self.faults) >= self.wanted:
                return None
            self.faults.append(Fault(lane, kind.name, time.time()))
            return self.faults[-1]


class Lane(threading.Thread):
    """One fault after another, each kind as often as any other, in an order that follows from the seed.

    first: kinds to begin with, once each, since so few lanes have them that some might never come.
    """

    def __init__(
        self,
        name: str,
        target: str,
        kinds: Sequence[Kind],
        stage: Stage,
        run: Run,
        first: Sequence[Kind] = (),
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._lane, self._target, self._kinds, self._stage, self._run = name, target, kinds, stage, run
        self._first = first
        self._rest = CALM_REAL_S if kinds is catalogue.API else REST_REAL_S
        self._rng = random.Random(f"{SEED}/{name}")

    def run(self) -> None:
        try:
            for kind in self._deck():
                if not self._inject(kind):
                    return
                time.sleep(self._rng.uniform(*self._rest))
        except Exception as error:
            self._run.problems.append(f"{self._lane}: {error!r}")
            self._run.over.set()

    def _deck(self) -> Iterator[Kind]:
        yield from self._rng.sample(self._first, len(self._first))
        while True:
            yield from self._rng.sample(self._kinds, len(self._kinds))

    def _inject(self, kind: Kind) -> bool:
        fault = self._run.next(self._lane, kind)
        if fault is None:
            return False
        end = kind.begin(self._stage, self._target, self._rng)
        time.sleep(self._rng.uniform(*kind.lasts))
        end()
        fault.ended = time.time()
        return True


@pytest.fixture(scope="module")
def stage(make_rig: RigFactory) -> Stage:
    """Forty services of three tempers under three Prometheus, and the operator."""
    rig = make_rig(RLSCALER_WATCH_TARGETS_FROM="1", RLSCALER_METRICS_WORKERS="4")
    proxies = [rig.prometheus, rig.another_prometheus(), rig.another_prometheus()]
    found = Stage(rig, {}, {})
    rng = random.Random(SEED)
    for number in range(SERVICES):
        name = f"s{number:02d}"
        found.specs[name] = spec_of(number, name)
        found.proxies[name] = proxies[number % len(proxies)]
        if number < WITH_ARTIFACT:
            artifacts.put(rig.ns, name, artifacts.SOUND)
        rig.service(name, rng.choice(catalogue.LEVELS), 4, found.proxies[name], **found.specs[name])
    rig.start()
    return found


def spec_of(number: int, name: str) -> Json:
    """An RLScaler's spec: behaviors, policies and holds go through all their combinations."""
    behavior = (EAGER, CAREFUL, {"scaleDown": {"stabilizationWindowSeconds": 90}})[number % 3]
    policy: Json = ({"type": "HPA"}, {"type": "HPA"}, {"type": "Forecast"}, {"type": "RL"})[number % 4]
    if number < WITH_ARTIFACT:
        policy = artifacts.policy_of(name)
    hold = {"holdSeconds": (0, 60)[number % 2]}
    return {"behavior": behavior, "policy": policy, "minReplicas": 1, "outsideChange": hold}


def lanes(stage: Stage, run: Run) -> list[Lane]:
    found = []
    for number, name in enumerate(stage.specs):
        first = catalogue.ARTIFACT if number < WITH_ARTIFACT else ()
        found.append(Lane(name, name, catalogue.ONE + first, stage, run, first))
    for number, proxy in enumerate(dict.fromkeys(stage.proxies.values())):
        found.append(Lane(f"prometheus {number}", stage.readers(proxy)[0], catalogue.MANY, stage, run))
    found.append(Lane("API server", "", catalogue.API, stage, run))
    return [*found, Lane("operator", "", catalogue.OPERATOR, stage, run)]


def explain(run: Run, rig: Rig, found: Sequence[object]) -> str:
    """What to print when a rule was broken."""
    names = {getattr(violation, "name", "") for violation in found}
    shared = {fault.lane for fault in run.faults} - set(rig.watcher.history.replicas)
    times = [getattr(violation, "at", time.time()) for violation in found]
    near = [fault for fault in run.faults if any(-4.0 < at - fault.began < 20.0 for at in times)]
    last = [fault for fault in near if fault.lane in names | shared][-80:]
    restarts = [f"{at:.3f}" for at in rig.restarts if any(-4.0 < then - at < 20.0 for then in times)]
    return "\n".join(
        [
            f"seed {SEED}: RLSCALER_FAULT_SEED={SEED} RLSCALER_FAULTS={FAULTS} repeats the sequence",
            *map(str, found[:10]),
            f"after {len(run.faults)} faults; those about then:",
            *map(str, last),
            f"the operator was started at {', '.join(restarts)}",
            *(f"  writes to {name}:\n{rig.watcher.history.shown(name)}" for name in sorted(names)[:3]),
        ]
    )


@pytest.fixture(scope="module")
def run(stage: Stage) -> Run:
    """The whole sequence, judged all the while."""
    found = Run(FAULTS)
    print(f"\nfaults: seed {SEED}, {FAULTS} faults on {SERVICES} services", flush=True)
    began = time.monotonic()
    threads = lanes(stage, found)
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(JUDGE_EVERY_REAL_S)
        broken = stage.rig.violations()
        if broken or found.problems:
            found.over.set()
            for thread in threads:
                thread.join(PATIENCE_REAL_S)
            pytest.fail(explain(found, stage.rig, [*broken, *found.problems]))
    counts = Counter(fault.kind.partition(" before")[0].partition(" after")[0] for fault in found.faults)
    print(f"{len(found.faults)} faults in {time.monotonic() - began:.0f} s")
    for kind, count in sorted(counts.items()):
        print(f"  {count:5d} {kind}")
    return found


def test_a_random_sequence_of_faults_breaks_no_rule(stage: Stage, run: Run) -> None:
    assert len(run.faults) == FAULTS
    broken = stage.rig.violations()
    assert not broken, explain(run, stage.rig, broken)


def test_the_operator_has_met_nothing_unexpected(stage: Stage, run: Run) -> None:
    assert stage.rig.operator.errors() == [], f"seed {SEED}"
    assert stage.rig.operator.metric("rlscaler_tick_errors_total") == 0


def test_every_kind_of_fault_was_among_them(run: Run) -> None:
    seen = {fault.kind for fault in run.faults}
    kinds = {kind.name for kind in (*catalogue.ONE, *catalogue.ARTIFACT, *catalogue.MANY, *catalogue.API)}
    assert FAULTS < 1000 or kinds <= seen, kinds - seen
    assert {kind.name for kind in catalogue.OPERATOR} & seen  # test_kill goes through all of them


def test_when_all_is_over_everybody_is_back_at_what_the_load_needs(stage: Stage, run: Run) -> None:
    rig = stage.rig
    for name in stage.specs:
        rig.ns.patch_spec(name, minReplicas=1, maxReplicas=20)
        rig.rate(name, AT_LAST)
    rig.decisions_go_on(*stage.specs)
    for number, name in enumerate(stage.specs):
        rig.wait_condition(name, "Ready", "True")
        if stage.specs[name]["policy"]["type"] == "HPA" and number >= WITH_ARTIFACT:
            # one more or less lies within the tolerance of 10 %
            allowed = (AT_LAST_REPLICAS, AT_LAST_REPLICAS + 1)
            rig.ns.wait_replicas(name, *allowed, timeout_s=PATIENCE_REAL_S)
    broken = rig.violations()
    assert not broken, explain(run, rig, broken)


def test_nothing_has_grown_beyond_measure(stage: Stage, run: Run) -> None:
    def within() -> bool:
        usage = stage.rig.operator.usage()
        assert all(usage[name] <= most for name, most in MOST.items()), usage
        return True

    eventually(within, timeout_s=PATIENCE_REAL_S)
    assert http_get(f"{stage.rig.operator.url}/healthz") == (200, "ok")
    print(stage.rig.operator.usage())
