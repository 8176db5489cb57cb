"""How fast `rl-scaler serve` decides: latency of POST /schedule, jobs a second, and its own processor time.

It starts the real command with a state file on this disk, sends jobs over real connections and ends it again.
Clients and service share the machine; the service's processor time a job (from /proc, Linux) does not depend
on what else runs.

    python -m benchmarks.service [--rounds 5] [--seconds 3] [--clients 8] [--json FILE]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

HEADERS = {"Content-Type": "application/json"}
SERVERS = 16
BATCH = 100


@dataclass(frozen=True)
class Row:
    """One way of asking: medians over rounds, and the smallest and largest round."""

    what: str
    p50_ms: tuple[float, float, float]
    p99_ms: tuple[float, float, float]
    jobs_s: tuple[float, float, float]
    cpu_ms: tuple[float, float, float]
    """Processor time of the service for a job."""


@dataclass(frozen=True)
class Case:
    """How clients ask."""

    what: str
    strategy: str
    clients: int
    batch: int = 1

    def body(self) -> tuple[str, bytes]:
        """(path, body)."""
        job = {"cpu": 0.5, "memory": 1, "estimateSeconds": 0.5}
        if self.batch == 1:
            return "/schedule", json.dumps(job | {"strategy": self.strategy}).encode()
        content = {"jobs": [job] * self.batch, "strategy": self.strategy}
        return "/schedule/batch", json.dumps(content).encode()


def cases(clients: int) -> list[Case]:
    """What is measured."""
    return [
        Case("best-fit, 1 client", "best-fit", 1),
        Case(f"best-fit, {clients} clients", "best-fit", clients),
        Case("learned, 1 client", "learned", 1),
        Case(f"learned, {clients} clients", "learned", clients),
        Case(f"best-fit, 1 client, batches of {BATCH}", "best-fit", 1, BATCH),
    ]


def client(port: int, path: str, body: bytes, seconds: float) -> list[float]:
    """Ask again and again over one connection; seconds that each answer took."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        connection.request("POST", path, body, HEADERS)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {content[:300]!r}")
        took.append(time.perf_counter() - began)
    connection.close()
    return took


@contextmanager
def service(folder: Path) -> Iterator[tuple[int, int]]:
    """(port, process id) of a service that answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "controller", "serve", "--port", str(port), "--log-level", "error"]
    command += ["--servers", str(SERVERS), "--server-size", "64,256", "--state", str(folder / "state.db")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                time.sleep(0.1)
        else:
            raise RuntimeError(f"the service has ended: {process.returncode}")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)


def processor_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def play(case: Case, port: int, pid: int, seconds: float, pool: ProcessPoolExecutor) -> tuple[float, ...]:
    """(p50 ms, p99 ms, jobs/s, processor ms a job) of one round."""
    path, body = case.body()
    before = processor_s(pid)
    began = time.perf_counter()
    futures = [pool.submit(client, port, path, body, seconds) for _ in range(case.clients)]
    took = sorted(second for future in futures for second in future.result())
    span, used = time.perf_counter() - began, processor_s(pid) - before
    jobs = len(took) * case.batch
    p50, p99 = took[len(took) // 2], took[min(int(len(took) * 0.99), len(took) - 1)]
    return p50 * 1e3, p99 * 1e3, jobs / span, used / jobs * 1e3


def measure(rounds: int, seconds: float, clients: int) -> list[Row]:
    """All cases, taking turns."""
    found: dict[str, list[tuple[float, ...]]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder)) as (port, pid),
        ProcessPoolExecutor(clients) as pool,
    ):
        for turn in range(rounds + 1):
            for case in cases(clients):
                print(f"round {turn} of {rounds}: {case.what}        ", end="\r", file=sys.stderr)
                figures = play(case, port, pid, seconds, pool)
                # the first round warms up connections, processes and the disk
                if turn:
                    found.setdefault(case.what, []).append(figures)
    return [
        Row(what, *(_spread(column) for column in zip(*rows, strict=True))) for what, rows in found.items()
    ]


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| | p50, ms | p99, ms | jobs/s | processor time of the service, ms a job |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [_cell(one) for one in (row.p50_ms, row.p99_ms, row.jobs_s, row.cpu_ms)]
        lines.append(f"| {row.what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: tuple[float, float, float]) -> str:
    middle, low, high = (f"{one:,.0f}" if one >= 100 else f"{one:.3g}" for one in value)
    return f"{middle} [{low}, {high}]"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each case in each round")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.rounds < 1 or args.seconds <= 0 or args.clients < 1:
        parser.error("--rounds, --seconds, --clients: must be above 0")
    rows = measure(args.rounds, args.seconds, args.clients)
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
