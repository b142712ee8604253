"""Page digests, and keys that hide the contents of pages."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from cluster.spec.content import PAGE_SIZE
from cluster.spec.input_files import read_input
from cluster.spec.limits import MOST_TEXT
from ksmcluster.snapshot import DIGEST_SIZE, KeyInfo
from ksmcluster.system.errors import UserError

KEY_SIZE = 32
"""Bytes of a key."""

LEAST_DIFFERENT_BYTES = 16
"""Only one random key in 10^16 has fewer different bytes."""


class PageHasher:
    """Digests of pages, keyed with 32 bytes. With None, anybody can compare the digests."""

    def __init__(self, key: bytes | None) -> None:
        self._blake3 = blake3() if key is None else blake3(key=key)

    def __call__(self, pages: memoryview) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the digests of n * 4096 bytes, uint8[n, 16], and which pages are all zero, bool[n].

        The digests of zero pages are zero.
        """
        words = np.frombuffer(pages, np.uint64).reshape(-1, PAGE_SIZE // 8)
        zero = (words[:, 0] == 0) & (words[:, -1] == 0)
        zero[zero] = ~words[zero].any(axis=1)
        digests = np.zeros((len(words), DIGEST_SIZE), np.uint8)
        digests[~zero] = self._digests(pages, np.flatnonzero(~zero).tolist())
        return digests, zero

    def _digests(self, pages: memoryview, wanted: list[int]) -> NDArray[np.uint8]:
        # One thread: passing the interpreter lock on at every page costs more than a second thread
        # gains. Resetting one hasher is faster than creating one per page.
        update, digest, reset = self._blake3.update, self._blake3.digest, self._blake3.reset
        parts = []
        for index in wanted:
            update(pages[index * PAGE_SIZE : (index + 1) * PAGE_SIZE])
            parts.append(digest(DIGEST_SIZE))
            reset()
        return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, DIGEST_SIZE)


def load_key(key_file: Path | None, unkeyed: bool) -> tuple[bytes | None, KeyInfo]:
    """Return the key to hash with, and what the snapshot says about it.

    The key is random unless a key file or no key is asked for. An absent key file is created,
    readable by its owner alone. Raises UserError if the file is not a key, OSError if a new one
    cannot be written.
    """
    if unkeyed:
        return None, KeyInfo("none", None)
    if key_file is None:
        key = os.urandom(KEY_SIZE)
        return key, KeyInfo("random", fingerprint(key))
    key = _key_from(key_file)
    return key, KeyInfo("file", fingerprint(key))


def key_warnings(key_file: Path) -> Iterator[str]:
    """Yield a line for each reason why others may have the key or guess it."""
    if key_file.stat().st_mode & 0o044:
        yield f"others can read key file {key_file} and could then guess contents of pages: chmod 600 it"
    key = key_file.read_bytes()
    new = "name a new file to create a random one"
    if len(set(key)) < LEAST_DIFFERENT_BYTES:
        yield f"key file {key_file} holds few different bytes, which is easy to guess: {new}"
    elif _is_text(key):
        yield f"key file {key_file} looks like a passphrase, which can be guessed: {new}"


def _is_text(key: bytes) -> bool:
    try:
        return key.decode().strip().isprintable()
    except UnicodeDecodeError:
        return False


def fingerprint(key: bytes) -> str:
    """Return 32 hex digits that are equal for equal keys and reveal nothing else about the key."""
    derived = blake3(key, derive_key_context="ksmcluster snapshot key fingerprint, version 1")
    return derived.hexdigest(length=16)


def _key_from(path: Path) -> bytes:
    try:
        key = read_input(path, MOST_TEXT)
    except FileNotFoundError:
        return _create_key(path)
    except IsADirectoryError as error:
        raise UserError(f"key file {path} is a folder: name a file") from error
    except PermissionError as error:
        raise UserError(f"no permission to read key file {path}: use your own") from error
    except OSError as error:
        raise UserError(f"key file {path}: {error.strerror}: name another file") from error
    if len(key) != KEY_SIZE:
        raise UserError(
            f"key file {path} has {len(key)} bytes, not {KEY_SIZE}: name a new file to create one"
        )
    return key


def _create_key(path: Path) -> bytes:
    key = os.urandom(KEY_SIZE)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileNotFoundError as error:
        raise UserError(f"no folder {path.parent} for the key file: create it") from error
    except PermissionError as error:
        raise UserError(f"no permission to create key file {path}: choose another folder") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink()
        raise
    return key
