"""`web_balancing.py serve-servers`: servers of this machine until Ctrl-C. Apart: it needs no torch and no
numba."""

from __future__ import annotations

import argparse
import sys
import threading

from sim.webbalancing.fleet import Fleet, Wanted
from training.interrupt import StopOnInterrupt


def serve_command(args: argparse.Namespace) -> None:
    """Servers until Ctrl-C."""
    wanted = [
        Wanted(
            f"web-{place + 1}", workers, args.service_ms / 1000, seed=args.seed,
            port=args.port + place if args.port else 0,
        )
        for place, workers in enumerate(args.workers)
    ]  # fmt: skip
    ending = threading.Event()
    with StopOnInterrupt(ending.set):
        fleet = Fleet(wanted, control=args.control)
        try:
            for place, one in enumerate(wanted):
                _say(fleet, place, one)
            print("Ctrl-C stops them", flush=True)
            while not ending.wait(0.5):
                for place in fleet.dead():
                    print(f"{fleet.names[place]} has died; it is started again", file=sys.stderr, flush=True)
                    fleet.restart(place)
                    _say(fleet, place, wanted[place])
        finally:
            fleet.close()


def _say(fleet: Fleet, place: int, one: Wanted) -> None:
    print(
        f"{one.name}  {fleet.addresses[place]}  {one.workers} workers, {1000 * one.service_s:g} ms",
        flush=True,
    )
