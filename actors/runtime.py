"""Start Ray or join a cluster, and leave it again."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.machinery import PathFinder
from pathlib import Path

from actors.own_ray import on_loopback, own_token, private_folder
from cluster.spec.errors import SimulationError

#: Ray and its processes read these when it is imported or started: it starts less, and reports nothing.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # The driver would print its raylet's warnings on standard output; what matters comes as an exception.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Nothing is scaled here. Of Ray's two autoscalers, version 2 ends at once when Ray is shut down.
    "RAY_enable_autoscaler_v2": "1",
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

#: What a client of HTTP/2, and so of gRPC, sends first: its preface and empty settings.
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def environment() -> None:
    """Set the variables that Ray reads; call it before Ray is imported. Values that the user has set stay."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def check_working_directory() -> None:
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


def _check_answers(address: str, timeout: float) -> None:
    """Raise OSError if no gRPC server answers at the address of a cluster within the time limit.

    Ray would go on trying for minutes, and heed no signal meanwhile.
    """
    from ray._private.services import canonicalize_bootstrap_address

    host, colon, port = (canonicalize_bootstrap_address(address) or "").rpartition(":")
    if not colon or not port.isdigit():
        return
    end = time.monotonic() + timeout
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return
            connection.sendall(_HTTP2_HELLO)
            connection.settimeout(max(end - time.monotonic(), 0.001))
            if not connection.recv(1):
                raise ConnectionError("what listens there is no Ray cluster")
    except TimeoutError:
        raise TimeoutError(f"no answer within {timeout:g} s (--connect-timeout)") from None


@contextmanager
def connected(address: str | None, frames: int = 0, timeout: float = 30.0) -> Iterator[None]:
    """Provide Ray inside the context: the cluster at `address`, or one of our own that ends with it.

    A Ray that this process has joined already is used as it is. `frames` is the number of frames of the
    simulated machine, `timeout` the seconds that the cluster has to answer.

    Raises SimulationError if there is no cluster at that address, or if Ray's workers would not find our
    packages.
    """
    check_working_directory()
    environment()
    if address is None:
        own_token()
    import ray

    if ray.is_initialized():
        yield
        return
    with private_folder() if address is None else nullcontext() as folder:
        with _sigterm_kept():
            if address is None:
                with on_loopback():
                    ray.init(
                        address="local",
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        object_store_memory=_object_store(frames),
                        _temp_dir=folder,
                    )
            else:
                join(address, timeout)
        try:
            yield
        finally:
            _shut_down()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM, if this process has one.

    Ray installs handlers of its own as it starts, which exit with other codes. A signal may come before they
    could be replaced again.
    """
    from ray._private import utils

    installing = utils.set_sigterm_handler
    if callable(signal.getsignal(signal.SIGTERM)):
        utils.set_sigterm_handler = lambda _handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = installing


def _shut_down() -> None:
    """Leave Ray. Its C++ resets the handler of SIGTERM before Ray's processes are ended; put that back."""
    import ray
    from ray._private import worker

    handler = signal.getsignal(signal.SIGTERM)

    def put_back() -> None:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)

    if (node := worker._global_node) is not None:
        ending = node.kill_all_processes

        def end_processes(*arguments: object, **options: object) -> None:
            put_back()
            ending(*arguments, **options)

        node.kill_all_processes = end_processes
    try:
        ray.shutdown()
    finally:
        put_back()


def _object_store(frames: int) -> int:
    """Return the bytes of the object store of a Ray of our own."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(_LEAST_OBJECT_STORE, min(frames * _BYTES_PER_FRAME, int(memory * _PART_OF_MEMORY)))


def join(address: str, timeout: float) -> None:
    """Join a cluster, which has `timeout` seconds to answer. Raises SimulationError if there is none."""
    import ray
    from ray.exceptions import RayError

    # Ray's own level comes with ray.init(); the check below looks for the cluster as that does.
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        _check_answers(address, timeout)
    except (OSError, ValueError) as error:
        raise SimulationError(_cannot_join(address, error)) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RayError) as error:
        # Ray's message does not say why it failed to connect.
        token = "" if "RAY_AUTH_MODE" in os.environ else ", and set RAY_AUTH_MODE=token if it asks for one"
        raise SimulationError(_cannot_join(address, error) + token) from error


def _cannot_join(address: str, error: Exception) -> str:
    reason = str(error).partition("\n")[0].rstrip(".")
    return f"cannot join a Ray cluster at {address}: {reason}; check --address"


def cluster_address() -> str:
    """Return the address at which other processes join the cluster that this one has joined."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def cluster_resources() -> tuple[int, int]:
    """Return the cores and the bytes of memory that Ray counts on the cluster."""
    import ray

    found = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(found.get("CPU", 0)), int(found.get("memory", 0))
