"""Decisions in words: one sentence that a person can check against the numbers beside it."""

from __future__ import annotations

import math

import numpy as np

from service.jobs import Job
from service.servers import Fleet
from service.strategies import LEARNED, Choice
from sim.scheduling.layout import SchedulingArrays


def placed(strategy: str, choice: Choice, server: int, fleet: Fleet, arrays: SchedulingArrays) -> str:
    """Why a job was placed on `server`; arrays: as they were before."""
    name, room = fleet.names[server], int(choice.able.sum())
    if room == 1:
        return f"{name} is the only server with room"
    of = f"of {room} servers with room"
    score = float(choice.scores[server])
    if strategy == LEARNED:
        return f"{name} has the highest probability, {score:.0%}, {of}{_next_best(choice, server, fleet)}"
    if strategy == "round-robin":
        return f"it is {name}'s turn" + (f"; {score:.0f} before it had no room" if score else "")
    if strategy == "random":
        return f"{name} was drawn, each {of} being as likely"
    if strategy == "first-fit":
        return f"{name} is the first {of}"
    if strategy == "shortest-expected-delay":
        return f"on {name} the job is expected to end soonest, in {score:.3g} s, {of}"
    cpu = arrays.used_cpu[0, server] / arrays.has_cpu[0, server]
    memory = arrays.used_memory[0, server] / arrays.has_memory[0, server]
    taken = f"{cpu:.0%} of cpu and {memory:.0%} of memory"
    if strategy == "least-loaded":
        return f"{name} has the least taken ({taken}) {of}"
    if strategy == "power-of-two":
        return f"{name} has less taken ({taken}) than the other of two drawn {of}"
    return f"the job leaves the least room on {name} ({score:.2f} largest servers) {of}"


def _next_best(choice: Choice, server: int, fleet: Fleet) -> str:
    others = np.where(np.isnan(choice.scores), -1.0, choice.scores)
    others[server] = -1.0
    second = int(others.argmax())
    if choice.hold > others[second]:
        return f"; holding it back: {choice.hold:.0%}"
    return f"; next {fleet.names[second]}, {others[second]:.0%}"


def held(strategy: str, choice: Choice, arrays: SchedulingArrays) -> str:
    """Why a job waits although a server has room."""
    free = 1.0 - float(arrays.used_cpu[0].sum() / arrays.has_cpu[0].sum())
    if strategy == LEARNED:
        best = float(np.nanmax(choice.scores))
        return (
            f"held back, probability {choice.hold:.0%} (best server: {best:.0%}); {free:.0%} of cpu is free"
        )
    if strategy == "keep-room":
        return f"held back: it is long, and too little of the free {free:.0%} of cpu would be left"
    return "held back: a faster server is expected to be sooner, waiting for room included"


def no_room(job: Job, fleet: Fleet, arrays: SchedulingArrays, behind: int) -> str:
    """Why a job waits that no server has room for now. behind: waiting jobs before it."""
    cpu = float((arrays.has_cpu[0] - arrays.used_cpu[0]).max()) * fleet.unit_cpu
    memory = float((arrays.has_memory[0] - arrays.used_memory[0]).max()) * fleet.unit_memory
    before = f"; {behind} jobs wait before it" if behind else ""
    if job.cpu <= cpu and job.memory <= memory:
        return f"no server has both: {_demand(job)}{before}"
    return (
        f"no server has room: {_demand(job)}, the most that is free "
        f"on one are {_floor(cpu)} and {_floor(memory)}{before}"
    )


def in_line(behind: int) -> str:
    """Why a job waits that has room, where the order is strict."""
    return f"the queue's order is strict: {behind} jobs wait before it"


def rejected(job: Job, fleet: Fleet, queue_limit: int) -> str:
    """Why a job was turned away."""
    if not any(job.cpu <= one.cpu and job.memory <= one.memory for one in fleet.servers):
        return f"no server is large enough, even empty: {_demand(job)}"
    return f"the queue is full ({queue_limit} jobs)"


def _demand(job: Job) -> str:
    return f"it asks for cpu {job.cpu:.5g} and memory {job.memory:.5g}"


def _floor(value: float) -> str:
    """Rounded down, so that what is told free is free."""
    if value <= 0:
        return "0"
    digits = max(3 - math.ceil(math.log10(value)), 0)
    return f"{math.floor(value * 10**digits + 1e-6) / 10**digits:g}"
