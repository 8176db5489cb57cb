"""What one operator process costs, and how late its decisions are, with 100, 1,000 and 10,000 RLScalers.

The operator is the real one, in a process of its own, against the twin's Kubernetes API and a Prometheus that
answers its queries (`benchmarks.operator_world`, a second process). Phases: start (RLScalers that nobody has
ever decided for); steady (constant load); wavering (every rate changes by some per cent each period); change
(every rate jumps); restart (the operator is killed, and a new one takes over what is there). Lags are of the
wall clock and therefore the machine's too; "CPU to decide" is the processor's time that the operator used
from the start of a batch to its decisions, which is the delay on a core that nobody else uses.

    python -m benchmarks.operator [--objects 100 1000 10000] [--phases steady restart] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sim.twin.processes import free_port

ROOT = Path(__file__).parents[1]
PERIOD_S = 15.0
OPERATOR_ENV = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
"""As in the image."""
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PHASES = ("steady", "wavering", "change", "restart")


@dataclass(frozen=True)
class Reading:
    """The operator's and the world's counters at one moment."""

    at_s: float
    cpu_s: float
    rss_mb: float
    metrics: dict[str, float]
    counts: dict[str, Any]


@dataclass
class Row:
    """One phase with one number of objects; counts are per sync period unless they say otherwise."""

    objects: int
    phase: str
    seconds: float
    cpu_share: float
    rss_mb: float
    lag_p50_s: float = 0.0
    lag_p99_s: float = 0.0
    decided_p50_s: float = 0.0
    decided_p99_s: float = 0.0
    batch_cpu_p99_s: float = 0.0
    decisions: float = 0.0
    api_requests_per_s: float = 0.0
    status_writes: float = 0.0
    scale_writes: float = 0.0
    queries: float = 0.0
    note: str = ""


@dataclass
class Bench:
    """An operator with its world, under way."""

    objects: int
    directory: Path
    prometheus: str
    port: int
    operator: subprocess.Popen[bytes]
    rows: list[Row] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.directory / "operator.log"

    def scrape(self) -> dict[str, float]:
        """The operator's own series that have no label `name`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        found = {}
        for line in text.splitlines():
            if line[:1] not in ("#", "") and "name=" not in line:
                series, _, value = line.rpartition(" ")
                found[series] = float(value)
        return found

    def world(self, **change: float) -> dict[str, Any]:
        """Set the traffic; returns the counts."""
        query = "&".join(f"{name}={value}" for name, value in change.items())
        request = urllib.request.Request(f"{self.prometheus}/bench?{query}", b"" if change else None)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.loads(answer.read()))

    def read(self) -> Reading:
        cpu_s, rss_mb = usage(self.operator.pid)
        return Reading(time.monotonic(), cpu_s, rss_mb, self.scrape(), self.world())

    def measure(self, phase: str, seconds: float, tick: Callable[[float], None]) -> Row:
        """One phase from now on."""
        before = self.read()
        wait(seconds, tick)
        row = compared(self.objects, phase, before, self.read())
        self.rows.append(row)
        return row


def usage(pid: int) -> tuple[float, float]:
    """Processor seconds used so far, and resident memory in MB (10^6 bytes)."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / TICKS, int(stat[21]) * PAGE / 1e6


def compared(objects: int, phase: str, before: Reading, after: Reading) -> Row:
    """What happened between two readings."""
    seconds = after.at_s - before.at_s
    periods = seconds / PERIOD_S
    new = {key: value - before.metrics.get(key, 0.0) for key, value in after.metrics.items()}
    api = {
        key: after.counts["api"].get(key, 0) - before.counts["api"].get(key, 0) for key in after.counts["api"]
    }
    queries = after.counts["queries"] - before.counts["queries"]
    late, decided = "rlscaler_tick_lag_seconds", "rlscaler_decision_delay_seconds"
    return Row(
        objects,
        phase,
        seconds,
        (after.cpu_s - before.cpu_s) / seconds,
        after.rss_mb,
        quantile(new, late, 0.5),
        quantile(new, late, 0.99),
        quantile(new, decided, 0.5),
        quantile(new, decided, 0.99),
        quantile(new, "rlscaler_batch_cpu_seconds", 0.99),
        new[f"{decided}_count"] / periods,
        sum(api.values()) / seconds,
        api.get("write status", 0) / periods,
        api.get("write scale", 0) / periods,
        queries / periods,
    )


def quantile(metrics: dict[str, float], name: str, share: float) -> float:
    """A histogram's quantile as Prometheus interpolates it; 0 without observations."""
    buckets = sorted(
        (float(match[1]), value)
        for key, value in metrics.items()
        if (match := re.fullmatch(rf'{name}_bucket{{le="([^"]+)"}}', key))
    )
    wanted, low, below = share * buckets[-1][1], 0.0, 0.0
    for high, count in buckets:
        if count >= wanted and count > below:
            return low if high == float("inf") else low + (high - low) * (wanted - below) / (count - below)
        low, below = high, count
    return 0.0


