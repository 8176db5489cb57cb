"""From the twin to real servers: the same episodes on both, and how well the twin tells what they do.

`training/web_balancing.py transfer` and `validate` are the callers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sim.webbalancing.batch import TwinBatch, WebConfig
from sim.webbalancing.episodes import Episode, draw_episode
from sim.webbalancing.layout import OK, TIMED_OUT
from sim.webbalancing.policies import RoundRobin
from sim.webbalancing.real import RealBatch
from training.webbalancing.contestants import Contestant
from training.webbalancing.evaluation import HELD_OUT, Summaries, held_out, play, play_twin, summarise

CALIBRATED_AT = 0.6
"""Load of the episodes that tell the machine's overheads."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Overheads:
    """What this machine adds to a request: seconds of the worker's time, and besides."""

    work_s: float
    http_s: float


def transfer(
    compared: Sequence[Contestant],
    phase: str,
    episodes: int,
    config: WebConfig,
    seed: int = 0,
    errors: Path | None = None,
    tell: Tell = lambda text: None,
) -> dict[str, Any]:
    """Every contestant on real servers and in the twin, the same episodes: `real` and `twin` as `summarise`
    says. On real servers all play an episode before the next begins, in an order drawn for each, so that
    what else the machine does falls on all alike. errors: where errors.log is written.
    """
    drawn = held_out(phase, episodes, config, seed)
    tasks = [(one.name, place, policy) for one in compared for place, policy in enumerate(one.policies)]
    played: dict[str, list[Summaries]] = {one.name: [[] for _ in one.policies] for one in compared}
    rng = np.random.default_rng(seed)
    given = [episode for episode in drawn for _ in tasks]
    batch = RealBatch(replace(config, face="real"), seed, autoreset=False, given=given)
    try:
        if errors is not None:
            batch.log_errors_to(errors)
        for number in range(episodes):
            for index in rng.permutation(len(tasks)):
                name, place, policy = tasks[index]
                played[name][place] += play(policy, batch, 1)
                tell(f"episode {number + 1}: {name}")
        logged = dict(batch.errors.counts)
    finally:
        batch.close()
    found = calibrate(config, seed)
    calibrated = replace(config, face="twin", work_over_s=found.work_s, http_over_s=found.http_s)
    twin = {one.name: [play_twin(policy, drawn, calibrated) for policy in one.policies] for one in compared}
    late = [one["late_ms"] for seeds in played.values() for summaries in seeds for one in summaries]
    return {
        "phase": phase,
        "episodes": episodes,
        "real": summarise(played),
        "twin": summarise(twin),
        "logged": logged,
        "late_ms": float(np.mean(late)),
        "work_over_s": found.work_s,
        "http_over_s": found.http_s,
    }


def validate(
    loads: Sequence[float],
    config: WebConfig,
    seed: int = 0,
    tell: Tell = lambda text: None,
) -> dict[str, Any]:
    """Mean latency at each load, on real servers and in the twin. Batches go round robin over servers of
    different capacity, so that both faces send every request to the same server at the same time."""
    found = []
    for load in loads:
        episode = episode_at(load, config, seed)
        batch = RealBatch(replace(config, face="real"), seed, autoreset=False, given=[episode])
        try:
            play(RoundRobin(), batch, 1)
            real_ms, over = mean_latency_ms(batch), measure_overheads(batch)
        finally:
            batch.close()
        twin = TwinBatch(
            replace(config, face="twin", work_over_s=over.work_s, http_over_s=over.http_s), 1,
            autoreset=False, given=[episode],
        )  # fmt: skip
        play(RoundRobin(), twin, 1)
        found.append(
            {
                "load": load,
                "requests": int(episode.counts[:-1].sum()),
                "real_ms": real_ms,
                "twin_ms": mean_latency_ms(twin),
                "work_over_s": over.work_s,
                "http_over_s": over.http_s,
            }
        )
        tell(f"load {load:.2f}")
    return {"loads": found}


def episode_at(load: float, config: WebConfig, seed: int) -> Episode:
    """An episode of servers of 2 to 5 workers, equally loaded by round robin, at a load."""
    rng = np.random.default_rng([HELD_OUT, seed, round(1000 * load)])
    drawn = draw_episode(rng, "equal", config.servers, config.batches)
    workers = 2 + np.arange(config.servers) % 4
    # as long as there are more workers: each server's capacity is the same, as round robin has it
    service_s = (0.025 * workers).astype(np.float64)
    capacity = float((workers / service_s).sum())
    span_s = float(drawn.counts[:-1].sum()) / (load * capacity)
    arrive_s = drawn.arrive_s * span_s / drawn.arrive_s[-1]
    return replace(drawn, workers=workers, service_s=service_s, arrive_s=arrive_s, load=load)


def mean_latency_ms(batch: Any) -> float:
    """Over the episode's requests that were answered or given up."""
    status = batch.book.status[0]
    latency = batch.book.latencies[0][(status == OK) | (status == TIMED_OUT)]
    return 1000 * float(latency.mean()) if len(latency) else math.nan


def measure_overheads(batch: RealBatch) -> Overheads:
    """What an episode's requests took beyond their work, by the servers' own metrics: in the worker's time,
    and besides it on the way. Only for an episode without a fault, in which nothing failed."""
    now = [batch.run(batch.read(place)) for place in range(batch.config.servers)]
    book, service_s, duration_s, count = batch.book, 0.0, 0.0, 0.0
    for new, old in zip(now, batch.at_start, strict=True):
        if new is not None and old is not None:
            service_s += new.service_s - old.service_s
            duration_s += new.duration_s - old.duration_s
            count += new.requests - old.requests
    sent = np.flatnonzero(book.status[0] == OK)
    work_s = float((batch.truth.sizes[0, sent] * book.service_s[0, book.server[0, sent]]).sum())
    latency_s = float(book.latencies[0, sent].sum())
    per = max(count, 1.0)
    return Overheads(max(service_s - work_s, 0.0) / per, max(latency_s - duration_s, 0.0) / per)


def calibrate(config: WebConfig, seed: int) -> Overheads:
    """The machine's overheads now, by an episode of round robin on real servers."""
    episode = episode_at(CALIBRATED_AT, config, seed)
    batch = RealBatch(replace(config, face="real"), seed, autoreset=False, given=[episode])
    try:
        play(RoundRobin(), batch, 1)
        return measure_overheads(batch)
    finally:
        batch.close()
