"""One Ray cluster of three Ray nodes for the whole suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.runtime import environment


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """Address of a cluster that this process has joined."""
    environment()
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()
