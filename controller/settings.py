"""The operator's settings: one dataclass, filled from environment variables and then from flags.

A flag `--time-scale` and a variable RLSCALER_TIME_SCALE set the field `time_scale`; the flag wins. The help
text of the flag is the docstring under the field, so that there is one place to read.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import inspect
import math
import os
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from controller.errors import SettingsError
from controller.selector import parse_selector

ENV_PREFIX = "RLSCALER_"


def _text(name: str, value: str) -> str:
    return value.strip()


def _address(name: str, value: str) -> str:
    if not value:
        return ""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(name, value, "an http:// or https:// address, such as http://prometheus:9090")
    return value.rstrip("/")


def _names(name: str, value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _hosts(name: str, value: str) -> tuple[str, ...]:
    hosts = tuple(host.lower().rstrip(".") for host in _names(name, value))
    for host in hosts:
        if not re.fullmatch("[a-z0-9]([-a-z0-9.]*[a-z0-9])?", host):
            raise SettingsError(name, value, "host names, such as models.example.com,registry.example.com")
    return hosts


def _selector(name: str, value: str) -> str:
    try:
        parse_selector(value)
    except ValueError as error:
        raise SettingsError(name, value, f"a label selector, such as shard=a ({error})") from error
    return value.strip()


def _switch(name: str, value: str) -> bool:
    found = {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower())
    if found is None:
        raise SettingsError(name, value, "true or false")
    return found


def _listen(name: str, value: str) -> str:
    host, _, port = value.rpartition(":")
    if not port.isdigit() or not 0 <= int(port) <= 65535 or not host:
        raise SettingsError(name, value, "host:port, such as 0.0.0.0:8080")
    return value


def _choice(*allowed: str) -> Callable[[str, str], str]:
    def parse(name: str, value: str) -> str:
        found = {choice.lower(): choice for choice in allowed}.get(value.strip().lower())
        if found is None:
            raise SettingsError(name, value, "one of " + ", ".join(allowed))
        return found

    return parse


def _number(low: float, high: float, unit: str = "") -> Callable[[str, str], float]:
    def parse(name: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise SettingsError(name, value, f"a number from {low:g} to {high:g}{unit}")
        return number

    return parse


def _whole(low: int, high: int) -> Callable[[str, str], int]:
    def parse(name: str, value: str) -> int:
        if not value.strip().isdigit() or not low <= int(value) <= high:
            raise SettingsError(name, value, f"a whole number from {low} to {high}")
        return int(value)

    return parse


def _setting(default: Any, parse: Callable[[str, str], Any]) -> Any:
    return dataclasses.field(default=default, metadata={"parse": parse})


@dataclass(frozen=True)
class Settings:
    """What the operator process is told at start; an RLScaler's own spec wins where both speak."""

    kubeconfig: str = _setting("", _text)
    """Path of a kubeconfig. Empty: the pod's ServiceAccount, else $KUBECONFIG or ~/.kube/config."""

    namespaces: tuple[str, ...] = _setting((), _names)
    """Namespaces to serve, separated by commas. Empty: all of them."""

    shard: str = _setting("", _selector)
    """Label selector of the RLScalers to serve, such as "shard=a" or "team in (web, shop)". Empty: all."""

    leader_election: bool = _setting(False, _switch)
    """Whether to lead by a Lease: of several operators with equal namespaces and shard, one decides."""

    lease_namespace: str = _setting("", _text)
    """Namespace of the Lease. Empty: the pod's own, else "default"."""

    prometheus_address: str = _setting("", _address)
    """Prometheus for RLScalers that name none in spec.metrics.prometheus, such as http://prometheus:9090."""

    prometheus_timeout: float = _setting(3.0, _number(0.05, 60, " seconds"))
    """Seconds that one Prometheus query may take before it counts as slow."""

    metrics_workers: int = _setting(16, _whole(1, 256))
    """Threads that query one Prometheus at the same time."""

    api_concurrency: int = _setting(32, _whole(1, 512))
    """Requests to the Kubernetes API under way at the same time."""

    api_timeout: float = _setting(10.0, _number(0.1, 120, " seconds"))
    """Seconds that one request to the Kubernetes API may take."""

    route_kinds: tuple[str, ...] = _setting(("HTTPRoute", "GRPCRoute"), _names)
    """Kinds of routes that are looked through at start for weights which deleted RLScalers have left behind,
    separated by commas; all kinds can be weighed, if its role allows it."""

    watch_targets_from: int = _setting(50, _whole(1, 1_000_000))
    """Targets of one kind (Deployments, say) from which on they are watched instead of read in every turn.
    Watching needs the verbs list and watch; without them targets are read one by one."""

    http_address: str = _setting("0.0.0.0:8080", _listen)
    """host:port for /healthz, /readyz, /metrics and /v1/decisions. Port 0 picks a free one."""

    policy_dir: str = _setting("/etc/rl-scaler/policies", _text)
    """Directory that relative artifact files (spec.policy.artifact.file) are read from."""

    artifact_cache_dir: str = _setting("", _text)
    """Writable directory that keeps policy artifacts by their digest, for the next start. Empty: none."""

    artifact_hosts: tuple[str, ...] = _setting((), _hosts)
    """Host names that spec.policy.artifact.url may name, separated by commas. Empty: any."""

    allow_http_artifacts: bool = _setting(False, _switch)
    """Whether artifacts may come by http:// from elsewhere than the operator's own machine."""

    log_level: str = _setting("info", _choice("debug", "info", "warning", "error"))
    """debug, info, warning or error. Decisions that change nothing are logged at debug."""

    log_format: str = _setting("json", _choice("json", "text"))
    """json (one object a line) or text."""

    time_scale: float = _setting(1.0, _number(0.01, 1000))
    """Rehearsals only: one real second counts as this many seconds of control time."""

    resync_seconds: float = _setting(300.0, _number(1, 86400, " seconds"))
    """Seconds between full lists of RLScalers and HPAs, which catch what a broken watch has missed."""

    @classmethod
    def load(cls, flags: Mapping[str, str | None], env: Mapping[str, str] = os.environ) -> Settings:
        """Settings from flags (by field name) over environment variables over defaults.

        Raises SettingsError that names the flag or the variable.
        """
        given: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            flag, variable = flags.get(field.name), ENV_PREFIX + field.name.upper()
            if flag is not None:
                given[field.name] = field.metadata["parse"](flag_name(field.name), flag)
            elif env.get(variable, "") != "":
                given[field.name] = field.metadata["parse"](variable, env[variable])
        return cls(**given)


def flag_name(field: str) -> str:
    return "--" + field.replace("_", "-")


@functools.cache
def descriptions() -> dict[str, str]:
    """Field name -> the docstring under it."""
    body = ast.parse(textwrap.dedent(inspect.getsource(Settings))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, doc in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(doc, ast.Expr)
            and isinstance(doc.value, ast.Constant)
        ):
            found[ast.unparse(field.target)] = str(doc.value.value)
    return found


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One optional flag a field; values stay strings until `Settings.load` checks them."""
    for field in dataclasses.fields(Settings):
        default = ",".join(field.default) if isinstance(field.default, tuple) else str(field.default)
        text = (
            f"{descriptions()[field.name]} [{ENV_PREFIX}{field.name.upper()}, default: {default or 'none'}]"
        )
        parser.add_argument(
            flag_name(field.name), dest=field.name, metavar="VALUE", help=text.replace("%", "%%")
        )
