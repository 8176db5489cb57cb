"""One table for each kind of route: objects as people write them, and where their weights are.

A new provider needs an entry here; `test_providers` and `test_keeper` do the rest. weights: of the pools'
Services, as the route is written; shared: their sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from controller.actuation.routes import (
    CanaryIngresses,
    GrpcRoutes,
    HttpRoutes,
    RouteProvider,
    TraefikServices,
    VirtualServices,
)

Json = dict[str, Any]
OURS = ("web-od", "web-spot")
_MIRRORING = {"mirroring": {"name": "web-od"}}


@dataclass(frozen=True)
class Table:
    """One kind. body: a route with everything that a writer of weights could spoil."""

    provider: RouteProvider
    path: str
    plural: str
    body: Json
    weights: dict[str, int]
    shared: int
    rule: str | None = None
    unfit: tuple[tuple[Json, str], ...] = ()
    """Bodies that do not fit, with the reason that is given."""


def _meta(kind: str, version: str, spec: Json, **annotations: str) -> Json:
    metadata: Json = {"name": "web", "labels": {"team": "shop"}, "annotations": {"kept.example.com/x": "1"}}
    metadata["annotations"] |= annotations
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _gateway(kind: str, match: Json) -> Json:
    weighed = {
        "name": "main",
        "matches": [match],
        "filters": [
            {
                "type": "RequestHeaderModifier",
                "requestHeaderModifier": {"set": [{"name": "x-kept", "value": "yes"}]},
            },
            {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "web-od", "port": 80}}},
        ],
        "backendRefs": [
            {"name": "web-od", "port": 80, "weight": 50, "filters": [{"type": "ExtensionRef"}]},
            {"name": "foreign", "port": 8080, "weight": 20},
            {"name": "web-spot", "port": 80, "weight": 30},
        ],
    }
    by_header = {
        "name": "testers",
        "matches": [match | {"headers": [{"name": "x-tester", "value": "yes"}]}],
        "backendRefs": [{"name": "web-spot", "port": 80}, {"name": "web-od", "port": 80, "weight": 0}],
    }
    spec = {
        "parentRefs": [{"name": "public"}],
        "hostnames": ["shop.example.com"],
        "rules": [weighed, by_header],
    }
    return _meta(kind, "gateway.networking.k8s.io/v1", spec)


def _without(body: Json, service: str) -> Json:
    rule = {**body["spec"]["rules"][0]}
    rule["backendRefs"] = [ref for ref in rule["backendRefs"] if ref["name"] != service]
    return {**body, "spec": {**body["spec"], "rules": [rule]}}


_HTTP = _gateway("HTTPRoute", {"path": {"type": "PathPrefix", "value": "/"}})
_GRPC = _gateway("GRPCRoute", {"method": {"service": "shop.Cart", "method": "Add"}})

_VIRTUAL = _meta(
    "VirtualService",
    "networking.istio.io/v1",
    {
        "hosts": ["shop.example.com"],
        "gateways": ["istio-system/public"],
        "http": [
            {
                "name": "testers",
                "match": [{"headers": {"x-tester": {"exact": "yes"}}}],
                "route": [{"destination": {"host": "web-spot"}}],
            },
            {
                "name": "main",
                "retries": {"attempts": 3},
                "mirror": {"host": "web-od"},
                "mirrorPercentage": {"value": 1.5},
                "route": [
                    {
                        "destination": {
                            "host": "web-od.{namespace}.svc.cluster.local",
                            "port": {"number": 80},
                        },
                        "weight": 60,
                        "headers": {"request": {"set": {"x-kept": "yes"}}},
                    },
                    {"destination": {"host": "web-spot", "subset": "v2"}, "weight": 20},
                    {"destination": {"host": "web-od.elsewhere"}, "weight": 20},
                ],
            },
        ],
    },
)

_TRAEFIK = _meta(
    "TraefikService",
    "traefik.io/v1alpha1",
    {
        "weighted": {
            "sticky": {"cookie": {"name": "kept"}},
            "services": [
                {"name": "web-spot", "port": 80, "weight": 3, "passHostHeader": False},
                {"name": "web-od", "kind": "TraefikService", "weight": 4},
                {"name": "web-od", "kind": "Service", "port": 80},
            ],
        }
    },
)

_INGRESS_SPEC: Json = {
    "ingressClassName": "nginx",
    "rules": [
        {
            "host": "shop.example.com",
            "http": {
                "paths": [
                    {
                        "path": "/",
                        "pathType": "Prefix",
                        "backend": {"service": {"name": "web-spot", "port": {"number": 80}}},
                    }
                ]
            },
        }
    ],
}
_NGINX = "nginx.ingress.kubernetes.io/"
_INGRESS = _meta(
    "Ingress",
    "networking.k8s.io/v1",
    _INGRESS_SPEC,
    **{
        _NGINX + "canary": "true",
        _NGINX + "canary-weight": "25",
        _NGINX + "canary-by-header": "x-tester",
    },
)


def _ingress(**annotations: str) -> Json:
    return _meta("Ingress", "networking.k8s.io/v1", _INGRESS_SPEC, **annotations)


TABLES = (
    Table(
        HttpRoutes(),
        "/apis/gateway.networking.k8s.io/v1",
        "httproutes",
        _HTTP,
        {"web-od": 50, "web-spot": 30},
        80,
        "main",
        ((_without(_HTTP, "web-spot"), "BackendNotInRoute"),),
    ),
    Table(
        GrpcRoutes(),
        "/apis/gateway.networking.k8s.io/v1",
        "grpcroutes",
        _GRPC,
        {"web-od": 50, "web-spot": 30},
        80,
        "main",
        ((_without(_GRPC, "web-od"), "BackendNotInRoute"),),
    ),
    Table(
        VirtualServices(),
        "/apis/networking.istio.io/v1",
        "virtualservices",
        _VIRTUAL,
        {"web-od": 60, "web-spot": 20},
        80,
        "main",
    ),
    Table(
        TraefikServices(),
        "/apis/traefik.io/v1alpha1",
        "traefikservices",
        _TRAEFIK,
        {"web-od": 1, "web-spot": 3},
        4,
        None,
        (
            (
                _meta("TraefikService", "traefik.io/v1alpha1", {"mirroring": {"name": "web-od"}}),
                "BackendNotInRoute",
            ),
        ),
    ),
    Table(
        CanaryIngresses(),
        "/apis/networking.k8s.io/v1",
        "ingresses",
        _INGRESS,
        {"web-od": 75, "web-spot": 25},
        100,
        None,
        (
            (_ingress(), "RouteNotWeighted"),
            (_ingress(**{_NGINX + "canary": "true", _NGINX + "canary-weight": "a lot"}), "RouteNotWeighted"),
        ),
    ),
)
