"""Adding and removing servers by readings that are sent: the operator's own engine and guard behind `/scale`.

A service is a row of the engine, by its name. Everything is in memory: after a restart a service begins
anew with its first reading. `service.scale_routes` calls this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controller.core import Decision, Engine, HpaPolicy, Policy, Samples, ServiceSpec
from controller.policies import ArtifactError, builtin_names, load_policy
from service.errors import Conflict, NotFound, ServiceError
from sim.threshold import Threshold, ThresholdPolicy

MOST_SERVICES = 1000
LEARNED, RULE, HPA = "learned", "rule", "hpa"
"""Who may decide."""
SHIPPED = Path(__file__).with_name("discrete.onnx")
"""PPO with discrete actions, `python training/train.py --preset discrete --seed 0` (docs/discrete.md)."""


@dataclass(frozen=True)
class Reading:
    """A reading of a service. NaN: missing, never zero. servers: ready or not; ratios are shares of 1."""

    service: str
    servers: int
    time_s: float
    request_rate: float = math.nan
    ready: float = math.nan
    latency_ms: float = math.nan
    utilisation: float = math.nan
    error_ratio: float = math.nan
    in_flight: float = math.nan


@dataclass
class Scaled:
    """A service that readings have come of. Times are seconds of its own clock."""

    row: int
    spec: ServiceSpec
    policy: Policy
    time_s: float = -math.inf
    servers: int = -1
    wanted: int = -1


def deciding_policy(policy: str | None) -> Policy:
    """The artifact of `--scale-policy`, a file or a built-in policy's name; by default the shipped one.

    Raises ServiceError for a file that is none.
    """
    try:
        return load_policy(
            {"builtin": policy} if policy in builtin_names() else {"file": policy or str(SHIPPED)}
        )
    except ArtifactError as error:
        raise ServiceError(f"--scale-policy: {error}") from error


class Scaling:
    """Services, their histories and who decides for them. Use it from one thread only."""

    def __init__(self, learned: Policy, most: int = MOST_SERVICES) -> None:
        self.learned, self.most = learned, most
        self._hpa = HpaPolicy()
        self._engine = Engine()
        self._services: dict[str, Scaled] = {}

    def __iter__(self) -> Iterator[tuple[str, Scaled]]:
        return iter(sorted(self._services.items()))

    def spec_of(self, service: str) -> ServiceSpec | None:
        """The settings of a service by now; None for one that is not known."""
        known = self._services.get(service)
        return known.spec if known else None

    def decide(
        self, reading: Reading, spec: ServiceSpec, who: str, rule: Threshold | None = None
    ) -> Decision:
        """Take in a reading and say how many servers there should be, by the policy `who`.

        Where utilisation or latency is missing, the learned policy may not go below the HPA's formula.
        A change counts, for the guard's rate limits, once a reading shows it, as made at the answer before.
        Raises Conflict for a time before the last reading's, or where there is no place for another service.
        """
        known = self._services.get(reading.service)
        if known is not None and reading.time_s < known.time_s:
            raise Conflict(
                f"timeSeconds: {reading.time_s:.12g} is before the last reading of {reading.service!r}, "
                f"{known.time_s:.12g}; DELETE /scale/{reading.service} begins anew"
            )
        policy = self._policy(who, rule, known)
        if known is None:
            known = self._added(reading, spec, policy)
        elif spec != known.spec or policy is not known.policy:
            self._engine.update(known.row, spec, policy)
            known.spec, known.policy = spec, policy
        self._note_change(known, reading)
        decision = self._step(known, reading)
        known.time_s, known.servers, known.wanted = reading.time_s, reading.servers, decision.desired_replicas
        return decision

    def forget(self, service: str) -> Scaled:
        """Let a service go, with its history. Raises NotFound."""
        known = self._services.pop(service, None)
        if known is None:
            raise NotFound(f"no reading of {service!r} has come")
        self._engine.remove(known.row)
        return known

    def _added(self, reading: Reading, spec: ServiceSpec, policy: Policy) -> Scaled:
        if len(self._services) >= self.most:
            raise Conflict(
                f"service: {reading.service!r} is not taken in, {self.most} services are; "
                "let one go with DELETE /scale/NAME"
            )
        known = self._services[reading.service] = Scaled(self._engine.add(spec, policy), spec, policy)
        # as after a restart of the operator: what is there is not taken away at the first sight of it
        self._engine.restore(known.row, reading.time_s, None, reading.servers)
        return known

    def _policy(self, who: str, rule: Threshold | None, known: Scaled | None) -> Policy:
        if who != RULE:
            return self._hpa if who == HPA else self.learned
        asked, last = rule or Threshold(), known.policy if known else None
        if isinstance(last, ThresholdPolicy) and last.rule == asked:
            return last
        return ThresholdPolicy(asked)

    def _step(self, known: Scaled, reading: Reading) -> Decision:
        engine = self._engine
        view = engine.observe(reading.time_s, _samples(reading), np.array([known.row]))
        recommended, unfamiliar = engine.ask(view)
        if known.policy is self.learned and (
            math.isnan(reading.utilisation) or math.isnan(reading.latency_ms)
        ):
            # networks have always had both in training, and take what is missing for calm
            unfamiliar[:] = True
        return engine.conclude(view, recommended, unfamiliar, record=False)[0]

    def _note_change(self, known: Scaled, reading: Reading) -> None:
        if known.servers >= 0 and reading.servers != known.servers:
            self._engine.record_scale(known.row, known.time_s, known.servers, reading.servers)


def _samples(reading: Reading) -> Samples:
    return Samples(
        request_rate=[reading.request_rate],
        latency_ms=[reading.latency_ms],
        error_ratio=[reading.error_ratio],
        utilisation=[reading.utilisation],
        ready=[reading.ready],
        current=[float(reading.servers)],
        in_flight=[reading.in_flight],
    )
