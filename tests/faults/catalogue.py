"""Every kind of fault of the random sequence: how it begins, and what ends it.

A kind is begun for one service (`ONE`, `ARTIFACT`), for all that read one Prometheus (`MANY`) or for all
(`API`, `OPERATOR`). `begin` returns the function that ends it, which leaves everything as it was before.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults import artifacts
from tests.faults.killpoints import POINTS
from tests.faults.promproxy import BLINDING, SPOILS, TROUBLES, PrometheusProxy
from tests.faults.rig import PERIOD_S, Rig, Span, control
from tests.integration.harness import APPS, RLSCALERS, ApiError, Json, eventually

LEVELS = (5.0, 12.0, 25.0, 40.0, 60.0)
HPAS = "/apis/autoscaling/v2"
GRACE_REAL_S = control(10 * PERIOD_S)
KILL_PATIENCE_REAL_S = 3.0

End = Callable[[], None]


@dataclass
class Stage:
    """What faults act upon."""

    rig: Rig
    specs: dict[str, Json]
    """By name of a service, the arguments of `Rig.rlscaler`."""
    proxies: dict[str, PrometheusProxy]
    """By name of a service, the Prometheus that it reads."""
    killed: list[str] = field(default_factory=list)

    def readers(self, proxy: PrometheusProxy) -> list[str]:
        return [name for name, other in self.proxies.items() if other is proxy]


@dataclass(frozen=True)
class Kind:
    """One kind of fault. lasts: real seconds, from and to."""

    name: str
    begin: Callable[[Stage, str, random.Random], End]
    lasts: tuple[float, float] = (0.3, 1.8)


# Prometheus


def _tempted(stage: Stage, names: list[str], begin: End, end: End, rng: random.Random) -> End:
    """Blind services, and take their load away just then."""
    begin()
    spans = [stage.rig.begin_blind(name) for name in names]
    for name in names:
        stage.rig.rate(name, LEVELS[0])
    levels = [rng.choice(LEVELS) for _ in names]

    def over() -> None:
        for span in spans:
            span.end()
        end()
        for name, level in zip(names, levels, strict=True):
            stage.rig.rate(name, level)

    return over


def _spoil(how: str) -> Kind:
    def begin(stage: Stage, name: str, rng: random.Random) -> End:
        proxy = stage.proxies[name]
        if how not in BLINDING:
            proxy.spoil(name, how)
            return lambda: proxy.spoil(name)
        return _tempted(stage, [name], lambda: proxy.spoil(name, how), lambda: proxy.spoil(name), rng)

    return Kind(f"series: {how}", begin, (0.5, 4.0))


def _vanish(stage: Stage, name: str, rng: random.Random) -> End:
    rig = stage.rig

    def hide(hidden: bool) -> End:
        return lambda: rig.traffic.hide(rig.ns.name, name, hidden)

    return _tempted(stage, [name], hide(True), hide(False), rng)


def _reset(stage: Stage, name: str, rng: random.Random) -> End:
    stage.rig.traffic.reset(stage.rig.ns.name, name)
    return _nothing


def _trouble(how: str) -> Kind:
    def begin(stage: Stage, name: str, rng: random.Random) -> End:
        proxy = stage.proxies[name]
        return _tempted(stage, stage.readers(proxy), lambda: proxy.trouble(how), proxy.trouble, rng)

    return Kind(f"Prometheus: {how}", begin, (0.8, 4.0))


def _nothing() -> None:
    pass


# API server, for one service


def _refuse(what: str, path: str, **fields: object) -> Kind:
    """Trouble with the requests about one service."""

    def begin(stage: Stage, name: str, rng: random.Random) -> End:
        span = stage.rig.begin_excuse(name)
        fault = stage.rig.api.inject(path=path.format(name), **fields)
        stage.rig.rate(name, rng.choice(LEVELS))

        def over() -> None:
            stage.rig.api.heal(fault)
            span.end(GRACE_REAL_S)

        return over

    return Kind(f"API: {what}", begin)


TARGET, SCALE, STATUS = "/deployments/{}($|/)", "/deployments/{}/scale$", "/rlscalers/{}/status$"


# Objects


def _in_mid_tick(stage: Stage, name: str, rng: random.Random, change: End) -> End:
    """Do it while the operator is about to write replicas or a status; at the end at the latest."""
    changing, changed = threading.Lock(), threading.Event()

    def act() -> None:
        with changing:  # the end waits for a change that is under way
            if not changed.is_set():
                changed.set()
                change()

    fault = stage.rig.api.inject(path=f"/{name}/(scale|status)$", method="PATCH", times=1, before=act)
    stage.rig.rate(name, rng.choice(LEVELS))

    def over() -> None:
        stage.rig.api.heal(fault)
        act()

    return over


def _edit(stage: Stage, name: str, rng: random.Random) -> End:
    low, high = rng.choice(((1, 20), (3, 9), (2, 14), (5, 7)))

    def change() -> None:
        stage.specs[name] |= {"minReplicas": low, "maxReplicas": high}
        stage.rig.ns.patch_spec(name, minReplicas=low, maxReplicas=high)

    return _in_mid_tick(stage, name, rng, change)


def _remove(stage: Stage, name: str, rng: random.Random) -> End:
    """The RLScaler is deleted, and made anew a little later."""
    rig = stage.rig
    over = _in_mid_tick(
        stage, name, rng, lambda: rig.ns.api.delete(rig.ns.path(RLSCALERS, "rlscalers", name))
    )

    def end() -> None:
        over()
        rig.rlscaler(name, stage.proxies[name], **stage.specs[name])

    return end


def _remake(stage: Stage, name: str, rng: random.Random) -> End:
    """The target is deleted, and made anew with other replicas."""
    rig, span = stage.rig, stage.rig.begin_excuse(name)
    path = rig.ns.path(APPS, "deployments", name)
    over = _in_mid_tick(stage, name, rng, lambda: rig.ns.api.delete(path))

    def end() -> None:
        over()
        eventually(lambda: _absent(rig, path), timeout_s=30.0)
        rig.ns.deployment(name, replicas=rng.choice((1, 4, 8)))
        span.end(GRACE_REAL_S)

    return end


def _absent(rig: Rig, path: str) -> bool:
    try:
        rig.ns.api.get(path)
    except ApiError as error:
        return error.status == 404
    return False


def _pause(stage: Stage, name: str, rng: random.Random) -> End:
    key, ns = "rlscaler.dev/paused", stage.rig.ns
    over = _in_mid_tick(stage, name, rng, lambda: ns.annotate(name, key, "true"))

    def end() -> None:
        over()
        ns.annotate(name, key, None)

    return end


def _rival(stage: Stage, name: str, rng: random.Random) -> End:
    """kubectl scale by somebody else."""
    replicas = rng.choice((1, 3, 6, 12))
    return _in_mid_tick(stage, name, rng, lambda: stage.rig.ns.set_replicas(name, replicas))


def _scribble(stage: Stage, name: str, rng: random.Random) -> End:
    """Another writer of the status."""
    nonsense = rng.choice(
        ({"desiredReplicas": 99}, {"stabilization": None}, {"conditions": []}, {"currentReplicas": 0})
    )
    return _in_mid_tick(stage, name, rng, lambda: stage.rig.overwrite_status(name, nonsense))


def _hpa(stage: Stage, name: str, rng: random.Random) -> End:
    rig = stage.rig
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    body = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {"scaleTargetRef": ref, "minReplicas": 1, "maxReplicas": 10},
    }
    path = rig.ns.path(HPAS, "horizontalpodautoscalers")
    rig.ns.api.create(path, body)

    def over() -> None:
        rig.ns.api.delete(f"{path}/{name}")

    return over


def _artifact(what: str, data: bytes) -> Kind:
    """The service's artifact becomes something else, and is read anew."""

    def begin(stage: Stage, name: str, rng: random.Random) -> End:
        def become(content: bytes) -> None:
            artifacts.put(stage.rig.ns, name, content)
            # an edit, so that it is read now
            stage.rig.ns.patch_spec(name, fallback={"failureThreshold": rng.randint(2, 60)})

        become(data)
        return lambda: become(artifacts.SOUND)

    return Kind(f"artifact: {what}", begin)


