"""`python -m sim.twin`: a cluster, simulated services and a real Prometheus, until Ctrl-C.

The operator is yours to start beside it; the commands to do so are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sim.errors import SimulationError
from sim.physics import ServiceParams
from sim.traces import Trace, load_trace
from sim.twin.service import SimulatedService
from sim.twin.twin import Twin


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sim.twin", description=__doc__)
    parser.add_argument(
        "--dir", type=Path, help="for the kubeconfig, logs and data (default: a temporary one)"
    )
    parser.add_argument("--time-scale", type=float, default=60.0, help="control seconds in a real one")
    parser.add_argument(
        "--trace", type=Path, help="CSV with timestamp_s,requests_per_s (default: steady load)"
    )
    parser.add_argument(
        "--peak-replicas", type=float, default=40.0, help="replicas that the trace's peak needs"
    )
    parser.add_argument("--capacity", type=float, default=25.0, help="requests/s that one replica can serve")
    parser.add_argument("--service", default="web", help="name of the Deployment and its Service")
    parser.add_argument("--replicas", type=int, default=4, help="replicas to begin with")
    parser.add_argument("--start-up", type=float, default=60.0, help="control seconds until a pod is ready")
    parser.add_argument("--port", type=int, default=0, help="of the Kubernetes API (default: a free one)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    try:
        asyncio.run(_run(args))
    except SimulationError as error:
        print(f"sim.twin: {error}", file=sys.stderr)
        return 2
    return 0


async def _run(args: argparse.Namespace) -> None:
    trace = _trace(args)
    params = ServiceParams(capacity_rps=args.capacity, start_up_s=args.start_up)
    with tempfile.TemporaryDirectory(prefix="rlscaler-twin-") as temporary:
        directory = args.dir or Path(temporary)
        services = [SimulatedService(args.service, trace, params)]
        timing = {"time_scale": args.time_scale, "start_up_s": args.start_up}
        async with Twin(directory, services, args.replicas, port=args.port, **timing) as twin:
            _explain(twin)
            await _interrupted()


def _trace(args: argparse.Namespace) -> Trace:
    if args.trace is None:
        level = 0.6 * args.replicas * args.capacity
        return Trace(np.array([0.0, 3600.0]), np.array([level, level]), "steady")
    loaded = load_trace(args.trace).scale_to_peak(args.peak_replicas, args.capacity)
    return Trace(loaded.times_s - loaded.times_s[0], loaded.rate_rps, loaded.name)


def _explain(twin: Twin) -> None:
    scale = twin.cluster.time_scale
    print(f"Kubernetes API   {twin.cluster.url}")
    print(f"Prometheus       {twin.prometheus.url}")
    print(f"try              kubectl --kubeconfig {twin.kubeconfig} get rls,deployments,pods")
    print(
        f"the operator     rl-scaler operator --kubeconfig {twin.kubeconfig} --time-scale {scale:g} "
        f"--prometheus-address {twin.prometheus.url} --http-address 127.0.0.1:0"
    )
    print("Ctrl-C ends it.", flush=True)


async def _interrupted() -> None:
    done = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    await done.wait()


if __name__ == "__main__":
    sys.exit(main())
