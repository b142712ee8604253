"""Nothing is lost and nothing invented, whatever processes and ksmd do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from numpy.typing import NDArray

import cluster.spec.digest
from cluster.spec.scenario import KsmSpec
from tests.cluster.machine.random_workload import KNOBS, STEPS, Workload

#: KSM frames that lose their stable nodes while the swap cache still has them: read again, they are copied.
ORPHANS_READ_FROM_SWAP: list[tuple[Any, ...]] = [
    ("write", 0, (0, 1), 0, 1),
    ("scan", None),
    ("pageout", 0, (0, 1)),
    ("fork", 0),
    ("read", 0, (0, 1)),
    ("scan", None),
    ("unmerge_all",),
    ("read", 1, (0, 1)),
]


@settings(max_examples=150, deadline=None)
@given(KNOBS, STEPS)
@example(KsmSpec(max_page_sharing=2, smart_scan=0), ORPHANS_READ_FROM_SWAP)
def test_frames_map_counts_and_contents_are_conserved(knobs: KsmSpec, steps: list[tuple[Any, ...]]) -> None:
    workload = Workload(knobs)
    for step in steps:
        workload.run(step)
        workload.check()
    for _ in range(3):
        workload.machine.scan()
        workload.check()


@settings(max_examples=40, deadline=None)
@given(KNOBS, STEPS)
def test_pages_of_bytes_merge_as_symbolic_ones_do(knobs: KsmSpec, steps: list[tuple[Any, ...]]) -> None:
    symbolic, real = Workload(knobs), Workload(knobs, "bytes")
    for step in [*steps, *[("scan", None)] * 3]:
        symbolic.run(step)
        real.run(step)
    a, b = symbolic.machine.collect(), real.machine.collect()
    # Bytes travel to be compared; where a content's chain is kept depends on its digest.
    assert all(a[name].sum() == b[name].sum() for name in ("stable_node_chains", "stable_node_dups"))
    here = a.keys() - {"bytes_sent", "stable_node_chains", "stable_node_dups"}
    assert {name: a[name].tolist() for name in here} == {name: b[name].tolist() for name in here}


@settings(max_examples=40, deadline=None)
@given(KNOBS, STEPS)
def test_what_only_has_the_same_digest_is_not_merged(knobs: KsmSpec, steps: list[tuple[Any, ...]]) -> None:
    """Digests of one bit: all contents but zeros collide, so only comparing bytes keeps them apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.spec.digest, "digest_pages", weak_digests)
        workload = Workload(knobs, "bytes")
        for step in [*steps, *[("scan", None)] * 3]:
            workload.run(step)
            workload.check_bytes()


def weak_digests(pages: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return pages.any(axis=1).astype(np.uint64)
