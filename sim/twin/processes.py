"""Child processes of the twin that never outlive it: Prometheus and, in the demo, the operator."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import socket
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


class Child:
    """One process with its output in a file; `start` again after it ended gives a new one.

    It runs in a session of its own, so that Ctrl-C reaches only the parent, which then ends it in order; if
    the parent is killed, Linux ends it.
    """

    def __init__(self, command: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.command, self.log, self.env = command, log, env
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.returncode

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env=self.env,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    async def stop(self, grace_s: float = 5.0) -> None:
        """SIGTERM, and SIGKILL after a grace period."""
        if self._process is None or not self.running:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), grace_s)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL: the process gets no chance to tidy up."""
        if self._process is not None and self.running:
            self._process.kill()
            await self._process.wait()

    def last_words(self, lines: int = 5) -> str:
        """The end of its output, for the message when it failed."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.strip().splitlines()[-lines:])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """A TCP port on loopback that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
