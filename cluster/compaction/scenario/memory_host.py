"""Memories of a compaction scenario in one process, from the filled memory to the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cluster.checkpoint.encode import Encoded, encode
from cluster.checkpoint.restore import restore
from cluster.compaction.scenario.compactor_pool import InlineCompactorPool, Memories
from cluster.compaction.scenario.fill import fill_memory
from cluster.compaction.scenario.node_memory import NodeMemory
from cluster.compaction.scenario.node_report import NodeReport
from cluster.compaction.scenario.rounds import drive
from cluster.spec.compaction import CompactionSpec


class MemoryHost(Memories):
    """Memories of some nodes of a scenario; beside each, a copy in which no page of a driver moves.

    There are no copies if there is no driver.
    """

    def __init__(self, nodes: Sequence[int], spec: CompactionSpec) -> None:
        super().__init__({node: NodeMemory(spec, node, fill_memory(spec, node)) for node in nodes})
        copied = self.memories if spec.drivers else {}
        self._without_drivers = {node: memory.without_drivers() for node, memory in copied.items()}
        #: What a memory is made of; its state refers to it.
        self._inputs = {"spec": spec}
        self._packages = spec.packages

    @property
    def nodes(self) -> Iterable[int]:
        """Their numbers."""
        return self.memories

    def state(self, node: int) -> Encoded:
        """Return the state of a memory between two rounds, before `finish`. The arrays are the memory's own.

        Its copy is as it was made, so it has none.
        """
        return encode(self.memories[node], self._inputs, self._packages)

    def restore(self, states: Iterable[tuple[int, Encoded]]) -> None:
        """Give each of these memories the state that it had in another host; they take over the arrays.

        Raises DecodeError if a state is not one of such a memory.
        """
        for node, state in states:
            restore(self.memories[node], state, self._inputs, self._packages)

    def finish(self) -> None:
        """End the compaction of its nodes, and compact the copies. Call it once, before `reports`."""
        for node, memory in self.memories.items():
            memory.finish()
            if node in self._without_drivers:
                compact_to_the_end(self._without_drivers[node])

    def reports(self) -> list[NodeReport]:
        """Return what became of its nodes."""
        return [memory.report(self._without_drivers.get(node)) for node, memory in self.memories.items()]


def run_compactors(memory: NodeMemory) -> None:
    """Run the compactors of one node in turns, in this process, until they are done."""
    spec = replace(memory.spec, relocations=())
    drive(spec, [memory.node], InlineCompactorPool({memory.node: memory}))


def compact_to_the_end(memory: NodeMemory) -> None:
    """Run the whole compaction of one node, in this process."""
    run_compactors(memory)
    memory.finish()


def compact_inline(spec: CompactionSpec) -> list[NodeReport]:
    """Run a whole scenario in this process; return what became of each node."""
    host = MemoryHost(range(spec.nodes), spec)
    drive(spec, range(spec.nodes), InlineCompactorPool(host.memories))
    host.finish()
    return host.reports()
