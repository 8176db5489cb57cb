"""What deciding for pools costs the operator: sets of pools behind routes, decided in one batch.

The operator's own parts (`controller.pooldeciding`, the engine, the artifact in ONNX Runtime) with readings
that are there already: no Kubernetes, no Prometheus. `tests/operator/test_pool_deciding.py` decides in the
same world.

    python -m benchmarks.pooldeciding [--sets 1000] [--pools 4] [--rounds 9] [--artifact FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402

from controller.actuation.target import Target  # noqa: E402
from controller.case import Case, wanted  # noqa: E402
from controller.clock import Clock  # noqa: E402
from controller.core import Engine, Outcome, Policy, Samples  # noqa: E402
from controller.kube import RLSCALERS  # noqa: E402
from controller.metrics import SignalReading  # noqa: E402
from controller.policies import artifact_bytes, policy_from_bytes  # noqa: E402
from controller.policybook import Chosen  # noqa: E402
from controller.pooldeciding import PoolDecider  # noqa: E402
from controller.poolweights import PoolWeigher  # noqa: E402
from controller.registry import Registry  # noqa: E402
from controller.work import Work  # noqa: E402

PERIOD_S = 15.0
MISSING = SignalReading(float("nan"), Outcome.EMPTY, "nothing")
Json = dict[str, Any]


class PoolWorld:
    """Sets of pools, and an operator's decisions for them by one policy, `PERIOD_S` apart.

    backends: what RLScalers say of their pools, a list for each set. spec: more of their spec. Readings
    (`read`), replicas (`replicas`) and the whole load (`load_rps`) may be changed between turns.
    """

    def __init__(self, policy: Policy, backends: Sequence[Sequence[Json]], **spec: Any) -> None:
        self.engine, self.registry, self.clock = Engine(), Registry(), Clock()
        self.now_s = 0.0
        self.clock.now = lambda: self.now_s  # type: ignore[method-assign]
        self.weigher = PoolWeigher(1.0, self.clock.now)
        self.decider = PoolDecider(self.engine, self.weigher, self.clock)
        self._works: list[Work] = []
        self.entries = [self._entry(number, pools, spec, policy) for number, pools in enumerate(backends)]
        self.replicas = [[4] * len(pools) for pools in backends]
        self.load_rps = [20.0 * len(pools) for pools in backends]
        self.read: list[list[dict[str, float]]] = [
            [{"requestRate": 20.0, "latency": 50.0, "errorRatio": 0.0, "inFlight": 1.0} for _ in pools]
            for pools in backends
        ]

    def _entry(self, number: int, pools: Sequence[Json], spec: Mapping[str, Any], policy: Policy) -> Any:
        name = f"set-{number}"
        refs = [
            {"scaleTargetRef": {"kind": "Deployment", "name": f"{name}-{pool['name']}"}, **pool}
            for pool in pools
        ]
        body = {
            "metadata": {
                "name": name, "namespace": "shop", "uid": name, "generation": 1, "resourceVersion": "1",
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "backends": refs,
                "routes": [{"kind": "HTTPRoute", "name": name}],
                "objective": {"slo": {"latency": {"milliseconds": 100}}, "capacityPerReplica": "10"},
                **spec,
            },
        }  # fmt: skip
        entry = self.registry.apply(body).entry
        assert entry.trouble is None, entry.trouble
        assert entry.service is not None
        row = self.engine.add(entry.service, policy)
        self._works.append(Work(1, row, Chosen(policy), None, None, 0.0, restored=True))
        return entry

    def cases(self) -> list[Case]:
        """A turn's cases, observed."""
        return [self._case(number) for number in range(len(self.entries))]

    def _case(self, number: int) -> Case:
        entry = self.entries[number]
        case = Case(entry, 1, work=self._works[number])
        case.targets = tuple(
            Target(ref, RLSCALERS, count, count, "1")
            for ref, count in zip(entry.targets, self.replicas[number], strict=True)
        )
        case.pool_readings = [
            {
                name: SignalReading(one[name], Outcome.OK) if name in one else MISSING
                for name in ("requestRate", "latency", "errorRatio", "inFlight", "cpuUtilization")
            }
            for one in self.read[number]
        ]
        return case

    def observed(self, cases: Sequence[Case]) -> Any:
        """The engine's view of these cases, `PERIOD_S` after the last."""
        self.now_s += PERIOD_S
        counts = np.array([case.current for case in cases], dtype=np.float64)
        fine = {"latency_ms": np.full(len(cases), 50.0), "error_ratio": np.zeros(len(cases))}
        samples = Samples(request_rate=self.load_rps, ready=counts, current=counts, **fine)
        return self.engine.observe(self.now_s, samples, np.array([work.row for work in self._works]))

    def decide(self, cases: Sequence[Case], view: Any) -> None:
        """As `controller.turn` does, from the view to decisions."""
        recommended, unfamiliar = self.engine.ask(view)
        steadied = self.decider.ask(cases, view, recommended, unfamiliar)
        decisions = self.engine.conclude(view, recommended, unfamiliar, record=False, steadied=steadied)
        for index, case in enumerate(cases):
            case.decision = decisions[index]
        self.decider.settle(cases)

    def turn(self, act: bool = True) -> list[Case]:
        """Observe, decide and, if `act`, scale; the cases of the turn."""
        cases = self.cases()
        self.decide(cases, self.observed(cases))
        for number, case in enumerate(cases):
            assert case.decision is not None
            before, after = self.replicas[number], wanted(case, case.decision)
            if act and before != after:
                row = self._works[number].row
                self.engine.record_scale(row, self.now_s, sum(before), sum(after))
                self.decider.scaled(case, before, after)
                self.replicas[number] = after
        return cases


