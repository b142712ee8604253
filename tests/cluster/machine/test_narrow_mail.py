"""Mail within a process that is narrow, as that of large nodes is."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.machine import host
from cluster.machine.fabric import InlineFabric
from cluster.machine.simulation import Simulation
from cluster.spec.scenario import (
    ContentModel,
    KsmSpec,
    MachineSpec,
    ProcessSpec,
    RegionSpec,
    SimulationSpec,
    WriteSpec,
)
from cluster.spec.topology import ring
from cluster.wire import mailbox

PAGES = 2048


def results() -> list[dict[str, Any]]:
    """What is counted on each of four nodes after each pass; half of the pages merge."""
    regions = (
        RegionSpec("own", PAGES, ContentModel.UNIQUE, writes=(WriteSpec(rate=0.5, hot_fraction=0.1),)),
        RegionSpec("all", PAGES, ContentModel.REPLICATED),
    )
    machine = MachineSpec(4, 1 << 14, ring(4))
    spec = SimulationSpec(machine, KsmSpec(), (ProcessSpec("rank", 8, regions),), passes=4)
    simulation = Simulation(InlineFabric(spec, {}), spec, None)
    passes = [simulation.run_pass() for _ in range(spec.passes)]
    return [{name: column.tolist() for name, column in result.nodes.items()} for result in passes]


def test_results_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = results()
    assert sum(wide[-1]["pages_sharing"]) > PAGES
    monkeypatch.setattr(host, "LARGE_MAIL", 0)
    monkeypatch.setattr(mailbox, "NARROW_ROWS", 1)
    assert results() == wide
