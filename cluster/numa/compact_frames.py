"""Compaction of the memory that holds the processes' frames (mm/compaction.c, mm/migrate.c).

Compactors move frames within a node while no message is under way. Before, all nodes report their references
to its frames. Afterwards, all that names a moved frame gets its new name: page table entries, swap caches,
stable nodes.
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import rows_with
from cluster.arrays.words import I64, node_of_frame, pfn_of
from cluster.compaction.movable.movable_frames import MovableFrames
from cluster.compaction.scenario.fill import fill_memory
from cluster.compaction.scenario.memory_host import compact_to_the_end
from cluster.compaction.scenario.node_memory import NodeMemory
from cluster.compaction.scenario.node_report import NodeReport
from cluster.mm.node_state import NodeState
from cluster.mm.page_state import KSM
from cluster.mm.rmap import found
from cluster.numa.migrate_frames import FrameMigration
from cluster.spec.compaction import CompactionSpec
from cluster.wire.messages import Kind


class NodeCompaction:
    """A node's compactors, and its part in telling frames' references and new names."""

    def __init__(self, node: NodeState, spec: CompactionSpec, migration: FrameMigration) -> None:
        assert isinstance(node.frames, MovableFrames)
        self.memory = NodeMemory(spec, node.id, fill_memory(spec, node.id, node.frames))
        self._n = node
        self.frames = node.frames
        self._migration = migration
        #: A copy of the memory as it was before the current compaction.
        self._without_drivers: NodeMemory

    def begin(self) -> None:
        """Prepare the memory, and send HELD to the nodes of frames.

        The message counts mappings that reverse mapping does not find, and references of the swap cache.
        """
        n, table = self._n, self._n.table
        self.frames.begin()
        self.memory.begin()
        self._without_drivers = self.memory.without_drivers()
        slots = rows_with(table.state[: table.size], KSM)
        unfound, count = np.unique(table.pte[slots[~found(n, slots)]], return_counts=True)
        n.out.send(Kind.HELD, node_of_frame(unfound), unfound, count, np.zeros_like(count))
        cached, count = np.unique(n.swap.cached[n.swap.cached >= 0], return_counts=True)
        n.out.send(Kind.HELD, node_of_frame(cached), cached, np.zeros_like(count), count)

    def on_held(self, frames: I64, unfound: I64, cached: I64) -> None:
        pfns = pfn_of(frames)
        np.add.at(self.frames.unfound, pfns, unfound)
        np.add.at(self.frames.cached, pfns, cached)

    def end(self, seq: int) -> NodeReport:
        """Send the new names of moved frames to all nodes; return the outcome of the compaction."""
        self._n.migration_seq = seq
        self._migration.send_new_names(*self.frames.moved(self._n.id))
        self.memory.finish()
        compact_to_the_end(self._without_drivers)
        return self.memory.report(self._without_drivers)
