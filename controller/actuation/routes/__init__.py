"""Routes by kind: how the traffic weights of pools are written. One module a kind; docs/routes.md tells how
to add one.
"""

from __future__ import annotations

from controller.actuation.routes.base import Group, Plan, RouteProvider, Slot, WeightChange, plan_weights
from controller.actuation.routes.grpcroute import GrpcRoutes
from controller.actuation.routes.httproute import HttpRoutes
from controller.actuation.routes.ingress import CanaryIngresses
from controller.actuation.routes.traefikservice import TraefikServices
from controller.actuation.routes.virtualservice import VirtualServices

PROVIDERS: tuple[RouteProvider, ...] = (
    HttpRoutes(),
    GrpcRoutes(),
    VirtualServices(),
    TraefikServices(),
    CanaryIngresses(),
)

__all__ = [
    "PROVIDERS",
    "CanaryIngresses",
    "Group",
    "GrpcRoutes",
    "HttpRoutes",
    "Plan",
    "RouteProvider",
    "Slot",
    "TraefikServices",
    "VirtualServices",
    "WeightChange",
    "plan_weights",
]
