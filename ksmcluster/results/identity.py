"""The digest of a scenario: equal scenarios have equal results."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from blake3 import blake3

from ksmcluster.config import resolved_toml
from ksmcluster.config.tables import ConfigTable


def config_digest(config: ConfigTable) -> str:
    """Return the digest of all keys of a scenario, with the contents of snapshots instead of their paths."""
    return text_digest(resolved_toml(config, _content_digest).encode())


def text_digest(text: bytes) -> str:
    """Return a digest prefixed with the name of its hash function."""
    return f"blake3:{blake3(text).hexdigest()}"


def _content_digest(path: str) -> str:
    stat = Path(path).stat()
    return _file_digest(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _file_digest(path: str, *_state: int) -> str:
    """Return the digest of a file, cached until its state changes."""
    return f"blake3:{blake3().update_mmap(path).hexdigest()}"
