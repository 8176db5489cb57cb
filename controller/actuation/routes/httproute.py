"""Gateway API HTTPRoutes."""

from __future__ import annotations

from controller.actuation.routes.gateway import GROUP, GatewayRoutes


class HttpRoutes(GatewayRoutes):
    """The RouteProvider of kind HTTPRoute."""

    kind = "HTTPRoute"
    api_versions = (f"{GROUP}/v1", f"{GROUP}/v1beta1")
