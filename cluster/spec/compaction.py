"""What to compact: plain, frozen descriptions that travel to the actors. Sizes in pages, times in ns."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.spec.topology import Distances


@dataclass(frozen=True, slots=True)
class DriverSpec:
    """A driver that every node has."""

    name: str
    #: Name in `drivers.registry`, or `package.module:Class`.
    kind: str
    #: Part of the node's memory that it fills; in (0, 1].
    share: float
    #: Part of its units, drawn at random, that it gives up before the compaction; in [0, 1].
    discard: float = 0.5
    #: Keyword arguments of the driver.
    settings: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class MigrationCostSpec:
    """Simulated time of a compactor. Assumed, not measured: an order of magnitude for a server CPU."""

    #: For each page that a scanner looks at.
    scan: float = 10.0
    #: For each call for a page, whether it moves or not: page locks, unmapping, the driver.
    attempt: float = 500.0
    #: For each page moved: 4 KiB copied within a node, at 8 GiB/s. Between nodes, as many times more as the
    #: distance is longer than that of a node to itself.
    copy: float = 477.0


@dataclass(frozen=True, slots=True)
class RelocationSpec:
    """Moving pages between nodes."""

    #: "drain", "even-out" or, for memory of simulated processes, "nearer".
    kind: str
    #: The nodes to drain, or those among which memory is evened out, or from which it moves; none: all nodes.
    nodes: tuple[int, ...] = ()
    #: "before", "during" or "after" the compaction.
    when: str = "before"
    #: At most so many pages; None: as many as it takes.
    most_pages: int | None = None
    #: After which pass of ksmd, if there is one.
    after_pass: int | None = None
    #: "nearer": by how much the distances of a frame's mappings must become less in all, in SLIT units.
    min_gain: int = 1


@dataclass(frozen=True, slots=True)
class CompactionSpec:
    """The memory of every node, what is asked of it, and who compacts it."""

    nodes: int
    pages_per_node: int
    drivers: tuple[DriverSpec, ...]
    #: Part of the memory in LRU pages, and the part of those given up before.
    lru: float = 0.0
    lru_discard: float = 0.5
    #: Part of the memory in pages that nobody can move.
    unmovable: float = 0.0
    seed: int = 1
    #: When compactors work: "compact_memory", "direct", "proactive", or "none" for never.
    trigger: str = "compact_memory"
    #: vm.compaction_proactiveness, 0..100; for kcompactd alone.
    proactiveness: int = 20
    #: A name in `control.RULES`.
    kernel: str = "6.1"
    #: "async", "sync-light" or "sync".
    mode: str = "sync"
    #: What is allocated on each node, by compactors or afterwards: so many blocks of 2^order pages.
    order: int = 9
    attempts: int = 4
    #: Compactors at work on each node at once; kcompactd is one alone.
    compactors: int = 2
    #: Most pages that a step of a compactor locks or moves, where others can come in between.
    batch: int = 32
    #: Pages that a compactor goes through before it is another one's turn; None: see `turn_pages`.
    turn: int | None = None
    cost: MigrationCostSpec = MigrationCostSpec()
    #: One after the other, in this order, those of the same `when`.
    relocations: tuple[RelocationSpec, ...] = ()
    #: int64[nodes, nodes], SLIT units; needed for relocations.
    distance: Distances | None = field(default=None, compare=False)

    @property
    def turn_pages(self) -> int:
        """`turn`, by default so much that compactors of large nodes meet as often as those of small ones."""
        return max(2048, self.pages_per_node // 8) if self.turn is None else self.turn

    @property
    def workers(self) -> int:
        """Compactors of a node."""
        return {"none": 0, "proactive": 1}.get(self.trigger, self.compactors)