# For all


def _watches(what: str) -> Kind:
    def begin(stage: Stage, name: str, rng: random.Random) -> End:
        api = stage.rig.api
        if what == "expired":
            api.expire_watches()
            return _nothing
        if what == "broken":
            api.break_watches()
            return _nothing
        gone = api.inject(query="watch=true", code=410, times=2)
        api.break_watches()
        return lambda: api.heal(gone)

    return Kind(f"watches: {what}", begin, (0.1, 0.4))


def _outage(stage: Stage, name: str, rng: random.Random) -> End:
    span = stage.rig.begin_excuse()
    stage.rig.api.down()

    def over() -> None:
        stage.rig.api.up()
        span.end(2 * GRACE_REAL_S)

    return over


def _storm(stage: Stage, name: str, rng: random.Random) -> End:
    """Every request is refused: the control plane is overloaded."""
    span = stage.rig.begin_excuse()
    fault = stage.rig.api.inject(code=429, retry_after_s=1)

    def over() -> None:
        stage.rig.api.heal(fault)
        span.end(2 * GRACE_REAL_S)

    return over


def _killed(point: str) -> Kind:
    """kill -9 at a point of a tick, or soon wherever it is."""

    def begin(stage: Stage, name: str, rng: random.Random) -> End:
        rig, operator = stage.rig, stage.rig.operator
        span = rig.begin_excuse()
        operator.arm(point or None)
        if not point or not operator.wait_ended(KILL_PATIENCE_REAL_S):
            operator.arm(None)
            if not operator.wait_ended(0.01):
                operator.kill()
        stage.killed.append(operator.shared.take_killed() or "anywhere")
        return lambda: _start(rig, span)

    return Kind(f"kill -9 {point or 'anywhere'}", begin, (0.0, 0.3))


