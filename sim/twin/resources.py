"""What the twin serves: the built-in resources that operators, kubectl and Helm charts touch, and CRDs' own.

`BUILTIN` is the catalogue; `from_crd` turns an applied CustomResourceDefinition into more of the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sim.twin.errors import Json
from sim.twin.schema import StructuralSchema

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class ScalePaths:
    """Where a resource keeps what its scale subresource shows; dotted paths."""

    spec_replicas: str = "spec.replicas"
    status_replicas: str = "status.replicas"
    label_selector: str | None = None  # None: a LabelSelector object at spec.selector


@dataclass(frozen=True)
class ResourceType:
    """One served resource at one version."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    has_status: bool = False
    scale: ScalePaths | None = None
    schema: StructuralSchema | None = None
    columns: tuple[Json, ...] = ()  # additionalPrinterColumns
    custom: bool = False
    verbs: tuple[str, ...] = VERBS
    singular: str = field(default="")

    @property
    def key(self) -> tuple[str, str]:
        return self.group, self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular_name(self) -> str:
        return self.singular or self.kind.lower()

    def header(self) -> Json:
        return {"apiVersion": self.api_version, "kind": self.kind}


def _any_object(**properties: Any) -> Json:
    return {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": properties}


# The fields of the Gateway API's own CRD that a weight writer can get wrong, with its defaults.
_BACKEND = _any_object(
    group={"type": "string", "default": ""},
    kind={"type": "string", "default": "Service"},
    name={"type": "string", "minLength": 1, "maxLength": 253},
    port={"type": "integer", "minimum": 1, "maximum": 65535},
    weight={"type": "integer", "minimum": 0, "maximum": 1_000_000, "default": 1},
)
_BACKEND["required"] = ["name"]
_RULE = _any_object(backendRefs={"type": "array", "items": _BACKEND, "maxItems": 16})
_ROUTE = _any_object(spec=_any_object(rules={"type": "array", "items": _RULE, "maxItems": 16}))
_ROUTE_COLUMNS = (
    {"name": "Hostnames", "type": "string", "jsonPath": ".spec.hostnames"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)
_GATEWAY_COLUMNS = (
    {"name": "Class", "type": "string", "jsonPath": ".spec.gatewayClassName"},
    {"name": "Address", "type": "string", "jsonPath": ".status.addresses[*].value"},
    {
        "name": "Programmed",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Programmed")].status',
    },
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)


_GATEWAY = "gateway.networking.k8s.io"


def _core(plural: str, kind: str, *short: str, **more: Any) -> ResourceType:
    return ResourceType("", "v1", plural, kind, short_names=short, **more)


def _apps(plural: str, kind: str, short: str) -> ResourceType:
    return ResourceType(
        "apps", "v1", plural, kind, True, (short,), ("all",), has_status=True, scale=ScalePaths()
    )


def _gateway_route(plural: str, kind: str) -> ResourceType:
    return ResourceType(
        _GATEWAY,
        "v1",
        plural,
        kind,
        True,
        (),
        ("gateway-api",),
        has_status=True,
        schema=StructuralSchema(_ROUTE),
        columns=_ROUTE_COLUMNS,
        custom=True,
    )


def _rbac(plural: str, kind: str, namespaced: bool) -> ResourceType:
    return ResourceType("rbac.authorization.k8s.io", "v1", plural, kind, namespaced)


_ALL = ("all",)
BUILTIN: tuple[ResourceType, ...] = (
    _core("namespaces", "Namespace", "ns", namespaced=False, has_status=True),
    _core("nodes", "Node", "no", namespaced=False, has_status=True),
    _core("pods", "Pod", "po", categories=_ALL, has_status=True),
    _core("services", "Service", "svc", categories=_ALL, has_status=True),
    _core("configmaps", "ConfigMap", "cm"),
    _core("secrets", "Secret"),
    _core("serviceaccounts", "ServiceAccount", "sa"),
    _core("events", "Event", "ev"),
    _core("endpoints", "Endpoints", "ep", singular="endpoints"),
    _core("persistentvolumeclaims", "PersistentVolumeClaim", "pvc", has_status=True),
    ResourceType("events.k8s.io", "v1", "events", "Event", short_names=("ev",)),
    ResourceType("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    _apps("deployments", "Deployment", "deploy"),
    _apps("statefulsets", "StatefulSet", "sts"),
    _apps("replicasets", "ReplicaSet", "rs"),
    ResourceType("apps", "v1", "daemonsets", "DaemonSet", True, ("ds",), _ALL, has_status=True),
    ResourceType("batch", "v1", "jobs", "Job", categories=_ALL, has_status=True),
    ResourceType("batch", "v1", "cronjobs", "CronJob", True, ("cj",), _ALL, has_status=True),
    ResourceType(
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        True,
        ("hpa",),
        _ALL,
        has_status=True,
    ),
    ResourceType("coordination.k8s.io", "v1", "leases", "Lease"),
    ResourceType("networking.k8s.io", "v1", "ingresses", "Ingress", True, ("ing",), has_status=True),
    ResourceType("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, ("netpol",)),
    ResourceType(
        "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), has_status=True
    ),
    _rbac("roles", "Role", True),
    _rbac("rolebindings", "RoleBinding", True),
    _rbac("clusterroles", "ClusterRole", False),
    _rbac("clusterrolebindings", "ClusterRoleBinding", False),
    ResourceType(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        False,
        ("crd", "crds"),
        ("api-extensions",),
        has_status=True,
    ),
    _gateway_route("httproutes", "HTTPRoute"),
    _gateway_route("grpcroutes", "GRPCRoute"),
    # kinds of meshes and proxies that hold weights; nobody reports on them here
    ResourceType(
        "networking.istio.io", "v1", "virtualservices", "VirtualService", True, ("vs",), custom=True
    ),
    ResourceType("traefik.io", "v1alpha1", "traefikservices", "TraefikService", True, custom=True),
    ResourceType(
        _GATEWAY,
        "v1",
        "gateways",
        "Gateway",
        True,
        ("gtw",),
        ("gateway-api",),
        has_status=True,
        columns=_GATEWAY_COLUMNS,
        custom=True,
    ),
    ResourceType(
        _GATEWAY, "v1", "gatewayclasses", "GatewayClass", False, ("gc",), ("gateway-api",), has_status=True
    ),
)
# Requests that are answered, not stored: POST only.
REVIEWS = (
    ResourceType("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False),
    ResourceType("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", False),
)


def from_crd(crd: Json) -> list[ResourceType]:
    """The resources that a CRD brings, one for each served version.

    Raises:
        ValueError: a version's schema isn't structural or a CEL rule doesn't compile.
    """
    return [_version(crd["spec"], v) for v in crd["spec"]["versions"] if v.get("served", True)]


def _version(spec: Json, version: Json) -> ResourceType:
    names, sub = spec["names"], version.get("subresources") or {}
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    age = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    return ResourceType(
        spec["group"],
        version["name"],
        names["plural"],
        names["kind"],
        namespaced=spec.get("scope") == "Namespaced",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        has_status="status" in sub,
        scale=_scale_paths(sub["scale"]) if "scale" in sub else None,
        schema=StructuralSchema(schema) if schema else None,
        columns=tuple(version.get("additionalPrinterColumns") or (age,)),
        custom=True,
        singular=names.get("singular", ""),
    )


def _scale_paths(scale: Json) -> ScalePaths:
    selector = scale.get("labelSelectorPath")
    return ScalePaths(
        scale["specReplicasPath"].lstrip("."),
        scale["statusReplicasPath"].lstrip("."),
        selector.lstrip(".") if selector else "",
    )
