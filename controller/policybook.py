"""The policy of each RLScaler: a formula, or an artifact, read anew whenever its RLScaler is prepared
anew.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
import weakref
from dataclasses import dataclass

from controller.api.formula import Formula, to_formula
from controller.api.types import Artifact, ConfigMapArtifact
from controller.core import ForecastPolicy, FormulaPolicy, HpaPolicy, Policy, UnavailablePolicy
from controller.errors import KubernetesError, NotFound
from controller.kube import CONFIG_MAPS, Kube
from controller.policies import ArtifactError, ArtifactInvalid, ArtifactNotFound, load_policy
from controller.registry import Entry
from controller.settings import Settings
from controller.status import PolicyFacts
from controller.trouble import Trouble

SHARED_REAL_S = 2.0


@dataclass(frozen=True)
class Chosen:
    """The policy that decides, and why it is only a stand-in if it is."""

    policy: Policy
    trouble: Trouble | None = None

    @property
    def facts(self) -> PolicyFacts:
        p = self.policy
        return PolicyFacts(p.type, p.name, p.digest, p.schema)


class PolicyBook:
    """Chooses and loads policies; equal formulas and equal artifacts give the same object.

    For artifacts `controller.policies` sees to it.
    """

    def __init__(self, kube: Kube, settings: Settings) -> None:
        self._kube = kube
        self._settings = settings
        self._hpa = HpaPolicy()
        self._forecast = ForecastPolicy()
        self._formulas: weakref.WeakValueDictionary[FormulaPolicy, FormulaPolicy] = (
            weakref.WeakValueDictionary()
        )
        self._loads: dict[tuple[str, str], tuple[float, asyncio.Future[Policy]]] = {}

    async def choose(self, entry: Entry) -> Chosen:
        """The policy of an RLScaler; an artifact that cannot be used gives a stand-in and its reason."""
        assert entry.spec is not None
        if entry.spec.policy.type == "HPA":
            return Chosen(self._hpa)
        if entry.spec.policy.type == "Forecast":
            return Chosen(self._forecast)
        if entry.spec.policy.formula is not None:
            return Chosen(self._formula(entry.spec.policy.formula))
        try:
            return Chosen(await self._shared(entry.namespace, entry.spec.policy.artifact))
        except ArtifactError as error:
            stand_in = UnavailablePolicy(error.reason, str(error))
            return Chosen(stand_in, Trouble(error.reason, str(error)))

    def _formula(self, formula: Formula) -> FormulaPolicy:
        """One object for equal parameters, so that the engine asks it once for all their services."""
        policy = to_formula(formula)
        return self._formulas.setdefault(policy, policy)

    async def _shared(self, namespace: str, artifact: Artifact) -> Policy:
        """One load for all who ask for the same at about the same time: thousands do after a start."""
        key = (namespace if artifact.config_map is not None else "", artifact.model_dump_json())
        until_s, load = self._loads.get(key, (0.0, None))
        if load is None or (load.done() and time.monotonic() > until_s):
            load = asyncio.ensure_future(self._load(namespace, artifact))
            self._loads = {k: kept for k, kept in self._loads.items() if kept[0] > time.monotonic()}
            self._loads[key] = (time.monotonic() + SHARED_REAL_S, load)
        return await asyncio.shield(load)

    async def _load(self, namespace: str, artifact: Artifact) -> Policy:
        data = None
        if artifact.config_map is not None:
            data = await self._config_map(namespace, artifact.config_map)
        return await asyncio.to_thread(load_policy, artifact.dump(), self._settings.policy_dir, data)

    async def _config_map(self, namespace: str, ref: ConfigMapArtifact) -> bytes:
        where = f"ConfigMap {namespace}/{ref.name}"
        try:
            body = await self._kube.get(CONFIG_MAPS, namespace, ref.name)
        except NotFound as error:
            raise ArtifactNotFound(f"{where} not found") from error
        except KubernetesError as error:
            raise ArtifactNotFound(f"{where} cannot be read: {error}") from error
        text = (body.get("binaryData") or {}).get(ref.key)
        if text is None:
            raise ArtifactNotFound(f"{where} has no key {ref.key!r} in binaryData")
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ArtifactInvalid(f"{where}, key {ref.key!r}: not base64: {error}") from error
