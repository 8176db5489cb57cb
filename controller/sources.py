"""Hot reload: which version of a ConfigMap or file a policy was loaded from, and whether it is still so.

The policy book notes the version that it reads; `Sources.watch`, a task of the operator, looks at every
source that somebody uses and raises its serial once the version is another. `controller.work` sees that at
the RLScaler's next turn and prepares it anew. A look is a stat of the file, or a read of the ConfigMap's
metadata.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from controller.api.artifact import Artifact
from controller.errors import KubernetesError, NotFound
from controller.kube import CONFIG_MAPS, Kube

logger = logging.getLogger(__name__)

LOOK_REAL_S = 5.0
"""Seconds between looks at one source, while there are fewer than MOST_PER_S times as many."""
MOST_PER_S = 10.0

ABSENT = ""


@dataclass(eq=False)
class Source:
    """One ConfigMap or file. version: as last seen, None before that; serial: how often it has changed."""

    namespace: str
    name: str
    version: str | None = None
    serial: int = 0

    def saw(self, version: str) -> None:
        """Note a version; another than before is a change."""
        if self.version not in (None, version):
            self.serial += 1
        self.version = version


class Sources:
    """The sources in use; they are forgotten with the last policy that was loaded from them."""

    def __init__(self, kube: Kube, policy_dir: str) -> None:
        self._kube = kube
        self._policy_dir = policy_dir
        self._known: WeakValueDictionary[tuple[str, str], Source] = WeakValueDictionary()

    def of(self, namespace: str, artifact: Artifact) -> Source | None:
        """The artifact's source; None for what cannot change: a builtin policy, a url with its digest."""
        if artifact.config_map is not None:
            key = (namespace, artifact.config_map.name)
        elif artifact.file is not None:
            key = ("", artifact.file)
        else:
            return None
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Source(*key)
        return found

    async def watch(self) -> None:
        """Look at every source in turn, for ever."""
        while True:
            keys: list[tuple[str, str] | None] = [*self._known.keys()]
            pause_s = max(LOOK_REAL_S / max(len(keys), 1), 1.0 / MOST_PER_S)
            for key in keys or [None]:
                await asyncio.sleep(pause_s)
                await self._look(self._known.get(key) if key is not None else None)

    async def _look(self, source: Source | None) -> None:
        """Never raises; what is no longer used is not looked at."""
        if source is None:
            return
        try:
            if source.namespace:
                source.saw(await self._config_map(source))
            else:
                source.saw(await asyncio.to_thread(file_version, self._policy_dir, source.name))
        except KubernetesError as error:
            logger.debug("ConfigMap %s/%s not looked at: %s", source.namespace, source.name, error)
        except Exception:
            logger.exception("unexpected error while looking at %s", source)

    async def _config_map(self, source: Source) -> str:
        try:
            return await self._kube.version(CONFIG_MAPS, source.namespace, source.name)
        except NotFound:
            return ABSENT


def file_version(policy_dir: str, file: str) -> str:
    """Changes whenever the file does, or the link that leads to it; ABSENT without a file."""
    try:
        facts = (Path(policy_dir) / file.replace("\0", "")).stat()
    except OSError:
        return ABSENT
    return f"{facts.st_mtime_ns}-{facts.st_size}-{facts.st_ino}"
