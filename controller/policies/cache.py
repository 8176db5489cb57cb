"""Artifacts on disk, by digest: what was downloaded need not be downloaded again after a restart, and the
last good version of a ConfigMap or file is still there when the new one is bad.

A file's name is the digest of what it should hold and is checked whenever it is read, so that nothing in the
directory has to be trusted. A cache that cannot be written is a warning, never a failure.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

MOST_BYTES = 256 * 1024 * 1024
_DIGEST = re.compile("[0-9a-f]{64}")
_SUFFIX, _UNFINISHED = ".onnx", ".part"


class DiskCache:
    """Files `<sha256>.onnx` in one directory, the least recently used of them dropped beyond `most_bytes`.

    directory: made when first needed; empty: nothing is kept.
    """

    def __init__(self, directory: str | Path = "", most_bytes: int = MOST_BYTES) -> None:
        self._directory = Path(directory) if str(directory) not in ("", ".") else None
        self._most_bytes = most_bytes
        self._warned = False

    def get(self, sha256: str) -> bytes | None:
        """The bytes with this digest (hex, prefix optional), or None where they are not."""
        path = self._path(sha256)
        if path is None:
            return None
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != path.stem:
                logger.warning("%s does not hold what its name says; dropped", path)
                path.unlink(missing_ok=True)
                return None
            with contextlib.suppress(OSError):
                os.utime(path)
        except OSError:
            return None
        return data

    def put(self, data: bytes) -> None:
        """Keep these bytes, if that can be done."""
        path = self._path(hashlib.sha256(data).hexdigest())
        if path is None or path.exists() or len(data) > self._most_bytes:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(path, data)
            self._prune()
        except OSError as error:
            if not self._warned:
                logger.warning("artifacts cannot be kept in %s: %s", path.parent, error.strerror)
            self._warned = True

    def _path(self, sha256: str) -> Path | None:
        plain = sha256.lower().removeprefix("sha256:")
        if self._directory is None or not _DIGEST.fullmatch(plain):
            return None
        return self._directory / f"{plain}{_SUFFIX}"

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        """Whole or not at all, whenever the process is killed."""
        handle, unfinished = tempfile.mkstemp(_UNFINISHED, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise

    def _prune(self) -> None:
        """Drop the least recently used, and what killed processes left unfinished."""
        assert self._directory is not None
        newest = 0.0
        kept = []
        for path in self._directory.iterdir():
            facts = path.stat()
            newest = max(newest, facts.st_mtime)
            if path.suffix in (_SUFFIX, _UNFINISHED):
                kept.append((facts.st_mtime, facts.st_size, path))
        total = 0
        for modified, size, path in sorted(kept, reverse=True):
            unfinished = path.suffix == _UNFINISHED
            total += 0 if unfinished else size
            if total > self._most_bytes or (unfinished and modified < newest - 3600.0):
                path.unlink(missing_ok=True)
