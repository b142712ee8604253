"""Bytes that a node keeps for its pages, between two passes."""

from __future__ import annotations

import ctypes
import json
from typing import Any

import numpy as np
import pytest

from cluster.machine.fabric import InlineFabric
from cluster.machine.simulation import Simulation
from cluster.spec.scenario import ContentModel, KsmSpec, MachineSpec, ProcessSpec, RegionSpec, SimulationSpec
from cluster.spec.topology import ring
from ksmcluster.bench.tools.programs import run_program

PAGES = 1 << 14

#: Page table and rmap_item, one of them smart_scan's; frame, two of them `pins`, which nothing touches here;
#: page that waits; stable node; frame that was freed.
SLOT, FRAME, WAITING, STABLE, FREED = 19, 14, 24, 30, 1


def arrays(thing: Any, seen: set[int]) -> int:
    """Bytes of all arrays that can be reached from there, each counted once."""
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    match thing:
        case np.ndarray():
            return arrays(thing.base, seen) if isinstance(thing.base, np.ndarray) else thing.nbytes
        case dict():
            return sum(arrays(value, seen) for value in thing.values())
        case list() | tuple() | set():
            return sum(arrays(value, seen) for value in thing)
        case _ if type(thing).__module__.startswith("cluster."):
            names = {*getattr(thing, "__dict__", {}), *getattr(type(thing), "__slots__", ())}
            return sum(arrays(getattr(thing, name, None), seen) for name in names)
    return 0


@pytest.mark.parametrize("copies", [1, 2, 16])
def test_bytes_per_page(copies: int) -> None:
    region = RegionSpec("r", PAGES, ContentModel.UNIQUE, copies=copies)
    spec = SimulationSpec(MachineSpec(1, PAGES, ring(1)), KsmSpec(), (ProcessSpec("p", 1, (region,)),))
    fabric = InlineFabric(spec, {})
    simulation = Simulation(fabric, spec, None)
    for _ in range(3):
        result = simulation.run_pass()
    groups = PAGES // copies
    waiting, stable = (groups, 0) if copies == 1 else (0, groups)
    assert int(result.nodes["pages_unshared"].sum()) == waiting
    assert int(result.nodes["pages_shared"].sum()) == stable
    freed = PAGES - groups
    expected = (SLOT + FRAME) * PAGES + WAITING * waiting + STABLE * stable + FREED * freed
    assert arrays(fabric.host.nodes[0], set()) == pytest.approx(expected, abs=2048)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="libc keeps free memory")
def test_a_process_gives_back_what_merging_took() -> None:
    found = json.loads(run_program("ksmcluster.bench.tools.footprint", "2", "262144", "inline", "1"))
    assert found["peak"] - found["steady"] > 20 * found["pages"]