def _start(rig: Rig, span: Span) -> None:
    rig.start()
    span.end(GRACE_REAL_S)


def _stopped(stage: Stage, name: str, rng: random.Random) -> End:
    span = stage.rig.begin_excuse()
    stage.rig.operator.stop()
    return lambda: _start(stage.rig, span)


ONE: tuple[Kind, ...] = (
    *(_spoil(how) for how in SPOILS),
    Kind("series: vanished", _vanish, (0.5, 4.0)),
    Kind("series: counter reset", _reset),
    _refuse("409 on a scale", SCALE, method="PATCH", code=409),
    _refuse("409 on a status", STATUS, code=409),
    _refuse("429 with Retry-After", TARGET, code=429, retry_after_s=1),
    _refuse("500", TARGET, code=500),
    _refuse("500 on a status", STATUS, code=500),
    _refuse("503", TARGET, code=503),
    _refuse("connection closed", TARGET, close=True),
    _refuse("answer to a scale lost", SCALE, method="PATCH", lose=True, times=1),
    _refuse("answer to a status lost", STATUS, lose=True, times=1),
    _refuse("slow", TARGET, delay_s=0.4),
    Kind("RLScaler: edited in mid-tick", _edit),
    Kind("RLScaler: deleted in mid-tick", _remove),
    Kind("RLScaler: paused in mid-tick", _pause),
    Kind("target: deleted and made anew", _remake),
    Kind("rival: kubectl scale", _rival),
    Kind("rival: writes the status", _scribble),
    Kind("rival: HPA", _hpa),
)
"""For one service, of any policy."""

ARTIFACT: tuple[Kind, ...] = (
    *(_artifact(what, data) for what, (data, _) in artifacts.BROKEN.items()),
    _artifact("swapped", artifacts.OTHER),
)
"""For one service whose policy is an artifact."""

MANY: tuple[Kind, ...] = tuple(_trouble(how) for how in TROUBLES)
"""For all that read one Prometheus."""

API: tuple[Kind, ...] = (
    _watches("expired"),
    _watches("broken"),
    _watches("410 at the start"),
    Kind("API: outage", _outage, (0.5, 1.5)),
    Kind("API: 429 for everything", _storm, (0.5, 1.5)),
)
"""For everybody: the API server."""

OPERATOR: tuple[Kind, ...] = (
    Kind("operator: SIGTERM", _stopped, (0.0, 0.3)),
    _killed(""),
    *(_killed(point) for point in POINTS),
)
"""For everybody: the operator itself."""
