"""Request-level balancers and weights at a 15 s scale under grey failures: the tables in docs/balancers.md.

python -m benchmarks.balancers [--seeds 5] [--proxies 8] [--load 0.45]

Every rule gets the same number of requests in each second (common random numbers), at 30 replicas in three
pools. A balancer sees all replicas; weights choose a pool, and power of two choices a
replica in it.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from controller.core.ejection import Ejector, Unejected, with_ejections
from controller.core.pools import guard_weights
from controller.core.weighing import WEIGHINGS, PoolReadings, Smoother
from sim.physics import ServiceParams
from sim.requests import RequestSimulator
from sim.requests.draws import percentile_ms

FloatArray = npt.NDArray[np.float64]
POOLS = np.array([12, 9, 9])
CAPACITY_RPS, BASE_MS, SLO_MS = 25.0, 40.0, 250.0
SYNC_S, STEP_S = 15, 5
FAILS_FROM_S, FAILS_TO_S = 120, 420
BALANCERS = ("random", "round-robin", "least-request", "power-of-two", "prequal-like")
WEIGHTS = ("Ready", "Ready+ejection", "LatencyGradient+ejection", "ExpectedDelay", "ExpectedDelay+ejection")
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26, 20: 2.09}
"""Student's t for 95 %, by the number of seeds."""


@dataclass(frozen=True)
class Failure:
    """What happens to replicas of the last pool from FAILS_FROM_S to FAILS_TO_S. replicas: how many of them.
    on_s: so many seconds in each minute; 60 is always."""

    name: str
    replicas: int = 9
    slower: float = 1.0
    errors: float = 0.0
    errors_at_once: bool = False
    on_s: int = 60

    def active(self, clock_s: int) -> bool:
        """Whether it is so in this second."""
        return FAILS_FROM_S <= clock_s < FAILS_TO_S and clock_s % 60 < self.on_s


FAILURES = (
    Failure("nothing", replicas=0),
    Failure("the pool is 5 times slower", slower=5.0),
    Failure("one replica of the pool is 5 times slower", replicas=1, slower=5.0),
    Failure("the pool is 5 times slower for 10 s in each minute", slower=5.0, on_s=10),
    Failure("the pool fails 30 %, after the work", errors=0.3),
    Failure("the pool fails 30 %, at once", errors=0.3, errors_at_once=True),
)


@dataclass(frozen=True)
class Outcome:
    """While the failure lasts: p50 and p99 (ms) of what was answered, share late or failed, share of the
    requests that the pool got."""

    p50_ms: float
    p99_ms: float
    late: float
    share: float


def params(capacity_rps: float) -> ServiceParams:
    """Replicas of a worker for each 25 requests/s, exponential service."""
    return ServiceParams(
        capacity_rps=capacity_rps,
        base_latency_ms=BASE_MS,
        capacity_spread=0.0,
        service_cv2=1.0,
        slo_latency_ms=SLO_MS,
    )


def play(rule: str, failure: Failure, seed: int, args: argparse.Namespace) -> Outcome:
    """One run."""
    proxies, rate_rps = args.proxies, args.load * args.capacity * float(POOLS.sum())
    if rule in BALANCERS:
        simulator = RequestSimulator(params(args.capacity), 1, seed, int(POOLS.sum()), rule, proxies)
        pick, steer = (0, slice(int(POOLS.sum()) - failure.replicas, None)), _nothing
    else:
        simulator = RequestSimulator(params(args.capacity), 3, seed, POOLS, "power-of-two", proxies)
        pick, steer = (2, slice(int(POOLS[2]) - failure.replicas, None)), Weights(rule, args.capacity)
        simulator.set_weights(POOLS[None, :].astype(float))
    was, before, started = False, np.zeros(0), np.zeros(0)
    for clock_s in range(0, FAILS_TO_S, STEP_S):
        if clock_s == FAILS_FROM_S:
            before, started = simulator.histogram.sum(axis=0), _counts(simulator)
        now = failure.replicas > 0 and failure.active(clock_s)
        if now != was:
            _disturb(simulator, pick, failure if now else None)
            was = now
        if clock_s and clock_s % SYNC_S == 0:
            steer(simulator)
        simulator.advance(seconds=STEP_S, rate_rps=rate_rps)
    answered = simulator.histogram.sum(axis=0) - before
    arrived, late, to_pool = _counts(simulator) - started
    p50_ms, p99_ms = percentile_ms(answered, (50, 99), simulator.edges_s)
    share = to_pool / arrived if rule not in BALANCERS else np.nan
    return Outcome(float(p50_ms), float(p99_ms), float(late / arrived), float(share))