def main(argv: list[str] | None = None) -> int:
    """Measure and print, a JSON line at last."""
    parser = argparse.ArgumentParser(prog="benchmarks.pooldeciding", description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=1000, help="sets in a batch (default 1000)")
    parser.add_argument("--pools", type=int, default=4, help="pools of a set, 1..8 (default 4)")
    parser.add_argument("--rounds", type=int, default=9, help="batches that are timed (default 9)")
    parser.add_argument("--artifact", type=Path, help="an artifact for pools; default: the built-in one")
    args = parser.parse_args(argv)
    if not 1 <= args.pools <= 8 or args.sets < 1 or args.rounds < 1:
        parser.error("--pools must be in 1..8, --sets and --rounds 1 or more")
    reference = {"file": str(args.artifact)} if args.artifact else {"builtin": "pools"}
    policy = policy_from_bytes(artifact_bytes(reference))
    rng = np.random.default_rng(0)
    backends = [
        [
            {"name": f"p{pool}", "maxReplicas": 20, "costPerReplica": f"{rng.uniform(0.3, 1.0):.2f}"}
            for pool in range(args.pools)
        ]
        for _ in range(args.sets)
    ]
    world = PoolWorld(policy, backends)
    times: dict[str, list[float]] = {"observe": [], "decide": []}
    for _ in range(args.rounds + 1):
        cases = world.cases()
        started = time.process_time()
        view = world.observed(cases)
        assert view.features.shape[0] == args.sets
        seen = time.process_time()
        world.decide(cases, view)
        times["observe"].append(1000.0 * (seen - started))
        times["decide"].append(1000.0 * (time.process_time() - seen))
    print(
        f"{args.sets} sets of {args.pools} pools, {policy.name}; {platform.processor() or platform.machine()}"
    )
    rows = {}
    for what, spent in times.items():
        low, middle, high = np.percentile(spent[1:], [25, 50, 75])
        rows[what] = {
            "ms": round(float(middle), 1),
            "quartiles": [round(float(low), 1), round(float(high), 1)],
        }
        print(f"{what}: {middle:.1f} ms of CPU a batch (quartiles {low:.1f} to {high:.1f})")
    print(json.dumps({"sets": args.sets, "pools": args.pools, "rounds": args.rounds, **rows}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
