"""The test's handle on the runner and its operators."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.faults.invariants import unix
from tests.faults.killpoints import Shared
from tests.integration.harness import ROOT, Json, eventually, free_port, http_get

FOREVER_S = 60.0


class Runner:
    """The process that forks operators."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        path = str(directory / "killpoints")
        self.shared = Shared.create(path)
        self._log = (directory / "runner.log").open("wb")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.runner", path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            cwd=ROOT,
        )
        self._lock = threading.Lock()
        self._numbers = iter(range(1, 1_000_000))
        self._events: dict[int, queue.Queue[Json]] = {}
        self._ready = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()
        eventually(self._is_ready, timeout_s=FOREVER_S)

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError((self._directory / "runner.log").read_text()[-4000:])
        return self._ready.is_set()

    def operator(self, kubeconfig: Path, namespace: str, prometheus: str, **env: str) -> Operator:
        """An operator that is not running yet."""
        log = self._directory / f"operator-{namespace}-{next(self._numbers)}.log"
        return Operator(self, kubeconfig, namespace, prometheus, log, env)

    def send(self, command: Json) -> None:
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()

    def expect(self) -> tuple[int, queue.Queue[Json]]:
        """A number for a process, and where its events arrive."""
        number = next(self._numbers)
        self._events[number] = queue.Queue()
        return number, self._events[number]

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            if "ready" in event:
                self._ready.set()
            else:
                self._events[event.get("started") or event["ended"]].put(event)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._log.close()


class Operator:
    """One operator: started, killed and started again under the same settings."""

    def __init__(
        self,
        runner: Runner,
        kubeconfig: Path,
        namespace: str,
        prometheus: str,
        log: Path,
        env: dict[str, str],
    ) -> None:
        self._runner = runner
        self.namespace = namespace
        self.log = log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = {
            "RLSCALER_KUBECONFIG": str(kubeconfig),
            "RLSCALER_NAMESPACES": namespace,
            "RLSCALER_PROMETHEUS_ADDRESS": prometheus,
            "RLSCALER_HTTP_ADDRESS": f"127.0.0.1:{self.port}",
            "RLSCALER_LOG_LEVEL": "debug",
            **env,
        }
        self._number = 0
        self._events: queue.Queue[Json] = queue.Queue()
        self._tail = Tail(log)
        self.pid = 0
        self.pids: list[int] = []

    @property
    def running(self) -> bool:
        return self.pid != 0

    def start(self, ahead_s: float = 0.0, wait: bool = True, **env: str) -> Operator:
        """Run it. ahead_s: how much its clock is ahead of ours."""
        assert not self.running
        self._number, self._events = self._runner.expect()
        self._runner.send(
            {"start": self._number, "env": self._env | env, "log": str(self.log), "ahead_s": ahead_s}
        )
        self.pid = int(self._events.get(timeout=FOREVER_S)["pid"])
        self.pids.append(self.pid)
        if wait:
            self.wait_listed()
        return self

    def wait_listed(self) -> None:
        """Until it has listed the RLScalers."""
        eventually(self.listed, timeout_s=FOREVER_S)

    def listed(self) -> bool:
        status, text = http_get(f"{self.url}/readyz")
        return status == 200 or "turn" in text

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def signal(self, number: int) -> None:
        self._runner.send({"signal": self._number, "number": int(number)})

    def wait(self, timeout_s: float = FOREVER_S) -> int:
        """Its exit code, once it has ended."""
        code = int(self._events.get(timeout=timeout_s)["code"])
        self.pid = 0
        return code

    def wait_ended(self, timeout_s: float) -> bool:
        """Whether it has ended of itself, after waiting a little for it."""
        if self.pid == 0:
            return True
        try:
            self.wait(timeout_s)
        except queue.Empty:
            return False
        return True

    def close(self) -> None:
        if self.running:
            self.signal(signal.SIGKILL)
            self.wait()

    def arm(self, point: str | None) -> None:
        self._runner.shared.arm(point)

    @property
    def shared(self) -> Shared:
        return self._runner.shared

    def decisions(self, name: str = "") -> list[Json]:
        """What it has decided so far, over all restarts, oldest first: from its log."""
        found = self._tail.decisions()
        return [item for item in found if name in ("", item["name"])]

    def errors(self) -> list[str]:
        """Lines that it logged as errors."""
        return self._tail.errors()

    def metric(self, name: str) -> float:
        """The sum of a metric's series, 0 where there are none."""
        _, text = http_get(f"{self.url}/metrics")
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def usage(self) -> dict[str, int]:
        """Memory in MB, threads, open files and asyncio tasks of the process as it is now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return {
            "memory_mb": int(fields["VmRSS"].split()[0]) // 1024,
            "threads": int(fields["Threads"]),
            "files": len(os.listdir(f"/proc/{self.pid}/fd")),
            "tasks": self.shared.tasks,
        }


class Tail:
    """Reads a growing log of JSON lines, each line once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._decisions: list[Json] = []
        self._errors: list[str] = []
        self._lock = threading.Lock()

    def decisions(self) -> list[Json]:
        self._read()
        return list(self._decisions)

    def errors(self) -> list[str]:
        self._read()
        return list(self._errors)

    def _read(self) -> None:
        with self._lock:
            for line in self._lines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    if line.startswith("Traceback"):
                        self._errors.append(line)
                    continue
                decision = entry.get("decision")
                if isinstance(decision, dict) and "desiredReplicas" in decision:
                    self._decisions.append(decision | {"at": unix(decision["time"])})
                # kopf, of a watch that it begins again, and asyncio of kopf's watches when the process ends
                said = str(entry.get("message"))
                known = "will retry" in said or (
                    "closing of asynchronous generator" in said and "watch" in said
                )
                if entry.get("level") in ("error", "critical") and not known:
                    self._errors.append(line)

    def _lines(self) -> Iterator[str]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole, _, _ = data.rpartition(b"\n")
        self._at += len(whole) + 1 if whole else 0
        yield from whole.decode(errors="replace").splitlines()
