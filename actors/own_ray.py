"""A Ray of our own is private and small: only this user can reach it, and it has no process without use."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from cluster.spec.errors import LostError

#: Ray names sockets below its folder, and a socket's path has at most 107 bytes.
_LONGEST_PARENT = 28


class RayStartError(LostError):
    """A Ray of our own did not start."""


def own_token() -> None:
    """Set a token for the Ray cluster that this process starts, unless the user has set one.

    Without it, Ray writes one to the user's home, in some versions readable by all, and later clusters use
    that. Call it before Ray is imported: Ray reads the variables then.
    """
    imported = "ray" in sys.modules
    if "RAY_AUTH_MODE" not in os.environ:
        # A Ray that is imported already sets the mode itself when it starts.
        if not imported:
            os.environ["RAY_AUTH_MODE"] = "token"
    elif imported or os.environ["RAY_AUTH_MODE"].lower() != "token":
        return
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def on_loopback() -> Iterator[None]:
    """Let a Ray that is started inside the context listen on loopback, not on all interfaces.

    Ray has a setting for this, which is meant for desktop systems. It reads the variable
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER when it is imported. If the user has set that, it stays.
    """
    from ray._private import ray_constants

    told = ray_constants.ENABLE_RAY_CLUSTER
    if ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR not in os.environ:
        ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = told


@contextmanager
def in_other_groups() -> Iterator[None]:
    """Let the processes of a Ray that is started inside be in process groups of their own.

    A signal to the group of this process, such as Ctrl-C or that of `timeout`, then ends this process alone,
    which ends its Ray. Otherwise, Ray's C++ would end this process with an error if it is just connecting.
    """
    from ray._private import services

    popen = services.ConsolePopen
    services.ConsolePopen = partial(popen, process_group=0)  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        services.ConsolePopen = popen  # type: ignore[misc]


@contextmanager
def without_services() -> Iterator[None]:
    """Let a Ray that is started inside do without the processes that a run has no use for.

    These are the autoscaler, the dashboard's server, which starts even if it is to serve nothing, and the log
    monitor. Each takes as much time to start as an actor.
    """
    from ray._private.node import Node

    names = ("start_monitor", "start_api_server", "start_log_monitor")
    starting = {name: getattr(Node, name) for name in names}
    for name in names:
        setattr(Node, name, lambda _node, **_settings: None)
    try:
        yield
    finally:
        for name, start in starting.items():
            setattr(Node, name, start)


@contextmanager
def private_folder() -> Iterator[str]:
    """Provide a folder for Ray's files that no other user can enter.

    Ray lets all users write to its folder and all that is in it, so this is a folder in one of ours. It is
    removed at the end, except after an error: Ray's logs are in it.

    Raises RayStartError if it cannot be made.
    """
    outer = _made()
    keep = False
    try:
        yield str(outer / "r")
    except Exception:
        keep = True
        raise
    finally:
        if not keep:
            shutil.rmtree(outer, ignore_errors=True)


def _made() -> Path:
    told = os.environ.get("RAY_TMPDIR")
    parent = Path(told or os.environ.get("TMPDIR") or "/tmp").expanduser().absolute()
    if len(os.fsencode(parent)) > _LONGEST_PARENT:
        if told:
            raise RayStartError(
                f"Ray did not start: RAY_TMPDIR={told} is too long for the paths of Ray's sockets: choose "
                f"one of at most {_LONGEST_PARENT} bytes"
            )
        parent = Path("/tmp")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="ray-", dir=parent))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise RayStartError(
            f"Ray did not start: no folder for it in {parent}: {reason}; set RAY_TMPDIR"
        ) from error
