"""Artifacts from urls: downloaded in the background, once for all who ask, and tried again after a failure.

The policy book asks at each preparation of an RLScaler and waits a little; a slow server holds up nobody.
What a url stands for is fixed by its digest, so whatever has it, in memory or on disk, saves the download.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from controller.policies import (
    MAX_ARTIFACT_BYTES,
    ArtifactDownloading,
    ArtifactError,
    ArtifactPolicy,
    DiskCache,
    Rules,
    displayed,
    download,
    loaded_policy,
    policy_from_bytes,
)

logger = logging.getLogger(__name__)

AT_A_TIME = 4
PATIENCE_REAL_S = 2.0
FIRST_PAUSE_REAL_S = 5.0
LONGEST_PAUSE_REAL_S = 300.0
KEPT_REAL_S = 3600.0
"""A failure that nobody has asked about for so long is forgotten."""


@dataclass
class _Job:
    """One download and what came of it. The error of an attempt stands until a later one ends."""

    attempt: asyncio.Future[ArtifactPolicy] | None = None
    failures: int = 0
    error: ArtifactError | None = None
    again_at_s: float = 0.0
    asked_s: float = 0.0


class Downloads:
    """The operator's downloads. rules: what it may ask; cache: where the bytes are kept."""

    def __init__(self, rules: Rules, cache: DiskCache) -> None:
        self._rules = rules
        self._cache = cache
        self._jobs: dict[tuple[str, str], _Job] = {}
        self._threads = ThreadPoolExecutor(AT_A_TIME, "artifacts")

    async def policy(self, url: str, sha256: str) -> ArtifactPolicy:
        """The policy with this digest. Raises ArtifactDownloading while it is on its way, ArtifactError."""
        held = loaded_policy(sha256)
        if held is not None:
            return held
        job = self._job(url, sha256)
        if job.attempt is not None:
            await asyncio.wait([job.attempt], timeout=PATIENCE_REAL_S)
            self._settle(job, displayed(url))
        held = loaded_policy(sha256)
        if held is not None:
            return held
        if job.error is not None:
            raise job.error
        raise ArtifactDownloading(f"{displayed(url)} is being downloaded")

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _job(self, url: str, sha256: str) -> _Job:
        now_s = time.monotonic()
        self._jobs = {key: job for key, job in self._jobs.items() if now_s - job.asked_s < KEPT_REAL_S}
        job = self._jobs.setdefault((url, sha256), _Job())
        job.asked_s = now_s
        if job.attempt is None and now_s >= job.again_at_s:
            loop = asyncio.get_running_loop()
            job.attempt = loop.run_in_executor(self._threads, self._fetch, url, sha256)
        return job

    def _fetch(self, url: str, sha256: str) -> ArtifactPolicy:
        """From disk, or by a download whose digest is checked before anything else is done with it."""
        data = self._cache.get(sha256)
        if data is None:
            data = download(url, MAX_ARTIFACT_BYTES, self._rules)
            policy = policy_from_bytes(data, sha256)
            self._cache.put(data)
            return policy
        return policy_from_bytes(data, sha256)

    def _settle(self, job: _Job, shown: str) -> None:
        """Take in an attempt that has ended."""
        attempt = job.attempt
        if attempt is None or not attempt.done():
            return
        failure = attempt.exception()
        if failure is None:
            job.error, job.failures = None, 0
            return  # the attempt stays: its result is what keeps the policy loaded
        job.attempt = None
        if not isinstance(failure, ArtifactError):
            raise failure
        pause_s = min(FIRST_PAUSE_REAL_S * 2.0**job.failures, LONGEST_PAUSE_REAL_S)
        job.failures += 1
        job.error = failure
        job.again_at_s = time.monotonic() + pause_s * random.uniform(0.8, 1.2)
        logger.warning("%s: %s: %s", shown, failure.reason, failure)
