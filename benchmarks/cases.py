"""What the benchmark measures: each case is set up once, then run in short slices by `benchmarks.measuring`.

Bars are those that the project set itself, on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gymnasium
import numpy as np

from controller.core import Engine, HpaPolicy, Samples, ServiceSpec, View
from controller.policies.loader import load_policy
from sim.baselines import hpa
from sim.envs import AutoscaleConfig, AutoscaleEnv, AutoscaleVectorEnv, PoolsConfig, PoolsVectorEnv
from sim.fused import FusedEngine
from sim.latency import BALANCERS, CENTRAL
from sim.physics import ServiceParams, ServicePhysics
from sim.pools import PoolParams, PoolsPhysics, RouteParams
from sim.replay import Protocol, Window, replay
from sim.requests import RequestSimulator
from sim.traces import Trace

YARDSTICK = "CartPoleVectorEnv(256)"
BATCHES = (1, 64, 1024, 8192)
HORIZON = AutoscaleConfig().horizon_steps


@dataclass(frozen=True)
class Case:
    """One row of the table: `run()` does some work and returns how many units it was; `bar` units/s."""

    what: str
    unit: str
    run: Callable[[], float]
    bar: float | None = None
    note: str = ""


def cartpole() -> Iterator[Case]:
    """Gymnasium's own CartPole, vectorised (the yardstick) and alone."""
    vector = gymnasium.make_vec("CartPole-v1", num_envs=256, vectorization_mode="vector_entry_point")
    vector.reset(seed=0)
    actions = vector.action_space.sample()
    yield Case(YARDSTICK, "steps/s", _counted(lambda: vector.step(actions), 256), None, "Gymnasium's, native")
    single = gymnasium.make("CartPole-v1").unwrapped
    single.reset(seed=0)

    def one() -> None:
        if single.step(1)[2]:
            single.reset()

    yield Case("CartPole Env", "steps/s", _counted(one, 1), None, "Gymnasium's, one")


def physics() -> Iterator[Case]:
    """The service model alone: scale, seconds, metrics."""
    for services in BATCHES:
        step = _physics_step(services, 15)
        bar = 1e6 if services == 1024 else None
        yield Case(
            f"physics, N={services}",
            "steps/s",
            step,
            bar,
            "15 inner 1-s steps, metrics; replicas change by 0 to 2",
        )
    yield Case(
        "physics, N=1024, 1 s a step", "steps/s", _physics_step(1024, 1), 5e6, "the same with one inner step"
    )


def environments() -> Iterator[Case]:
    """The full environment step: action, guard, physics, metrics, observation, reward, and resets."""
    yield Case("environment, Env.step", "steps/s", environment(1), 1e5, "N=1, through Gymnasium's Env")
    for services in BATCHES[1:]:
        bar = 5e5 if services == 1024 else None
        note = f"resets included, {HORIZON} steps an episode"
        yield Case(f"environment, N={services}", "steps/s", environment(services), bar, note)


def environment(services: int) -> Callable[[], float]:
    """Steps of one service through `Env`, or of several through `VectorEnv`, in the middle of their lives."""
    if services == 1:
        env = AutoscaleEnv()
        env.reset(seed=0)

        def one() -> None:
            if env.step(4)[3]:
                env.reset()

        return _counted(one, 1)
    vector = AutoscaleVectorEnv(services, AutoscaleConfig(stagger=True))
    vector.reset(seed=0)
    actions = np.random.default_rng(0).integers(3, 6, size=services)
    for _ in range(HORIZON):
        vector.step(actions)
    return _counted(lambda: vector.step(actions), services)


def requests() -> Iterator[Case]:
    """The request-level simulator: attempts that it follows one by one, for each balancer and kind of
    service."""
    kinds = (
        ("constant, 1 worker", ServiceParams(capacity_rps=25.0, base_latency_ms=40.0)),
        ("exponential, 1 worker", ServiceParams(capacity_rps=25.0, base_latency_ms=40.0, service_cv2=1.0)),
        ("exponential, 8 workers", ServiceParams(capacity_rps=25.0, base_latency_ms=320.0, service_cv2=1.0)),
    )
    for balancer in BALANCERS[CENTRAL:]:
        for kind, params in kinds:
            simulator = RequestSimulator(params, 1, 0, 60, balancer=balancer)

            def run(simulator: RequestSimulator = simulator) -> float:
                return float(simulator.advance(seconds=60, rate_rps=1200.0).arrived.sum())

            bar = 1e7 if balancer == "central" else None
            what = f"request level, {balancer}, {kind}"
            yield Case(what, "requests/s", run, bar, "60 replicas at 80 % load")


def pools() -> Iterator[Case]:
    """Sets of three pools behind a route: the physics alone, and the environment with and without resets."""
    sets = 256
    physics = PoolsPhysics(sets, 3, ServiceParams(capacity_rps=25.0), PoolParams(), RouteParams(), 0, 20)
    counts = np.random.default_rng(0).integers(19, 22, size=(7, sets, 3))
    turn = iter(range(10**12))

    def step() -> None:
        physics.scale(None, counts[next(turn) % 7])
        physics.advance(None, 15, 1000.0)

    yield Case(
        f"pools' physics, N={sets}", "steps/s", _counted(step, sets), None, "3 pools, 15 inner 1-s steps"
    )
    note = f"3 pools a set; resets included, {HORIZON} steps an episode"
    yield Case(f"PoolsVectorEnv({sets})", "steps/s", _pools_environment(sets), None, note)


