"""Known traffic in the exposition format: counters rise linearly with real time, so that rates are known."""

from __future__ import annotations

import time
from dataclasses import dataclass

START_S = time.time() - 1000.0

RATE = 120.0
ERROR_SHARE = 0.05
IN_FLIGHT = 7
CPU_CORES_USED, CPU_CORES_ASKED = 1.2, 2.0

ENVOY_BUCKETS_MS = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000)
P95_MS = 97.5
"""The traffic's latency is uniform between 50 and 100 ms."""


@dataclass(frozen=True)
class Traffic:
    """rate: requests/s; errors: whether a 5xx series exists at all."""

    rate: float = RATE
    errors: bool = True


def _requests(traffic: Traffic) -> float:
    return traffic.rate * (time.time() - START_S)


def _histogram(name: str, labels: str, traffic: Traffic, unit: float) -> list[str]:
    total = _requests(traffic)
    lines = []
    for edge in ENVOY_BUCKETS_MS:
        share = min(max((edge - 50.0) / 50.0, 0.0), 1.0)
        lines.append(f'{name}_bucket{{{labels},le="{edge * unit:g}"}} {share * total}')
    return [*lines, f'{name}_bucket{{{labels},le="+Inf"}} {total}', f"{name}_count{{{labels}}} {total}"]


def envoy(service: str, traffic: Traffic = Traffic()) -> list[str]:
    labels = f'envoy_cluster_name="{service}"'
    total = _requests(traffic)
    fine = total * (1 - ERROR_SHARE) if traffic.errors else total
    lines = [
        f"envoy_cluster_upstream_rq_total{{{labels}}} {total}",
        f'envoy_cluster_upstream_rq_xx{{{labels},envoy_response_code_class="2"}} {fine}',
        f"envoy_cluster_upstream_rq_active{{{labels}}} {IN_FLIGHT}",
        *_histogram("envoy_cluster_upstream_rq_time", labels, traffic, 1.0),
    ]
    if traffic.errors:
        errors = ERROR_SHARE * total
        lines.append(f'envoy_cluster_upstream_rq_xx{{{labels},envoy_response_code_class="5"}} {errors}')
    return lines


def istio(namespace: str, service: str, traffic: Traffic = Traffic()) -> list[str]:
    """Reported by both ends, as in a mesh: counting both would double the rate."""
    lines = []
    for reporter in ("source", "destination"):
        labels = (
            f'reporter="{reporter}",destination_service_namespace="{namespace}",'
            f'destination_service_name="{service}",destination_workload="{service}-v1"'
        )
        lines += _by_status("istio_requests_total", labels, "response_code", traffic)
        lines += _histogram("istio_request_duration_milliseconds", labels, traffic, 1.0)
    return lines


def ingress_nginx(namespace: str, service: str, traffic: Traffic = Traffic()) -> list[str]:
    labels = f'namespace="{namespace}",service="{service}",ingress="main"'
    lines = _by_status("nginx_ingress_controller_requests", labels, "status", traffic)
    return lines + _histogram("nginx_ingress_controller_request_duration_seconds", labels, traffic, 1e-3)


def _by_status(name: str, labels: str, status: str, traffic: Traffic) -> list[str]:
    total = _requests(traffic)
    if not traffic.errors:
        return [f'{name}{{{labels},{status}="200"}} {total}']
    errors = ERROR_SHARE * total
    return [
        f'{name}{{{labels},{status}="200"}} {total - errors}',
        f'{name}{{{labels},{status}="503"}} {errors}',
    ]


def kubelet(namespace: str, pods: list[str]) -> list[str]:
    """cAdvisor's and kube-state-metrics' series of `pods`, sharing the cores evenly, with the pods' own."""
    used = CPU_CORES_USED / len(pods) * (time.time() - START_S)
    lines = []
    for pod in pods:
        labels = f'namespace="{namespace}",pod="{pod}"'
        lines.append(f'container_cpu_usage_seconds_total{{{labels},container="app"}} {used}')
        lines.append(f'container_cpu_usage_seconds_total{{{labels},container=""}} {used}')
        asked = f'{labels},container="app",resource='
        lines.append(f'kube_pod_container_resource_requests{{{asked}"cpu"}} {CPU_CORES_ASKED / len(pods)}')
        lines.append(f'kube_pod_container_resource_requests{{{asked}"memory"}} 1e9')
    return lines


def odd() -> list[str]:
    """Series that each spoil a reading in their own way."""
    now_ms = int(time.time() * 1000)
    late_ms = now_ms - 30_000
    return [
        'odd_several{zone="a"} 1',
        'odd_several{zone="b"} 2',
        "odd_nan NaN",
        "odd_infinite +Inf",
        "odd_negative -3",
        "odd_zero_total 0",
        "odd_gauge 42",
        f"odd_late_total {late_ms / 1000 - START_S} {late_ms}",
    ]


ODD_NAMES = ("outbound|80||web.shop.svc", "we.b", "a+b", 'qu"ote', "back\\slash")
"""Names of services that a regular expression or a PromQL string might take for something else."""


def crowd() -> list[str]:
    """More Envoy clusters: odd names, and one for each way in which a reading may be spoilt."""
    now_ms = int(time.time() * 1000)
    lines = []
    for number, name in enumerate(ODD_NAMES):
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        lines += envoy(escaped, Traffic(rate=10.0 * (number + 1), errors=number % 2 == 0))
    late_s = now_ms / 1000 - 2.4
    lines += [
        'envoy_cluster_upstream_rq_active{envoy_cluster_name="nan"} NaN',
        'envoy_cluster_upstream_rq_active{envoy_cluster_name="infinite"} +Inf',
        'envoy_cluster_upstream_rq_active{envoy_cluster_name="negative"} -3',
        'envoy_cluster_upstream_rq_active{envoy_cluster_name="twice",zone="a"} 2',
        'envoy_cluster_upstream_rq_active{envoy_cluster_name="twice",zone="b"} 3',
        f'envoy_cluster_upstream_rq_total{{envoy_cluster_name="late"}} {late_s - START_S} {now_ms - 2400}',
    ]
    return lines


def pools() -> list[str]:
    """Pods of a Deployment, of a StatefulSet and of a bare ReplicaSet; one pod is not ready."""
    lines = kubelet("shop", ["od-7c9d8f6b5d-aaaaa", "od-7c9d8f6b5d-bbbbb"])
    lines += kubelet("shop", ["spot-0", "spot-1"])
    lines += kubelet("shop", ["od-spot-aaaaa"])
    ready = 'kube_pod_status_ready{namespace="shop",condition="true",pod='
    return [*lines, f'{ready}"od-7c9d8f6b5d-aaaaa"}} 1', f'{ready}"od-7c9d8f6b5d-bbbbb"}} 0']
