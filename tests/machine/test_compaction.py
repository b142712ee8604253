"""Compaction of memory that processes share with drivers: pages move, and nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engine import run_passes
from cluster import commands as c
from cluster.fabric import exchange
from cluster.migration.frames import MovableFrames
from cluster.migration.machine import InlineCrew, NodeMemory, Turn
from cluster.migration.spec import CompactionSpec, DriverSpec
from cluster.node import Node
from cluster.page_table import KSM
from cluster.spec import (
    ContentModel,
    KsmSpec,
    Law,
    MachineSpec,
    Policy,
    PolicySpec,
    ProcessSpec,
    RegionSpec,
    SimulationSpec,
    WriteSpec,
)
from cluster.topology import ring
from cluster.words import I64, is_ksm_word, node_of_frame, pfn_of, private_word
from tests.machine.driver import FIRST, KNOBS, NODES, STEPS, Workload
from tests.migration.test_machine import holdings

DRIVERS = (
    DriverSpec("swap", "zram", 0.5, 0.7, (("object_size", 1300),)),
    DriverSpec("buffers", "gpu", 0.2, 0.5, (("busy", 0.3),)),
)
SPEC = CompactionSpec(NODES, 4 * 512, DRIVERS, unmovable=0.03, compactors=2, attempts=2, seed=5)


@dataclass
class Compacted:
    """A workload on memory that is compacted."""

    spec: CompactionSpec = SPEC
    knobs: KsmSpec = KsmSpec()
    content: str = "symbolic"
    workload: Workload = field(init=False)

    def __post_init__(self) -> None:
        self.workload = Workload(self.knobs, self.content, self.spec)
        self.nodes = self.workload.fabric.host.nodes
        self.machine = self.workload.machine

    def compact(self, deaths: Sequence[bool] = ()) -> None:
        """Compacts all nodes; only where pages are changes."""
        before, columns = self.state(), self.machine.collect()
        self.machine.compact(self.spec, Mortal(self.workload.fabric.host.memories, list(deaths)))
        self.workload.check()
        after = self.state()
        assert after == before
        now = self.machine.collect()
        del columns["bytes_sent"], now["bytes_sent"]
        assert {k: v.tolist() for k, v in now.items()} == {k: v.tolist() for k, v in columns.items()}

    def state(self) -> list[Any]:
        """Everything but pfns."""
        found: list[Any] = [
            holdings(memory) for memory in self.workload.fabric.host.memories.values()
        ]
        for dump in self.machine.dump():
            pte = dump["pte"]
            found.append([dump["keys"].tolist(), dump["state"].tolist(), dump["processes"]])
            found.append(np.where(pte >= 0, node_of_frame(np.maximum(pte, 0)), pte).tolist())
            found.append((is_ksm_word(np.maximum(pte, 0))).tolist())
        return found

    def frames(self, node: int) -> MovableFrames:
        frames = self.nodes[node].state.frames
        assert isinstance(frames, MovableFrames)
        return frames


class Mortal(InlineCrew):
    """Those who drive compactors die when they are told to, in the middle of anything."""

    def __init__(self, memories: Any, deaths: list[bool]) -> None:
        super().__init__(memories)
        self._all: dict[int, NodeMemory] = memories
        self._deaths = deaths
        self._generations: dict[tuple[int, int], int] = {}

    def take(self, turns: Sequence[tuple[int, int]]) -> list[bool]:
        done = []
        for node, compactor in turns:
            generation = self._all[node]._compactors[compactor].generation
            done.append(self._all[node].take(Turn(node, compactor, generation)))
            if self._deaths and self._deaths.pop():
                self._all[node].abandon(compactor, generation + 1)
                done[-1] = False
        return done


def three_sharers(spec: CompactionSpec, **knobs: int) -> tuple[Compacted, list[int]]:
    """A page that processes on three nodes share, in a frame of node 0; the processes."""
    made = Compacted(spec, KsmSpec(**knobs))  # type: ignore[arg-type]
    mms = [made.machine.new_process(node) for node in (0, 1, 2)]
    for mm in mms:
        made.machine.map(mm, FIRST, 1, PolicySpec(Policy.BIND, (0,)))
        made.machine.write(mm, np.array([FIRST]), np.array([77], np.uint64))
        made.machine.madvise(mm, FIRST, 1, mergeable=True)
        made.workload.pages[mm] = {FIRST: 77}
    for _ in range(3):
        made.machine.scan()
    assert len(set(frames_of(made, mms))) == 1
    return made, mms


def frames_of(made: Compacted, mms: list[int]) -> list[int]:
    found = []
    for mm in mms:
        state = made.nodes[mm >> 15].state
        slots = state.spaces.slots(state.spaces.mms[mm], np.array([FIRST]))
        found.append(int(state.table.pte[slots[0]]))
    return found


def alone_below(node: Node, word: int) -> None:
    """Whatever is above the frame is free, so that compaction takes it there."""


@pytest.mark.parametrize("across", [0, 1])
def test_all_sharers_follow_a_ksm_page(across: int) -> None:
    made, mms = three_sharers(SPEC, merge_across_nodes=across, smart_scan=0)
    before = frames_of(made, mms)
    made.compact()
    after = frames_of(made, mms)
    assert len(set(after)) == 1
    assert private_word(after[0]) != private_word(before[0])
    store, pfn = made.frames(0), pfn_of(np.array(after[:1]))
    assert (store.mapcount[pfn], store.content[pfn]) == (3, 77)
    assert store.is_ksm(pfn).all()
    # The stable node is found: one page more of the content maps the same frame.
    mm = made.machine.new_process(0)
    made.machine.map(mm, FIRST, 1)
    made.machine.madvise(mm, FIRST, 1, mergeable=True)
    made.machine.write(mm, np.array([FIRST]), np.array([77], np.uint64))
    made.workload.pages[mm] = {FIRST: 77}
    for _ in range(2):
        made.machine.scan()
    assert frames_of(made, [mm]) == after[:1]
    assert store.mapcount[pfn] == 4
    made.workload.check()


def test_a_page_with_a_mapping_that_is_not_found_stays() -> None:
    """As in the kernel it is isolated, tried ten times, and put back."""
    made, mms = three_sharers(SPEC)
    node = made.nodes[1].state
    slots = node.spaces.slots(node.spaces.mms[mms[1]], np.array([FIRST]))
    node.table.state[slots] &= ~np.uint16(4)
    before = frames_of(made, mms)
    report = made.machine.compact(SPEC, InlineCrew(made.workload.fabric.host.memories))[0]
    assert frames_of(made, mms) == before
    assert report.by_driver["ksm"].failed == 1
    assert report.by_driver["ksm"].retried >= 9
    assert report.vmstat["pgmigrate_fail"] >= 1
    assert report.by_driver["ksm"].moved > 0


def test_a_pinned_page_is_not_isolated() -> None:
    made, mms = three_sharers(SPEC)
    before = frames_of(made, mms)
    pfn = pfn_of(np.array(before[:1]))
    made.frames(0).pin(pfn)
    report = made.machine.compact(SPEC, InlineCrew(made.workload.fabric.host.memories))[0]
    assert frames_of(made, mms) == before
    assert (report.by_driver["ksm"].refused, report.by_driver["ksm"].failed) == (1, 0)
    made.frames(0).unpin(pfn)
    made.compact()
    assert len(set(frames_of(made, mms))) == 1
    assert frames_of(made, mms) != before
