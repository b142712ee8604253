"""Starting Ray, or joining a cluster, and leaving again."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path

from cluster.spec.errors import SimulationError

#: Read by Ray when it is imported or started, and by its processes: less to start, nothing to report.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # The driver prints what its raylet warns of, on standard output; what matters comes as an exception.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Nothing is scaled here; of Ray's two autoscalers, this one ends at once when it is told to.
    "RAY_enable_autoscaler_v2": "1",
    "RAY_enable_metrics_collection": "0",
    # Freed objects go at once. Ray would wait a second, and new ones would be put into memory that was never
    # touched, for which the system takes longer than the copy does.
    "RAY_free_objects_period_milliseconds": "0",
    "RAY_task_events_report_interval_ms": "0",
    # Start all actors at once; Ray would start as many at a time as there are cores.
    "RAY_worker_maximum_startup_concurrency": "1024",
    # On a busy machine the last of them take longer than Ray's minute.
    "RAY_worker_register_timeout_seconds": "900",
}

#: Captured memory goes through the object store, and messages where actors cannot share memory: at most about
#: so much for each frame at once.
_BYTES_PER_FRAME = 64
_LEAST_OBJECT_STORE = 512 << 20
#: As much as Ray takes by itself.
_PART_OF_MEMORY = 0.3

_CONNECT_SECONDS = 5.0


def environment() -> None:
    """Sets what Ray reads; to be called before Ray is imported. What the user has set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _own_token() -> None:
    """A token for a Ray of our own; without it Ray leaves one in the user's home for all clusters to come.

    Ray reads it when it is imported.
    """
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _check_working_directory() -> None:
    """Raise SimulationError if another `cluster` or `actors` is in the working directory.

    Ray puts this directory in front of its workers' paths, even if it is not on that of this process.
    """
    ours = Path(__file__).resolve().parents[1]
    for name in ("cluster", "actors"):
        spec = PathFinder.find_spec(name, [str(Path.cwd())])
        # A folder without __init__.py has no origin, and hides no package.
        if spec and spec.origin and Path(spec.origin).resolve() != ours / name / "__init__.py":
            raise SimulationError(
                f"{spec.origin}: Ray's workers would import it as ksmcluster's own package \"{name}\"; "
                "rename it, or start in another directory"
            )


def _check_reachable(address: str) -> None:
    """Raises OSError if nothing listens at HOST:PORT; Ray would go on trying for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


@contextmanager
def connected(address: str | None, frames: int = 0) -> Iterator[None]:
    """Ray is there inside: the cluster at `address`, or one of our own that ends with the block.

    `frames` are those of the simulated machine.

    Raises SimulationError if there is no cluster at that address, or if Ray's workers would not find our
    packages.
    """
    _check_working_directory()
    environment()
    if address is None:
        _own_token()
    import ray

    if ray.is_initialized():
        yield
        return
    with _sigterm_kept():
        if address is None:
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_object_store(frames),
            )
        else:
            _join(address)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Whoever handles SIGTERM goes on doing so; Ray takes it when it starts, and ends with a dump."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as end:
        if end.code in (1, signal.SIGTERM):  # as Ray's handler has it
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _object_store(frames: int) -> int:
    """Bytes for the object store of a Ray of our own."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(_LEAST_OBJECT_STORE, min(frames * _BYTES_PER_FRAME, int(memory * _PART_OF_MEMORY)))


def _join(address: str) -> None:
    import ray
    from ray.exceptions import RayError

    try:
        _check_reachable(address)
    except OSError as error:
        raise SimulationError(_cannot_join(address, error)) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RayError) as error:
        # Ray says no more than that it failed to connect.
        token = "" if "RAY_AUTH_MODE" in os.environ else ", and set RAY_AUTH_MODE=token if it asks for one"
        raise SimulationError(_cannot_join(address, error) + token) from error


def _cannot_join(address: str, error: Exception) -> str:
    reason = str(error).partition("\n")[0].rstrip(".")
    return f"cannot join a Ray cluster at {address}: {reason}; check --address"
