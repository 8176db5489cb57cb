"""The operator's HTTP side: health, telemetry and recent decisions, served from the loop's own process."""

from __future__ import annotations

from controller.server.app import create_app
from controller.server.probe import Probe
from controller.server.serve import HttpServer

__all__ = ["HttpServer", "Probe", "create_app"]
