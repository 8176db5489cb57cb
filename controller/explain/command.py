"""`rl-scaler explain NAME`: asks the operator, or reads the RLScaler itself where no operator answers."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any
from urllib.parse import quote

import requests

from controller.errors import KubernetesError, NotFound, RlScalerError, SettingsError
from controller.explain.source import from_object
from controller.explain.words import as_text
from controller.kube import RLSCALERS, Kube

Json = dict[str, Any]

TIMEOUT_S = 5.0


def run(args: argparse.Namespace) -> int:
    """Print the explanation. Raises RlScalerError where neither the operator nor the API server has one."""
    namespace = args.namespace or current_namespace(args.kubeconfig)
    found = find(args.server, args.kubeconfig, namespace, args.name)
    text = json.dumps(found, indent=2) + "\n" if args.output == "json" else as_text(found)
    sys.stdout.write(text)
    return 0


def find(server: str, kubeconfig: str, namespace: str, name: str) -> Json:
    """The explanation from the operator, else from the RLScaler's status."""
    try:
        return ask(server, namespace, name)
    except RlScalerError as error:
        reason = str(error)
    try:
        body = asyncio.run(_read(kubeconfig, namespace, name))
    except NotFound as error:
        message = f"there is no RLScaler {name!r} in namespace {namespace!r}"
        raise RlScalerError(f"{message} ({error})") from error
    except (KubernetesError, SettingsError) as error:
        raise RlScalerError(f"{reason}; and the RLScaler itself cannot be read: {error}") from error
    return from_object(body, time.time(), reason)


def ask(server: str, namespace: str, name: str) -> Json:
    """What the operator says. Raises RlScalerError when it cannot be reached or does not serve the object."""
    url = f"{server.rstrip('/')}/v1/explain/{quote(namespace, safe='')}/{quote(name, safe='')}"
    try:
        response = requests.get(url, timeout=TIMEOUT_S)
        found = response.json()
    except requests.exceptions.JSONDecodeError as error:
        raise RlScalerError(f"what answers at {server} is no rl-scaler operator") from error
    except requests.exceptions.RequestException as error:
        raise RlScalerError(f"the operator cannot be reached at {server} ({type(error).__name__})") from error
    if isinstance(found, dict) and "decision" in found:
        return found
    detail = found.get("detail") if isinstance(found, dict) else None
    raise RlScalerError(f"the operator at {server} says {response.status_code}: {detail or 'nothing more'}")


async def _read(kubeconfig: str, namespace: str, name: str) -> Json:
    kube = await Kube.connect(kubeconfig, TIMEOUT_S)
    try:
        return await kube.get(RLSCALERS, namespace, name)
    finally:
        await kube.close()


def current_namespace(kubeconfig: str) -> str:
    """The namespace of the kubeconfig's current context; `default` without one."""
    from kubernetes.config import list_kube_config_contexts

    try:
        _, active = list_kube_config_contexts(  # type: ignore[no-untyped-call]
            config_file=kubeconfig or None
        )
    except Exception:  # whatever is wrong with the file is said once it is needed
        return "default"
    return str(active["context"].get("namespace") or "default")
