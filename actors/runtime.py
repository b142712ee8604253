"""Start Ray or join a cluster, and leave it again."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

from actors.own_ray import (
    RayStartError,
    in_other_groups,
    on_loopback,
    own_token,
    private_folder,
    without_services,
)
from actors.run_options import STALL_TIMEOUT
from actors.watching.frozen_start import watched_start
from actors.watching.head import check_answers, first_line
from actors.watching.own_processes import OwnProcesses
from actors.watching.watchdog import Watchdog
from cluster.spec.errors import SimulationError

#: Ray and its processes read these when it is imported or started: it starts less, and reports nothing.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # The driver would print its raylet's warnings on standard output; what matters comes as an exception.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    # Free objects at once. Ray would wait a second, and put new objects into memory that was never touched,
    # whose page faults take longer than the copy.
    "RAY_free_objects_period_milliseconds": "0",
    "RAY_task_events_report_interval_ms": "0",
    # Start all actors at once. By default, Ray starts as many at a time as there are cores.
    "RAY_worker_maximum_startup_concurrency": "1024",
    # On a busy machine the last actors take longer to start than Ray's minute.
    "RAY_worker_register_timeout_seconds": "900",
}

#: The object store carries captured memory, and mail where actors cannot share memory: at once, at most about
#: this many bytes for each frame.
_BYTES_PER_FRAME = 64
_LEAST_OBJECT_STORE = 512 << 20
#: Ray's own default.
_PART_OF_MEMORY = 0.3

#: The name of the thread that leaves Ray.
_LEAVING = "leaving Ray"
#: The longest time for ray.shutdown(), in seconds.
_LEAVE_SECONDS = 5.0
#: How often it looks meanwhile.
_LOOK_SECONDS = 0.02

#: What signal.getsignal() returns; None for a handler that Python has not installed.
_Handler = Callable[[int, FrameType | None], Any] | int | None


class CannotJoinError(SimulationError):
    """No Ray cluster answers at the address, or it does not let this process join."""


def environment() -> None:
    """Set the variables that Ray reads; call it before Ray is imported. Values that the user has set stay."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def check_working_directory() -> None:
    """Raise SimulationError if another `cluster` or `actors` is in the working directory, or if it is gone.

    Ray puts this directory in front of its workers' paths, even if it is not on that of this process.
    """
    ours = Path(__file__).resolve().parents[1]
    try:
        working = str(Path.cwd())
    except FileNotFoundError as error:
        raise SimulationError("the working directory is gone; change to another one") from error
    for name in ("cluster", "actors"):
        spec = PathFinder.find_spec(name, [working])
        # A folder without __init__.py has no origin, and hides no package.
        if spec and spec.origin and Path(spec.origin).resolve() != ours / name / "__init__.py":
            raise SimulationError(
                f"{spec.origin}: Ray's workers would import it as ksmcluster's own package \"{name}\"; "
                "rename it, or start in another directory"
            )


@contextmanager
def connected(
    address: str | None, frames: int = 0, timeout: float = 30.0, stall: float = STALL_TIMEOUT
) -> Iterator[None]:
    """Provide Ray inside the context: the cluster at `address`, or one of our own that ends with it.

    A Ray that this process has joined already is used as it is. `frames` is the number of frames of the
    simulated machine, `timeout` the seconds that the cluster has to answer, `stall` those after which a
    process that does nothing is taken for dead.

    Raises SimulationError if there is no cluster at that address, or if Ray's workers would not find our
    packages, RayStartError if Ray does not start.
    """
    check_working_directory()
    environment()
    if address is None:
        own_token()
    import ray

    if ray.is_initialized():
        _keep_stdout_clean()
        yield
        return
    with private_folder() if address is None else nullcontext() as folder:
        own = None
        with _sigterm_kept():
            if address is not None:
                join(address, timeout)
            elif folder is not None:
                own = _start(frames, folder, stall)
        watchdog = Watchdog(own, partial(check_answers, cluster_address()), stall)
        try:
            yield
        finally:
            watchdog.close()
            _leave(own)


def _leave(own: OwnProcesses | None) -> None:
    """Leave Ray; what is left of one of our own after a time limit is killed.

    ray.shutdown() waits for minutes if the head or the raylet is frozen or dead. Its C++ resets the handler
    of SIGTERM meanwhile.
    """
    import ray
    from ray._private import worker

    if own is not None:
        own.refresh()
    handler = signal.getsignal(signal.SIGTERM)
    leaving = Thread(target=ray.shutdown, name=_LEAVING, daemon=True)
    leaving.start()
    end = time.monotonic() + _LEAVE_SECONDS
    while leaving.is_alive() and time.monotonic() < end:
        leaving.join(_LOOK_SECONDS)
        _put_back(handler)
    if own is not None:
        own.kill()
    if leaving.is_alive():
        # It would wait once more when Python exits.
        atexit.unregister(worker.shutdown)


