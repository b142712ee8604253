"""Scenario scripts over Ray actors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.script.record import compare
from cluster.spec.profile import PROFILES
from ksmcluster.validate.replay import ReplayTarget
from tests.cluster.exact.oracle import KERNEL_RECORDS, LIFE_RECORDS, THP_RECORDS, documents
from tests.cluster.machine.engines import again, kernel_of, topology_of, vector

HUGE = ("qemu-7.2.13-n4/thp_mix_3", "qemu-6.18.15-n4/thp_fork_three", "qemu-7.2.13-n4/thp_move")
RECORDS = ("qemu-6.18.15-n4/numa_move_4_across0", "qemu-6.1.0-50-n4/numa_merge_4_across0")
NEWEST = ("qemu-7.3.4-n4/leave_smart", "qemu-7.3.4-n4/numa_mix_10", "qemu-7.3.4-n4/thp_collapse")
LIFE = ("qemu-7.3.4-n4/exec_order", "qemu-6.12.117-n4/poison_fork_left", "qemu-6.18.15-n4/thp_poison")
DOCUMENTS = documents() | documents(THP_RECORDS) | documents(KERNEL_RECORDS) | documents(LIFE_RECORDS)


@pytest.fixture(scope="module", params=[1, 2, 8])
def on(ray_cluster: str, request: pytest.FixtureRequest) -> Iterator[ReplayTarget]:
    """Actors with as many nodes, which serve one record after the other."""
    with ReplayTarget("ray", request.param).started() as started:
        yield started


@pytest.mark.parametrize("name", RECORDS + HUGE + NEWEST + LIFE)
def test_records_are_reproduced_with_any_number_of_nodes_per_actor(on: ReplayTarget, name: str) -> None:
    document = DOCUMENTS[name]
    topology = topology_of(document)
    inline = again(document, vector(kernel_of(document), topology))
    assert compare(inline, document) is None
    with on.machine(PROFILES[kernel_of(document)], topology) as machine:
        assert again(document, machine) == inline
