"""Starting Ray, or joining a cluster, and leaving again."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.errors import SimulationError

#: Read by Ray when it is imported or started, and by its processes: less to start, nothing to report.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_num_workers_soft_limit": "4096",
    "RAY_task_events_report_interval_ms": "0",
}

#: Messages between nodes are all that goes through the object store.
_OBJECT_STORE_BYTES = 512 << 20


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Ray is there inside: the cluster at `address`, or one of our own that ends with the block.

    Raises SimulationError if there is no cluster at that address.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        if address is None:
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE_BYTES,
            )
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SimulationError(f"no Ray cluster at {address}: {reason}; check --address") from error
    try:
        yield
    finally:
        ray.shutdown()
