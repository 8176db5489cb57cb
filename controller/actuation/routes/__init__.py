"""Route providers by kind: how the traffic weights of pools are written. One module a kind."""

from __future__ import annotations

from controller.actuation.routes.base import Plan, Problem, RouteProvider, WeightChange
from controller.actuation.routes.httproute import HttpRoutes

__all__ = ["HttpRoutes", "Plan", "Problem", "RouteProvider", "WeightChange"]