@contextlib.contextmanager
def process(command: Sequence[str], log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, *command], stdout=output, stderr=output, cwd=ROOT, env={**os.environ, **env}
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def until(
    check: Callable[[], bool], what: str, log: Path, limit_s: float = 600.0, every_s: float = 0.02
) -> float:
    """Seconds until `check` holds. Raises RuntimeError with the end of the log when it never does."""
    begun_s = time.monotonic()
    while time.monotonic() - begun_s < limit_s:
        with contextlib.suppress(OSError, urllib.error.URLError, KeyError):
            if check():
                return time.monotonic() - begun_s
        time.sleep(every_s)
    raise RuntimeError(f"{what} did not come within {limit_s:g} s:\n{log.read_text()[-2000:]}")


def wait(seconds: float, tick: Callable[[float], None]) -> None:
    for _ in range(int(seconds)):
        time.sleep(1.0)
        tick(1.0)
    time.sleep(seconds % 1.0)


@contextlib.contextmanager
def bench(objects: int, directory: Path, history_s: float, policy: str) -> Iterator[Bench]:
    """An operator that has just been started, its start measured as the first row."""
    files = ["--objects", str(objects), "--dir", str(directory), "--history", str(history_s)]
    files += ["--policy", policy]
    with process(["-m", "benchmarks.operator_world", *files], directory / "world.log"):
        ready = directory / "world.json"
        until(ready.exists, "the world", directory / "world.log")
        prometheus = json.loads(ready.read_text())["prometheus"]
        with operator_of(directory, prometheus) as (port, operator):
            made = Bench(objects, directory, prometheus, port, operator)
            made.rows.append(started(made, "start"))
            yield made


