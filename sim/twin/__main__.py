"""`python -m sim.twin`: a cluster, simulated services and a real Prometheus, until Ctrl-C.

With `--data-plane envoy` nothing but the cluster is simulated: sets of pools, a real Envoy and real requests.
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

from sim.errors import SimulationError, require
from sim.physics import ServiceParams
from sim.traces import Trace, load_trace
from sim.twin.dataplane.plan import RATE_RPS, RULES, SetPlan
from sim.twin.dataplane.proxy import find_envoy
from sim.twin.dataplane.twin import EnvoyTwin
from sim.twin.service import SimulatedService
from sim.twin.twin import Twin, TwinFolder

START_UP_S = {"simulated": 60.0, "envoy": 4.0}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sim.twin", description=__doc__)
    parser.add_argument(
        "--dir", type=Path, help="for the kubeconfig, logs and data (default: a temporary one)"
    )
    parser.add_argument(
        "--data-plane",
        choices=("simulated", "envoy"),
        default="simulated",
        help="envoy: real requests to pools, in real time",
    )
    parser.add_argument(
        "--rules",
        nargs="+",
        default=RULES,
        help="with envoy: a set for each of these spec.routing policies, such as Ready+ejection",
    )
    parser.add_argument("--rate", type=float, default=RATE_RPS, help="with envoy: requests/s to each set")
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
    parser.add_argument(
        "--start-up", type=float, help="control seconds until a pod is ready (default: 60, envoy: 4)"
    )
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
    start_up_s = START_UP_S[args.data_plane] if args.start_up is None else args.start_up
    with tempfile.TemporaryDirectory(prefix="rlscaler-twin-") as temporary:
        directory = args.dir or Path(temporary)
        made = _with_envoy if args.data_plane == "envoy" else _simulated
        async with made(args, directory, start_up_s) as twin:
            _explain(twin)
            await _interrupted()


def _simulated(args: argparse.Namespace, directory: Path, start_up_s: float) -> Twin:
    params = ServiceParams(capacity_rps=args.capacity, start_up_s=start_up_s)
    services = [SimulatedService(args.service, _trace(args), params)]
    timing = {"time_scale": args.time_scale, "start_up_s": start_up_s}
    return Twin(directory, services, args.replicas, port=args.port, **timing)


def _with_envoy(args: argparse.Namespace, directory: Path, start_up_s: float) -> EnvoyTwin:
    require(0 < args.rate <= 10_000, "--rate", args.rate, "above 0, at most 10000 requests/s")
    sets = [SetPlan(rule, args.rate, elastic=True) for rule in args.rules]
    find_envoy()
    return EnvoyTwin(directory, sets, start_up_s=start_up_s, port=args.port)


def _trace(args: argparse.Namespace) -> Trace:
    if args.trace is None:
        level = 0.6 * args.replicas * args.capacity
        return Trace(np.array([0.0, 3600.0]), np.array([level, level]), "steady")
    loaded = load_trace(args.trace).scale_to_peak(args.peak_replicas, args.capacity)
    return Trace(loaded.times_s - loaded.times_s[0], loaded.rate_rps, loaded.name)


def _explain(twin: TwinFolder) -> None:
    scale = twin.cluster.time_scale
    print(f"Kubernetes API   {twin.cluster.url}")
    print(f"Prometheus       {twin.prometheus.url}")
    if isinstance(twin, EnvoyTwin):
        for plan in twin.sets:
            print(f"requests         curl -i -H 'Host: {plan.name}' http://127.0.0.1:{twin.envoy.listen}/")
    shown = "httproutes" if isinstance(twin, EnvoyTwin) else "pods"
    print(f"try              kubectl --kubeconfig {twin.kubeconfig} get rls,deployments,{shown}")
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
