"""Speed of the simulator and of the decision core on one core, beside Gymnasium's CartPole in the same run.

`make bench` runs it. The machine and its load move absolute figures a lot; the ratios to the yardstick hold.

    python -m benchmarks [--seconds 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium
import numpy as np

from controller.core import Engine, HpaPolicy, Samples, ServiceSpec
from sim.baselines import hpa
from sim.envs import AutoscaleConfig, AutoscaleEnv, AutoscaleVectorEnv
from sim.physics import ServiceParams, ServicePhysics
from sim.replay import Protocol, Window, replay
from sim.traces import Trace

YARDSTICK = "CartPole VectorEnv, N=256"


@dataclass(frozen=True)
class Row:
    """One measurement: steps (or decisions) a second, all services together."""

    what: str
    steps_per_s: float
    note: str = ""


def rate_of(step: Callable[[], object], steps_each: int, seconds: float) -> float:
    """Steps a second of `step`, called for `seconds` after two calls to warm up."""
    step()
    step()
    begun, calls = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        step()
        calls += 1
    return calls * steps_each / (time.perf_counter() - begun)


def yardsticks(seconds: float) -> Iterator[Row]:
    """Gymnasium's own CartPole, alone and vectorised."""
    single = gymnasium.make("CartPole-v1").unwrapped
    single.reset(seed=0)

    def one() -> None:
        if single.step(1)[2]:
            single.reset()

    yield Row("CartPole Env", rate_of(one, 1, seconds))
    vector = gymnasium.make_vec("CartPole-v1", num_envs=256, vectorization_mode="vector_entry_point")
    vector.reset(seed=0)
    actions = vector.action_space.sample()
    yield Row(YARDSTICK, rate_of(lambda: vector.step(actions), 256, seconds))


def physics(seconds: float) -> Iterator[Row]:
    """The service model alone: scale, fifteen 1-s steps, metrics."""
    for services in (1, 256, 1024, 8192):
        model = ServicePhysics(ServiceParams(), services, 0, 60)
        targets = np.random.default_rng(0).integers(55, 66, size=(7, services))
        turn = iter(range(10**9))

        def step(
            model: ServicePhysics = model, targets: np.ndarray = targets, turn: Iterator[int] = turn
        ) -> None:
            model.scale(None, targets[next(turn) % 7])
            model.advance(None, 15, 1200.0)
            model.metrics()

        yield Row(f"physics, N={services}", rate_of(step, services, seconds), "15 inner 1-s steps each")


def environments(seconds: float) -> Iterator[Row]:
    """The full environment step: observation, action, guard, physics, reward, resets."""
    env = AutoscaleEnv()
    env.reset(seed=0)

    def one() -> None:
        if env.step(4)[3]:
            env.reset()

    yield Row("AutoscaleEnv", rate_of(one, 1, seconds), "features, guard and resets included")
    for services in (256, 1024):
        vector = AutoscaleVectorEnv(services, AutoscaleConfig(stagger=True))
        vector.reset(seed=0)
        actions = np.random.default_rng(0).integers(3, 6, size=services)

        def step(vector: AutoscaleVectorEnv = vector, actions: np.ndarray = actions) -> None:
            vector.step(actions)

        yield Row(f"AutoscaleVectorEnv, N={services}", rate_of(step, services, seconds))


def decisions(seconds: float) -> Iterator[Row]:
    """`Engine.step` as the operator calls it, with the HPA's formula and with features for a network."""
    for services in (1, 100, 1000, 10_000):
        for name, features in (("HPA formula", False), ("features made", True)):
            engine = Engine([ServiceSpec(max_replicas=100, capacity_rps=25.0)] * services, HpaPolicy())
            rng = np.random.default_rng(0)
            rates = rng.uniform(100, 1000, size=(8, services))
            turn = iter(range(10**9))

            def step(
                engine: Engine = engine, rates: np.ndarray = rates, turn: Iterator[int] = turn,
                features: bool = features,
            ) -> None:  # fmt: skip
                now = next(turn)
                samples = Samples(request_rate=rates[now % 8], utilisation=0.6, ready=20.0, current=20.0)
                view = engine.observe(86400.0 + now * 15.0, samples)
                if features:
                    _ = view.features
                engine.decide(view, np.zeros((len(view), 1)))

            note = "decisions/s"
            yield Row(f"engine, {name}, N={services}", rate_of(step, services, seconds), note)


def replays(seconds: float) -> Iterator[Row]:
    """Whole replays: simulated control steps a second with the HPA, 20 settings on 5 windows at once."""
    rules = Protocol()
    rng = np.random.default_rng(0)
    windows = [
        Window(Trace(np.arange(240) * 15.0, 500 + 400 * rng.random(240), f"noise-{index}"))
        for index in range(5)
    ]
    settings = [hpa(rules.spec(), target) for target in np.linspace(0.3, 0.9, 20)]
    rate = rate_of(lambda: replay(windows, settings, rules), 240 * 100, seconds)
    yield Row("replay, HPA, 100 at once", rate)


def table(rows: list[Row]) -> str:
    """Markdown, with each rate over the yardstick's."""
    unit = next(row.steps_per_s for row in rows if row.what == YARDSTICK)
    lines = ["| what | steps/s | of CartPole vector | note |", "|---|---:|---:|---|"]
    lines += [
        f"| {row.what} | {row.steps_per_s:,.0f} | {row.steps_per_s / unit:.4f} | {row.note} |" for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each measurement (default 2)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    groups = (yardsticks, physics, environments, decisions, replays)
    rows = [row for group in groups for row in group(args.seconds)]
    print(f"One core, Python {platform.python_version()}, {platform.machine()}.\n\n{table(rows)}")
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
