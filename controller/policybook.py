"""The policy of each RLScaler: a formula, or an artifact, read anew whenever its RLScaler is prepared anew.

An artifact that can no longer be used does not take the policy away that was loaded from the same place
before: that one goes on deciding, and the RLScaler says so. Only an RLScaler that has none yet, or whose spec
names another artifact, gets a stand-in that leaves the decision to spec.fallback.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
import weakref
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property

from controller.api.artifact import Artifact, ConfigMapArtifact
from controller.api.constants import Reason
from controller.api.formula import Formula, to_formula
from controller.core import ForecastPolicy, FormulaPolicy, HpaPolicy, Policy, UnavailablePolicy
from controller.downloads import Downloads
from controller.errors import KubernetesError, NotFound
from controller.kube import CONFIG_MAPS, Kube
from controller.policies import (
    ArtifactDownloading,
    ArtifactError,
    ArtifactInvalid,
    ArtifactNotFound,
    ArtifactPolicy,
    DiskCache,
    PoolsPolicy,
    Rules,
    artifact_bytes,
    limit_memory,
    loaded_policy,
    policy_from_bytes,
)
from controller.registry import Entry
from controller.settings import Settings
from controller.sources import ABSENT, Source, Sources, file_version
from controller.status import PolicyFacts
from controller.trouble import Trouble

SHARED_REAL_S = 2.0


@dataclass(frozen=True)
class Chosen:
    """A policy, and where it comes from.

    trouble: why it is only a stand-in. note: what its users should know although it decides. reference: what
    it was asked for by. source, serial: what it was loaded from, and which version of it.
    """

    policy: Policy
    trouble: Trouble | None = None
    note: Trouble | None = None
    reference: Hashable = None
    source: Source | None = None
    serial: int = 0

    @cached_property
    def facts(self) -> PolicyFacts:
        p = self.policy
        return PolicyFacts(p.type, p.name, p.digest, p.schema)

    @property
    def fresh(self) -> bool:
        """Whether its ConfigMap or file is still what was read."""
        return self.source is None or self.source.serial == self.serial

    @property
    def awaited(self) -> bool:
        """Whether it, or what is to follow it, is on its way."""
        return any(
            told is not None and told.reason == Reason.ARTIFACT_DOWNLOADING
            for told in (self.trouble, self.note)
        )


def _for_one_service(chosen: Chosen, why: str) -> Chosen:
    """The same, or what is wrong with a policy for pools where one for a service is wanted."""
    if not isinstance(chosen.policy, PoolsPolicy):
        return chosen
    trouble = Trouble(Reason.POLICY_NEEDS_POOLS, f"{chosen.policy.name} decides for pools; {why}")
    stand_in = UnavailablePolicy(trouble.reason, trouble.message)
    return replace(chosen, policy=stand_in, trouble=trouble, note=None)


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
        limit_memory()
        self._loads: dict[Hashable, tuple[float, asyncio.Future[ArtifactPolicy]]] = {}
        self._cache = DiskCache(settings.artifact_cache_dir)
        rules = Rules(settings.allow_http_artifacts, settings.artifact_hosts)
        self._downloads = Downloads(rules, self._cache)
        self.sources = Sources(kube, settings.policy_dir)

    async def choose(self, entry: Entry, before: Chosen | None = None, digest: str = "") -> Chosen:
        """The policy that an RLScaler's spec names, see `artifact`."""
        assert entry.spec is not None
        policy = entry.spec.policy
        if policy.type == "HPA":
            return Chosen(self._hpa)
        if policy.type == "Forecast":
            return Chosen(self._forecast)
        if policy.formula is not None:
            return Chosen(self._formula(policy.formula))
        chosen = await self.artifact(entry.namespace, policy.artifact, before, digest)
        return chosen if entry.spec.backends else _for_one_service(chosen, "it needs spec.backends")

    async def candidate(
        self, namespace: str, artifact: Artifact, before: Chosen | None = None, digest: str = ""
    ) -> Chosen:
        """The policy of a canary's artifact, see `artifact`; one for pools cannot be scored."""
        chosen = await self.artifact(namespace, artifact, before, digest)
        return _for_one_service(chosen, "a canary is scored by the replicas of one service")

    async def artifact(
        self, namespace: str, artifact: Artifact, before: Chosen | None = None, digest: str = ""
    ) -> Chosen:
        """The policy of an artifact; one that cannot be used gives what was there before, or a stand-in.

        before: what the RLScaler had so far. digest: of what an earlier operator had loaded by the same
        reference.
        """
        source = self.sources.of(namespace, artifact)
        serial = source.serial if source is not None else 0
        reference = (namespace if artifact.config_map is not None else "", artifact.model_dump_json())
        try:
            policy = await self._shared((reference, serial), namespace, artifact, source)
            policy.limit_time()
            return Chosen(policy, None, None, reference, source, serial)
        except ArtifactDownloading as error:
            trouble = Trouble(error.reason, str(error), unknown=True)
            if before is not None and before.trouble is None:
                return Chosen(before.policy, None, trouble, reference)
        except ArtifactError as error:
            trouble = Trouble(error.reason, str(error))
            kept = await self._kept(reference, before, digest)
            if kept is not None:
                note = Trouble(Reason.RELOAD_FAILED, f"{error.reason}: {error}")
                return Chosen(kept, None, note, reference, source, serial)
        stand_in = UnavailablePolicy(trouble.reason, trouble.message)
        return Chosen(stand_in, trouble, None, reference, source, serial)

    def close(self) -> None:
        """Begin no more downloads."""
        self._downloads.close()

    def _formula(self, formula: Formula) -> FormulaPolicy:
        """One object for equal parameters, so that the engine asks it once for all their services."""
        policy = to_formula(formula)
        return self._formulas.setdefault(policy, policy)

    async def _kept(self, reference: Hashable, before: Chosen | None, digest: str) -> Policy | None:
        """What was loaded by the same reference before, by this operator or by the one before it."""
        if before is not None:
            same = before.reference == reference and before.trouble is None
            return before.policy if same else None
        return await asyncio.to_thread(self._by_digest, digest) if digest else None

    def _by_digest(self, digest: str) -> ArtifactPolicy | None:
        held = loaded_policy(digest)
        if held is not None:
            return held
        data = self._cache.get(digest)
        try:
            policy = policy_from_bytes(data) if data is not None else None
        except ArtifactError:
            return None
        if policy is not None:
            policy.limit_time()
        return policy

    async def _shared(
        self, key: Hashable, namespace: str, artifact: Artifact, source: Source | None
    ) -> ArtifactPolicy:
        """One load for all who ask for the same at about the same time: thousands do after a start."""
        until_s, load = self._loads.get(key, (0.0, None))
        if load is None or (load.done() and time.monotonic() > until_s):
            load = asyncio.ensure_future(self._load(namespace, artifact, source))
            self._loads = {k: kept for k, kept in self._loads.items() if kept[0] > time.monotonic()}
            self._loads[key] = (time.monotonic() + SHARED_REAL_S, load)
        return await asyncio.shield(load)

    async def _load(self, namespace: str, artifact: Artifact, source: Source | None) -> ArtifactPolicy:
        if artifact.url is not None:
            return await self._downloads.policy(artifact.url, artifact.sha256 or "")
        data = None
        if artifact.config_map is not None:
            data = await self._config_map(namespace, artifact.config_map, source)
        return await asyncio.to_thread(self._read, artifact, source, data)

    def _read(self, artifact: Artifact, source: Source | None, data: bytes | None) -> ArtifactPolicy:
        """Load, and keep the bytes of what may change, in case that its next version is bad."""
        if artifact.file is not None and source is not None:
            source.saw(file_version(self._settings.policy_dir, artifact.file))
        found = artifact_bytes(artifact.dump(), self._settings.policy_dir, data)
        policy = policy_from_bytes(found, artifact.sha256)
        if artifact.builtin is None:
            self._cache.put(found)
        return policy

    async def _config_map(self, namespace: str, ref: ConfigMapArtifact, source: Source | None) -> bytes:
        where = f"ConfigMap {namespace}/{ref.name}"
        try:
            body = await self._kube.get(CONFIG_MAPS, namespace, ref.name)
        except NotFound as error:
            if source is not None:
                source.saw(ABSENT)
            raise ArtifactNotFound(f"{where} not found") from error
        except KubernetesError as error:
            raise ArtifactNotFound(f"{where} cannot be read: {error}") from error
        if source is not None:
            source.saw(str((body.get("metadata") or {}).get("resourceVersion") or ""))
        text = (body.get("binaryData") or {}).get(ref.key)
        if text is None:
            raise ArtifactNotFound(f"{where} has no key {ref.key!r} in binaryData")
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ArtifactInvalid(f"{where}, key {ref.key!r}: not base64: {error}") from error