def is_leaving() -> bool:
    """Return whether ray.shutdown() goes on. Then a program must end with os._exit(), or Ray crashes it."""
    return any(thread.name == _LEAVING for thread in threading.enumerate())


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM, if this process has one.

    Ray installs handlers of its own as it starts: that of its Python exits with another code, and that of its
    C++ writes a stack trace. A signal may come before they could be replaced again.
    """
    from ray._private import ray_constants, utils

    # Older versions of Ray have no such constant, and always install the handler of their C++.
    disabled = getattr(ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", False)
    installing = utils.set_sigterm_handler
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler):
        utils.set_sigterm_handler = lambda _handler: None
        ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True
    try:
        yield
    finally:
        utils.set_sigterm_handler = installing
        ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = disabled
        if callable(handler):
            _put_back(handler)


def _put_back(handler: _Handler) -> None:
    """Install a handler of SIGTERM again; only the main thread can."""
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _keep_stdout_clean() -> None:
    """Log what Ray says of tasks that it repeats; it prints that to stdout, where results go."""
    from ray._private import worker

    def log(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        logging.getLogger("ray").info("%s", "\n".join(data["lines"]))

    worker.print_to_stdstream = log


def _object_store(frames: int) -> int:
    """Return the bytes of the object store of a Ray of our own."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(_LEAST_OBJECT_STORE, min(frames * _BYTES_PER_FRAME, int(memory * _PART_OF_MEMORY)))


def _start(frames: int, folder: str, stall: float) -> OwnProcesses:
    """Start a Ray of our own; raise RayStartError if that fails."""
    import ray

    _keep_stdout_clean()
    _check_loopback()
    try:
        with on_loopback(), in_other_groups(), without_services(), watched_start(folder, stall):
            context = ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_object_store(frames),
                _temp_dir=folder,
            )
    except Exception as error:  # Ray has no class for this: OSError, ValueError, RuntimeError, Exception
        raise RayStartError(
            f"Ray did not start: {first_line(error)}; check RAY_TMPDIR and its disk"
        ) from error
    return OwnProcesses(context.address_info["session_dir"])  # type: ignore[attr-defined]


def _check_loopback() -> None:
    """Raise RayStartError if processes of this machine cannot connect; Ray would try for minutes."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            socket.create_connection(listener.getsockname(), 5).close()
    except OSError as error:
        raise RayStartError(
            f"Ray did not start: {first_line(error)} on the loopback interface; set it up, or take "
            "--engine inline"
        ) from error


def join(address: str, timeout: float) -> None:
    """Join a cluster, which has `timeout` seconds to answer. Raises CannotJoinError if there is none."""
    import ray
    from ray.exceptions import RayError

    # Ray's own level comes with ray.init(); the check below looks for the cluster as that does.
    logging.getLogger("ray").setLevel(logging.ERROR)
    _keep_stdout_clean()
    try:
        check_answers(address, timeout)
    except TimeoutError as error:
        raise CannotJoinError(_cannot_join(address, f"{error} (--connect-timeout)")) from error
    except (OSError, ValueError) as error:
        raise CannotJoinError(_cannot_join(address, first_line(error))) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RayError) as error:
        # Ray's message does not say why it failed to connect.
        known = "RAY_AUTH_MODE" in os.environ
        token = (
            ", RAY_AUTH_MODE and the token" if known else ", and set RAY_AUTH_MODE=token if it asks for one"
        )
        raise CannotJoinError(_cannot_join(address, first_line(error)) + token) from error


def _cannot_join(address: str, reason: str) -> str:
    way_out = "check --address"
    if reason.startswith("Invalid address format"):
        way_out = "give --address HOST:PORT, or auto for a cluster of this machine"
        if address == "auto" and "RAY_ADDRESS" in os.environ:
            way_out = "auto takes RAY_ADDRESS: unset it, or give --address HOST:PORT"
    return f"cannot join a Ray cluster at {address}: {reason}; {way_out}"


def cluster_address() -> str:
    """Return the address at which other processes join the cluster that this one has joined."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def cluster_resources() -> tuple[int, int]:
    """Return the cores and the bytes of memory that Ray counts on the cluster."""
    import ray

    found = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(found.get("CPU", 0)), int(found.get("memory", 0))
