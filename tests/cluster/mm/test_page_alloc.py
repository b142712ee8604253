"""Where frames come from, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.machine.coordinator import Machine
from cluster.machine.fabric import InlineFabric
from cluster.spec.errors import OutOfMemoryError
from cluster.spec.scenario import KsmSpec, MachineSpec, PolicyMode, PolicySpec, SimulationSpec
from cluster.spec.topology import Distances, from_rows, fully_connected

#: Node 1 is nearer to node 0 than node 2 is; node 3 is the farthest from all.
DISTANCE = from_rows([[10, 15, 20, 40], [15, 10, 20, 40], [20, 20, 10, 40], [40, 40, 40, 10]])
FRAMES = 10


def used_by_node(
    policy: PolicySpec, pages: int, distance: Distances = DISTANCE, frames: int = FRAMES
) -> list[int]:
    """Frames in use after a process on node 0 has written so many pages."""
    knobs, spec = KsmSpec(), MachineSpec(len(distance), frames, distance)
    machine = Machine(InlineFabric(SimulationSpec(spec, knobs, ()), {}), knobs)
    mm = machine.new_process(0)
    machine.map(mm, 100, pages, policy)
    machine.write(mm, np.arange(100, 100 + pages), np.arange(pages, dtype=np.uint64))
    used: list[int] = machine.collect()["frames_used"].tolist()
    return used


@pytest.mark.parametrize(
    ("policy", "pages", "used"),
    [
        (PolicySpec(), 8, [8, 0, 0, 0]),
        (PolicySpec(), 25, [10, 10, 5, 0]),
        (PolicySpec(PolicyMode.BIND, (2, 3)), 15, [0, 0, 10, 5]),
        (PolicySpec(PolicyMode.PREFERRED, (2,)), 25, [10, 5, 10, 0]),
        (PolicySpec(PolicyMode.INTERLEAVE, (1, 3)), 8, [0, 4, 0, 4]),
        (PolicySpec(PolicyMode.INTERLEAVE, (0, 3)), 24, [10, 4, 0, 10]),
    ],
)
def test_placement(policy: PolicySpec, pages: int, used: list[int]) -> None:
    assert used_by_node(policy, pages) == used


@pytest.mark.parametrize("policy", [PolicySpec(), PolicySpec(PolicyMode.INTERLEAVE, (0,))])
def test_a_page_may_be_refused_by_more_nodes_than_a_byte_counts(policy: PolicySpec) -> None:
    assert used_by_node(policy, 290, fully_connected(300), frames=1) == [1] * 290 + [0] * 10


def test_memory_that_is_bound_and_full_is_an_error() -> None:
    with pytest.raises(OutOfMemoryError, match="the nodes it is bound to"):
        used_by_node(PolicySpec(PolicyMode.BIND, (1,)), 11)
    with pytest.raises(OutOfMemoryError, match="any node"):
        used_by_node(PolicySpec(), 41)
