"""Gateway API GRPCRoutes."""

from __future__ import annotations

from controller.actuation.routes.gateway import GROUP, GatewayRoutes


class GrpcRoutes(GatewayRoutes):
    """The RouteProvider of kind GRPCRoute."""

    kind = "GRPCRoute"
    api_versions = (f"{GROUP}/v1",)
