"""Where the operator is killed: before and after every step of a tick, by wrapping the functions of a tick.

The runner (`tests.faults.runner`) installs the wrappers in the operator's process; nothing of this is in the
operator. One point is armed at a time, through memory that is shared with the test, and the next time that it
is passed the process kills itself with SIGKILL.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import mmap
import os
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Step:
    """One function that a tick passes through; `about`: only where the subresource of a patch is this."""

    name: str
    function: str
    about: str = ""


STEPS = (
    Step("who is due", "controller.loop:ControlLoop._start_due"),
    Step("prepare", "controller.observing:Observer.prepare"),
    Step("choose the policy", "controller.policybook:PolicyBook.choose"),
    Step("open the feed", "controller.feeds:Feeds.open"),
    Step("observe", "controller.observing:Observer.observe"),
    Step("read the target", "controller.observing:Observer._read_targets"),
    Step("read the signals", "controller.observing:Observer._read_signals"),
    Step("restore the past", "controller.work:Preparer.restore"),
    Step("observe together", "controller.observing:Observer.share"),
    Step("decide", "controller.turn:Reconciler.decide"),
    Step("take in the readings", "controller.core.engine:Engine.observe"),
    Step("guard", "controller.core.engine:Engine.conclude"),
    Step("conclude", "controller.turn:Reconciler.conclude"),
    Step("act", "controller.turn:Reconciler._act"),
    Step("scale", "controller.actuation.apply:Actuator.scale"),
    Step("write the replicas", "controller.kube:Kube.merge_patch", "scale"),
    Step("remember the scale", "controller.core.engine:Engine.record_scale"),
    Step("report", "controller.turn:Reconciler._report"),
    Step("write the status", "controller.kube:Kube.merge_patch", "status"),
    Step("emit the event", "controller.events:EventRecorder.emit"),
    Step("end the turn", "controller.loop:ControlLoop._finish"),
)
"""The steps of a tick, in its order. Each is a point before it and one after it."""

Side = Literal["before", "after"]
POINTS: tuple[str, ...] = tuple(f"{side} {step.name}" for step in STEPS for side in ("before", "after"))


class Shared:
    """Memory that the test, the runner and the operator share; made before the runner forks.

    armed: index of the point to kill at plus one. killed: the same for the last kill. passed: how often each
    point was passed. tasks: asyncio tasks in the operator when its loop last turned.
    """

    _ARMED, _KILLED, _TASKS, _COUNTS = 0, 4, 8, 16

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), self.size())

    @classmethod
    def size(cls) -> int:
        return cls._COUNTS + 4 * len(POINTS)

    @classmethod
    def create(cls, path: str) -> Shared:
        with open(path, "wb") as file:
            file.write(bytes(cls.size()))
        return cls(path)

    def arm(self, point: str | None) -> None:
        self._put(self._ARMED, 0 if point is None else POINTS.index(point) + 1)

    def take_killed(self) -> str | None:
        """The point at which the operator was killed since this was last asked."""
        index = self._get(self._KILLED)
        self._put(self._KILLED, 0)
        return POINTS[index - 1] if index else None

    def passed(self, point: str) -> int:
        return self._get(self._COUNTS + 4 * POINTS.index(point))

    @property
    def tasks(self) -> int:
        return self._get(self._TASKS)

    def count_tasks(self) -> None:
        self._put(self._TASKS, len(asyncio.all_tasks()))

    def reach(self, index: int) -> None:
        """The operator is at a point."""
        where = self._COUNTS + 4 * index
        self._put(where, self._get(where) + 1)
        if self._get(self._ARMED) == index + 1:
            self._put(self._ARMED, 0)
            self._put(self._KILLED, index + 1)
            os.kill(os.getpid(), signal.SIGKILL)

    def _get(self, offset: int) -> int:
        return int(struct.unpack_from("=I", self._memory, offset)[0])

    def _put(self, offset: int, value: int) -> None:
        struct.pack_into("=I", self._memory, offset, value)


def install(shared: Shared) -> None:
    """Wrap every step. Raises LookupError where one is not to be found: a tick has changed."""
    for number, step in enumerate(STEPS):
        owner, name = _find(step)
        setattr(owner, name, _wrapped(getattr(owner, name), step, 2 * number, shared))


def _find(step: Step) -> tuple[Any, str]:
    module, _, path = step.function.partition(":")
    *owners, name = path.split(".")
    try:
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        getattr(owner, name)
    except (ImportError, AttributeError) as error:
        raise LookupError(f"kill point {step.name!r}: there is no {step.function}") from error
    return owner, name


def _wrapped(function: Callable[..., Any], step: Step, index: int, shared: Shared) -> Callable[..., Any]:
    def concerned(args: tuple[Any, ...], given: dict[str, Any]) -> bool:
        return not step.about or step.about in args or step.about in given.values()

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **given: Any) -> Any:
            if not concerned(args, given):
                return await function(*args, **given)
            shared.reach(index)
            result = await function(*args, **given)
            shared.reach(index + 1)
            return result

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **given: Any) -> Any:
        if index == 0:
            shared.count_tasks()
        shared.reach(index)
        result = function(*args, **given)
        shared.reach(index + 1)
        return result

    return called
