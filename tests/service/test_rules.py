"""The live cluster keeps the simulator's rules: the same jobs, decided on one by one, have the same life."""

from __future__ import annotations

import numpy as np
import pytest

from service.cluster import Asked, Cluster
from service.servers import Fleet, Server
from service.strategies import Strategy, strategies
from sim.scheduling import HEURISTICS, SchedulingParams, Servers, Workload, run_heuristic
from sim.scheduling.workloads import SchedulingScenario, draw_episode

JOBS = 150


def episode(seed: int) -> tuple[Servers, Workload]:
    scenario = SchedulingScenario(servers=(5, 5), load=(1.3, 1.3), estimate_error=(0.5, 0.5))
    return draw_episode(np.random.default_rng(seed), scenario, JOBS)


def live_waits(servers: Servers, jobs: Workload, name: str, params: SchedulingParams) -> np.ndarray:
    """Waits of the jobs `[J]` in a cluster that is told of each as it comes."""
    fleet = Fleet(
        tuple(
            Server(f"s{k}", *numbers)
            for k, numbers in enumerate(
                zip(servers.cpu.tolist(), servers.memory.tolist(), servers.speed.tolist(), strict=True)
            )
        )
    )
    cluster = Cluster(fleet, strategies(len(fleet)), params, explain=False)
    waits = np.full(len(jobs), np.nan)
    for k in range(len(jobs)):
        asked = Asked(jobs.cpu[k], jobs.memory[k], jobs.estimate_s[k], jobs.duration_s[k])
        cluster.submit(asked, name, float(jobs.submit_s[k]))
        note(cluster, waits)
    cluster.advance(float(jobs.submit_s[-1]) + 1e9)
    note(cluster, waits)
    assert cluster.totals[name].finished == len(jobs)
    return waits


def note(cluster: Cluster, waits: np.ndarray) -> None:
    for job in cluster.changes():
        if job.started_s is not None:
            waits[job.id - 1] = job.wait_s


@pytest.mark.parametrize("order", ["size", "arrival"])
@pytest.mark.parametrize("name", list(HEURISTICS))
def test_jobs_wait_as_long_as_in_the_simulator(name: str, order: str) -> None:
    servers, jobs = episode(list(HEURISTICS).index(name))
    params = SchedulingParams(order=order)  # type: ignore[arg-type]
    (simulated,) = run_heuristic(name, servers, [jobs], params)
    assert np.nanmax(simulated.wait_s) > 0, "somebody waits, or nothing is shown"
    np.testing.assert_allclose(live_waits(servers, jobs, name, params), simulated.wait_s, atol=1e-6)


def test_the_learned_strategy_chooses_what_training_chooses() -> None:
    from sim.envs.scheduling_batch import SchedulingBatch, SchedulingConfig
    from training.schedulers.contestants import contestant

    servers, jobs = episode(7)
    params = SchedulingParams(order="size")
    scenario = SchedulingScenario(servers=(5, 5))
    batch = SchedulingBatch(
        SchedulingConfig(servers=5, params=params, scenario=scenario),
        1,
        autoreset=False,
        episodes=[(servers, jobs)],
    )
    trained, observations = contestant("learned"), batch.reset()
    held = 0
    while bool((batch.physics.offered >= 0).any()):
        choices = trained.choose(batch, observations)
        held += int(choices[0] == 5)
        observations = batch.step(choices).observations
    simulated = batch.physics.outcome(0)
    assert held > 0, "it holds jobs back, or it would be best-fit"
    np.testing.assert_allclose(live_waits(servers, jobs, "learned", params), simulated.wait_s, atol=1e-6)


def test_scores_and_choices_go_together(known: dict[str, Strategy]) -> None:
    """The chosen server is the one with the best score, where the strategy has one."""
    best = {
        "round-robin": np.nanmin, "first-fit": np.nanmin, "least-loaded": np.nanmin,
        "best-fit": np.nanmin, "shortest-expected-delay": np.nanmin, "learned": np.nanmax,
    }  # fmt: skip
    rng = np.random.default_rng(3)
    fleet = Fleet((Server("a", 8, 32), Server("b", 8, 32, 0.5), Server("c", 4, 32)))
    checked = 0
    for name, pick in best.items():
        cluster = Cluster(fleet, known, SchedulingParams(order="size"))
        for k in range(60):
            asked = Asked(float(rng.uniform(0.5, 4)), 1.0, float(rng.uniform(5, 50)), 20.0)
            answer = cluster.submit(asked, name, 3.0 * k)
            if answer.choice is not None and answer.job.server is not None:
                scores = dict(zip(fleet.names, answer.choice.scores, strict=True))
                assert scores[answer.job.server] == pytest.approx(pick(answer.choice.scores)), name
                assert answer.job.server in answer.job.reason
                checked += 1
    assert checked > 150
