"""When chains are pruned, and which dup of a chain gets the next sharer, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.machine.coordinator import Machine
from cluster.machine.fabric import InlineFabric
from cluster.machine.replay.script_engine import spec_for
from cluster.machine.workload import FIRST_VPN
from cluster.spec.profile import PROFILES
from cluster.spec.scenario import PolicySpec

CONTENT = 1


@pytest.mark.parametrize(
    ("milliseconds", "joined"),
    [
        # The first dup of the chain has room for two.
        (1999, (11, 11)),
        # Every search of a pass that begins in time takes the fullest dup with room, not only the first one.
        (2000, (1, 6)),
    ],
)
@pytest.mark.parametrize("kernel", ["6.1", "6.18"])
def test_the_next_sharers_of_a_chain(kernel: str, milliseconds: int, joined: tuple[int, int]) -> None:
    """A chain of three dups that have one, two and three sharers when pages 12 and 13 come."""
    spec = spec_for(PROFILES[kernel], 1, tree_shape=False)
    fabric = InlineFabric(spec, {})
    machine = Machine(fabric, spec.ksm)
    machine.set_knobs(max_page_sharing=4, smart_scan=0)
    mm = machine.new_process(0)
    machine.map(mm, FIRST_VPN, 14, PolicySpec())
    write(machine, mm, {page: CONTENT if page < 12 else 100 + page for page in range(14)})
    machine.madvise(mm, FIRST_VPN, 14, mergeable=True)
    for _ in range(2):
        machine.scan()
    # Of the dups of pages 0 to 3, 4 to 7 and 8 to 11, the last one is the first of the chain.
    others = {page: 200 + page for page in (0, 4, 5, 8, 9, 10)}
    write(machine, mm, {**others, 12: CONTENT, 13: CONTENT})
    if kernel != "6.1":
        # A visit that finds another checksum looks nothing up.
        machine.scan()
    machine.now_ms = milliseconds
    machine.scan()
    machine.collect()
    frames = fabric.host.nodes[0].state.table.pte[:14]
    assert tuple(frames[[12, 13]]) == tuple(frames[list(joined)])


def write(machine: Machine, mm: int, contents: dict[int, int]) -> None:
    pages = FIRST_VPN + np.array(list(contents))
    machine.write(mm, pages, np.array(list(contents.values()), np.uint64))