@contextlib.contextmanager
def operator_of(directory: Path, prometheus: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The port and the process of an operator for the world in `directory`."""
    port = free_port()
    command = ["-m", "controller", "operator", "--kubeconfig", str(directory / "kubeconfig")]
    command += ["--prometheus-address", prometheus, "--http-address", f"127.0.0.1:{port}"]
    command += ["--log-level", "warning", "--log-format", "text"]
    with process(command, directory / "operator.log", **OPERATOR_ENV) as operator:
        yield port, operator


def restarted(made: Bench) -> Row:
    """The same of an operator that takes over from one that was killed."""
    made.operator.kill()
    made.operator.wait()
    with operator_of(made.directory, made.prometheus) as (port, operator):
        made.port, made.operator = port, operator
        row = started(made, "restart", made.world())
        made.rows.append(row)
        return row


def started(made: Bench, phase: str, counts: dict[str, Any] | None = None) -> Row:
    """From the process's start until it is ready, has decided once, and has decided for everybody.

    counts: the world's so far.
    """
    begun_s, log = time.monotonic(), made.log
    ready_s = until(lambda: answers(made.port, "/readyz"), "readiness", log)
    cpu_ready_s, _ = usage(made.operator.pid)
    decided = "rlscaler_decision_delay_seconds_count"
    until(lambda: made.scrape().get(decided, 0.0) >= 1, "the first decision", log)
    first_s = time.monotonic() - begun_s
    until(lambda: made.scrape().get(decided, 0.0) >= made.objects, "all decisions", log, every_s=0.25)
    all_s = time.monotonic() - begun_s
    reading = made.read()
    note = f"ready {ready_s:.1f} s ({cpu_ready_s:.1f} s of CPU), first {first_s:.1f} s, all {all_s:.1f} s"
    before = Reading(begun_s, 0.0, 0.0, {}, counts or {"api": {}, "queries": 0})
    row = compared(made.objects, phase, before, reading)
    row.note = note
    return row


def answers(port: int, path: str) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return bool(answer.status == 200)


def run(
    objects: Sequence[int],
    periods: int,
    settle: int,
    history_s: float,
    factor: float,
    noise: float,
    policy: str,
    phases: Sequence[str] = PHASES,
) -> list[Row]:
    """All phases for each number of objects, behind a progress bar."""
    rows: list[Row] = []
    columns = (TextColumn("{task.description:<32}"), BarColumn(), TimeElapsedColumn())
    total = (settle + len(set(phases) - {"restart"}) * periods) * PERIOD_S
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for count in objects:
            task = progress.add_task(f"{count:,}: start", total=total)

            def tick(seconds: float, task: Any = task) -> None:
                progress.update(task, advance=seconds)

            with contextlib.ExitStack() as stack:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rlscaler-bench-")))
                made = stack.enter_context(bench(count, directory, history_s, policy))
                progress.update(task, description=f"{count:,}: settling")
                wait(settle * PERIOD_S, tick)
                for phase in phases:
                    progress.update(task, description=f"{count:,}: {phase}")
                    if phase == "restart":
                        restarted(made)
                        continue
                    changes = {"wavering": {"noise": noise}, "change": {"noise": 0.0, "factor": factor}}
                    if phase in changes:
                        made.world(**changes[phase])
                    made.measure(phase, periods * PERIOD_S, tick)
                rows += made.rows
                complaints = (directory / "operator.log").read_text().strip().splitlines()
                if complaints:
                    progress.console.print("\n".join(complaints[-5:]))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| objects | phase | lag p50 | p99 | decided p50 | p99 | CPU to decide p99 | CPU | RSS | decisions "
        "| API requests/s | status writes | scale writes | queries | note |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {r.objects:,} | {r.phase} | {r.lag_p50_s:.3f} s | {r.lag_p99_s:.3f} s | {r.decided_p50_s:.3f} s "
        f"| {r.decided_p99_s:.3f} s | {r.batch_cpu_p99_s:.3f} s | {r.cpu_share:.0%} | {r.rss_mb:.0f} MB "
        f"| {r.decisions:,.0f} | {r.api_requests_per_s:.1f} | {r.status_writes:,.1f} | {r.scale_writes:,.1f} "
        f"| {r.queries:,.1f} | {r.note} |"
        for r in rows
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.operator", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--objects", type=int, nargs="+", default=[100, 1000, 10_000], help="RLScalers")
    parser.add_argument("--periods", type=int, default=4, help="sync periods of 15 s a phase (default 4)")
    parser.add_argument("--settle", type=int, default=12, help="sync periods before `steady` (default 12)")
    parser.add_argument("--history", type=float, default=3600.0, help="seconds that Prometheus remembers")
    parser.add_argument("--policy", choices=("RL", "HPA"), default="RL", help="of every RLScaler")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES, help="after the start")
    parser.add_argument("--factor", type=float, default=1.5, help="of the load in the phase `change`")
    parser.add_argument("--noise", type=float, default=0.03, help="share, in the phase `wavering`")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(argv)
    if min(args.objects) < 1 or args.periods < 1:
        parser.error("--objects and --periods must be 1 or more")
    rows = run(
        args.objects,
        args.periods,
        args.settle,
        args.history,
        args.factor,
        args.noise,
        args.policy,
        args.phases,
    )
    load = os.getloadavg()[0]
    print(
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, load {load:.1f}."
    )
    print("Writes, decisions and queries are per sync period of 15 s.\n")
    print(table(rows))
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
