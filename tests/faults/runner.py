"""Runs the operator for the fault tests: the real one, in a process of its own, to be killed at any step.

`python -m tests.faults.runner SHARED` has everything imported and the kill points installed, and forks an
operator whenever it is told to, so that a restart after kill -9 takes as long as the operator's own start and
not as long as Python's. Commands come in as lines of JSON and what happens goes out as lines of JSON:

    {"start": 1, "env": {...}, "log": PATH, "ahead_s": 0}  ->  {"started": 1, "pid": 4711}
    {"signal": 1, "number": 9}
                                                          ->  {"ended": 1, "code": -9}
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import time
from typing import Any

from tests.faults import killpoints

POLL_S = 0.02


class Server:
    """Forks operators and tells when they end. One thread, so that a fork is safe."""

    def __init__(self) -> None:
        self._pids: dict[int, int] = {}

    def serve(self) -> None:
        rest = b""
        while True:
            readable, _, _ = select.select([0], [], [], POLL_S)
            if readable:
                data = os.read(0, 65536)
                if not data:
                    return self._end()
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))
            self._reap()

    def _obey(self, command: dict[str, Any]) -> None:
        if "start" in command:
            number = command["start"]
            pid = os.fork()
            if pid == 0:
                _operate(command)
            self._pids[pid] = number
            _say({"started": number, "pid": pid})
        else:
            for pid, number in self._pids.items():
                if number == command["signal"]:
                    os.kill(pid, command["number"])

    def _reap(self) -> None:
        for pid in list(self._pids):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                _say({"ended": self._pids.pop(pid), "code": os.waitstatus_to_exitcode(status)})

    def _end(self) -> None:
        for pid in self._pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def _operate(command: dict[str, Any]) -> None:
    """The operator, in the child; never returns."""
    code = 1
    try:
        log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(command["env"])
        logging.getLogger("urllib3").setLevel(logging.WARNING)
        if command.get("ahead_s"):
            _shift_clock(float(command["ahead_s"]))
        from controller.operator import run
        from controller.settings import Settings

        code = run(Settings.load({}))
    except BaseException as error:
        print(f"Traceback: the operator ended with {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _shift_clock(by_s: float) -> None:
    """A node whose clock is wrong by so much."""
    true = time.time
    time.time = lambda: true() + by_s


def _say(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def main() -> None:
    import onnxruntime  # noqa: F401 - what an operator would import on its first turn

    killpoints.install(killpoints.Shared(sys.argv[1]))
    _say({"ready": True})
    Server().serve()


if __name__ == "__main__":
    main()