def _disturb(simulator: RequestSimulator, pick: tuple[int, slice], failure: Failure | None) -> None:
    row, replicas = pick
    if failure is None:
        simulator.disturb(row)
    else:
        simulator.disturb(
            row,
            replicas,
            slower=failure.slower,
            errors=failure.errors,
            errors_at_once=failure.errors_at_once,
        )


def _counts(simulator: RequestSimulator) -> FloatArray:
    arrived = simulator.total("arrived")
    return np.array([arrived.sum(), simulator.total("violating").sum(), arrived[-1]])


def _nothing(simulator: RequestSimulator) -> None:
    """Balancers need no help."""


class Weights:
    """The operator's weights: formula, ejection and guard, on metrics as Prometheus shows them."""

    def __init__(self, rule: str, capacity_rps: float) -> None:
        self._capacity_rps = capacity_rps
        self._weighing = WEIGHINGS[rule.removesuffix("+ejection")]
        self._ejector = Ejector(1, len(POOLS)) if rule.endswith("+ejection") else None
        self._unejected = Unejected.new(1, len(POOLS))
        self._smoother = Smoother(1, len(POOLS))
        self._weights = np.array([[40, 30, 30]])

    def __call__(self, simulator: RequestSimulator) -> None:
        """One turn."""
        readings = self._readings(simulator)
        elapsed_s, now_s = np.array([float(SYNC_S)]), simulator.clock_s[:1]
        self._smoother.forget_latency(self._unejected.held)
        self._smoother.update(readings, elapsed_s)
        whole = replace(readings, weights=self._unejected.weights(self._weights))
        shares = self._weighing(whole, self._smoother)
        if self._ejector is not None:
            factors = self._ejector.update(now_s, elapsed_s, readings, np.array([SLO_MS]))
            self._unejected = self._unejected.after(self._weights, factors)
            shares = with_ejections(shares, factors)
        low, high = np.zeros_like(self._weights), np.full_like(self._weights, 100)
        self._weights = guard_weights(shares, self._weights, readings.ready, low, high)
        simulator.set_weights(self._weights.astype(float))

    def _readings(self, simulator: RequestSimulator) -> PoolReadings:
        shown = simulator.metrics()
        signals = ("request_rate", "latency_ms", "error_ratio", "utilisation", "in_flight")
        pools = len(POOLS)
        return PoolReadings(
            ready=shown.ready[None, :],
            capacity_rps=np.full((1, pools), self._capacity_rps),
            price=np.ones((1, pools)),
            max_replicas=POOLS[None, :],
            weights=self._weights,
            load_rps=np.array([float(np.nansum(shown.request_rate))]),
            **{name: getattr(shown, name)[None, :] for name in signals},
        )


def table(outcomes: dict[str, list[Outcome]]) -> list[str]:
    """The lines of one failure's table."""
    lines = ["| rule | p50 ms | p99 ms | late or failed % | to the pool % |", "|---|---|---|---|---|"]
    for rule, found in outcomes.items():
        cells = [
            rule.replace("+", " + "),
            _interval([each.p50_ms for each in found], 0),
            _interval([each.p99_ms for each in found], 0),
            _interval([100 * each.late for each in found], 2),
            _interval([100 * each.share for each in found], 1),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _interval(values: list[float], digits: int) -> str:
    """Mean and half the width of its 95 % confidence interval."""
    if np.isnan(values).any():
        return "-"
    half = T_95.get(len(values), 1.96) * float(np.std(values, ddof=1)) / np.sqrt(len(values))
    return f"{np.mean(values):,.{digits}f} ± {half:,.{digits}f}"


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--proxies", type=int, default=8)
    parser.add_argument(
        "--load", type=float, default=0.45, help="of the capacity of all replicas that are well"
    )
    parser.add_argument(
        "--capacity", type=float, default=CAPACITY_RPS, help="requests/s of a replica: 25 for each worker"
    )
    args = parser.parse_args()
    rules = (*BALANCERS, *WEIGHTS)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("runs", total=len(FAILURES) * len(rules) * args.seeds)
        for failure in FAILURES:
            outcomes: dict[str, list[Outcome]] = {}
            for rule in rules:
                for seed in range(args.seeds):
                    outcomes.setdefault(rule, []).append(play(rule, failure, seed, args))
                    progress.advance(task)
            print(f"\n{failure.name}:\n")
            print("\n".join(table(outcomes)), flush=True)


if __name__ == "__main__":
    main()
