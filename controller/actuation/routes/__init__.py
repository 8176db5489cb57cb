"""Route providers by kind: how the traffic weights of pools are written. One module a kind."""

from __future__ import annotations

from controller.actuation.routes.base import Plan, RouteProvider, WeightChange
from controller.actuation.routes.httproute import HttpRoutes

__all__ = ["HttpRoutes", "Plan", "RouteProvider", "WeightChange"]