def learning() -> Iterator[Case]:
    """Stable-Baselines3's PPO on the environment: frames sampled and learned from."""
    import torch
    from stable_baselines3 import PPO

    from sim.envs.sb3 import AutoscaleVecEnv

    torch.set_num_threads(1)
    env = AutoscaleVecEnv(1024, AutoscaleConfig(stagger=True))
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=8192, n_epochs=4, device="cpu", seed=0)

    def run() -> float:
        before = model.num_timesteps
        model.learn(64 * 1024, reset_num_timesteps=before == 0)
        return float(model.num_timesteps - before)

    note = "1,024 services, n_steps 64, batch 8,192, 4 epochs, MlpPolicy, one thread"
    yield Case("SB3 PPO", "frames/s", run, 6e4, note)


def decisions() -> Iterator[Case]:
    """Decisions of the operator's engine and of its fused twin, with the HPA's formula and with features."""
    for name, engine, sizes in (("engine", Engine, (1, 100, 10_000)), ("fused engine", FusedEngine, (1000,))):
        for services in sizes:
            for what, features in (("HPA formula", False), ("features made", True)):
                run = _decide(engine, services, features)
                yield Case(f"{name}, {what}, N={services}", "decisions/s", run)


def batches() -> Iterator[Case]:
    """10,000 services decided by the built-in policy in one batch, and each part of that alone.

    The bar is 20 ms a batch. "as the operator reads them" is `Engine.step`: observation, network and guard.
    """
    services, policy = 10_000, load_policy({"builtin": "default"})
    engine = Engine([ServiceSpec(max_replicas=100, capacity_rps=25.0)] * services, policy)
    rng = np.random.default_rng(0)
    engine.backfill(86400.0 - np.arange(240.0, 0.0, -1.0) * 15.0, rng.uniform(100, 1000, (240, services)))
    turn = iter(range(1, 10**12))
    samples = Samples(
        request_rate=rng.uniform(100, 1000, services), utilisation=0.6, ready=20.0, current=20.0
    )

    def read() -> View:
        return engine.observe(86400.0 + next(turn) * 15.0, samples)

    def observe() -> None:
        _ = read().features

    view = read()
    features, bar = view.features, 1000.0 / 20.0
    said = policy.recommend(view)
    cases = (
        ("network alone (ONNX Runtime)", lambda: policy.act(features), bar),
        ("network and decoding", lambda: policy.recommend(view), None),
        ("reading and features", observe, None),
        ("guard", lambda: engine.conclude(view, said), None),
        ("as the operator reads them", lambda: engine.step(86400.0 + next(turn) * 15.0, samples), bar),
    )
    for what, run, least in cases:
        yield Case(f"batch of {services:,}, {what}", "batches/s", _counted(run, 1), least, "bar: 20 ms")


def replays() -> Iterator[Case]:
    """Whole replays: control steps of 20 HPA settings on 5 windows of an hour at once."""
    rules, rng = Protocol(), np.random.default_rng(0)
    windows = [
        Window(Trace(np.arange(240) * 15.0, 500 + 400 * rng.random(240), f"noise-{index}"))
        for index in range(5)
    ]
    settings = [hpa(rules.spec(), target) for target in np.linspace(0.3, 0.9, 20)]

    def run() -> float:
        replay(windows, settings, rules)
        return 240.0 * 100

    yield Case("replay, HPA, 100 at once", "steps/s", run)


GROUPS = {
    "cartpole": cartpole,
    "physics": physics,
    "environment": environments,
    "requests": requests,
    "pools": pools,
    "learning": learning,
    "decisions": decisions,
    "batches": batches,
    "replay": replays,
}


def _counted(step: Callable[[], object], units: int) -> Callable[[], float]:
    def run() -> float:
        step()
        return float(units)

    return run


def _pools_environment(sets: int) -> Callable[[], float]:
    vector = PoolsVectorEnv(sets, PoolsConfig(stagger=True))
    vector.reset(seed=0)
    actions = np.zeros((sets, vector.single_action_space.shape[0]), dtype=np.float32)
    return _counted(lambda: vector.step(actions), sets)


def _physics_step(services: int, seconds: int) -> Callable[[], float]:
    model = ServicePhysics(ServiceParams(), services, 0, 60)
    targets = np.random.default_rng(0).integers(59, 62, size=(7, services))
    turn = iter(range(10**12))

    def step() -> None:
        model.scale(None, targets[next(turn) % 7])
        model.advance(None, seconds, 1200.0)
        model.metrics()

    return _counted(step, services)


def _decide(make: type[Engine] | type[FusedEngine], services: int, features: bool) -> Callable[[], float]:
    engine = make([ServiceSpec(max_replicas=100, capacity_rps=25.0)] * services, HpaPolicy())
    rates = np.random.default_rng(0).uniform(100, 1000, size=(8, services))
    turn = iter(range(10**12))

    def step() -> None:
        now = next(turn)
        samples = Samples(request_rate=rates[now % 8], utilisation=0.6, ready=20.0, current=20.0)
        view = engine.observe(86400.0 + now * 15.0, samples)
        if features:
            _ = view.features
        engine.decide(view, np.zeros((len(view), 1)))

    return _counted(step, services)
