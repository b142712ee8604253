"""What to compact: frozen descriptions that travel to the actors. Sizes in pages, times in ns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.spec.topology import Distances


@dataclass(frozen=True, slots=True)
class DriverSpec:
    """A driver that every node has."""

    name: str
    #: Name in `drivers.registry`, or `package.module:Class`.
    kind: str
    #: Part of the node's memory that the driver fills; in (0, 1].
    share: float
    #: Part of its units, drawn at random, that the driver frees before the compaction; in [0, 1].
    discard: float = 0.5
    #: Keyword arguments of the driver's class.
    settings: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class MigrationCostSpec:
    """Simulated time that a compactor takes, in ns.

    Assumed, not measured, but for `mapping`: an order of magnitude for a server CPU.
    """

    #: For each page that a scanner looks at.
    scan: float = 10.0
    #: For each attempt to move a page, successful or not: page locks, unmapping, the driver.
    attempt: float = 500.0
    #: For each page moved: a copy of 4 KiB within a node, at 8 GiB/s. Between nodes it is multiplied by their
    #: distance over that of a node to itself.
    copy: float = 477.0
    #: For each mapping of a KSM frame that is to move: reverse mapping finds it, unmaps it and maps it again.
    #: Measured on Linux 6.18 (docs/explanation/model.md).
    mapping: float = 900.0


@dataclass(frozen=True, slots=True)
class RelocationSpec:
    """One move of pages between nodes."""

    #: "drain", "even-out" or, for memory of simulated processes, "nearer".
    kind: str
    #: The nodes to empty ("drain"), the nodes that share the load ("even-out"), or the nodes whose frames may
    #: move ("nearer"). Empty: all nodes.
    nodes: tuple[int, ...] = ()
    #: "before", "during" or "after" the compaction.
    when: str = "before"
    #: Move at most this many pages; None: no limit.
    most_pages: int | None = None
    #: `simulate`: the pass of ksmd after which it happens. None: `when` says the time.
    after_pass: int | None = None
    #: "nearer": a frame moves if that shortens the distances of its mappings by at least so many SLIT units
    #: in all.
    min_gain: int = 1


class StartSpec(NamedTuple):
    """The free memory with which a node begins."""

    #: Numbers of free blocks of orders 0 to 10.
    free_blocks: tuple[int, ...]
    #: Numbers of unmovable, movable and reclaimable pageblocks, the first and the last full of kernel pages
    #: where they are not free. Empty: pageblocks of the kernel are drawn.
    pageblocks: tuple[int, ...] = ()
    #: Of the free blocks, those in unmovable and in reclaimable pageblocks.
    free_unmovable: tuple[int, ...] = ()
    free_reclaimable: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CompactionSpec:
    """The memory of every node, how it is fragmented, and which compactors work on it."""

    nodes: int
    pages_per_node: int
    drivers: tuple[DriverSpec, ...]
    #: Part of the memory in LRU pages, and the part of these that is freed before the compaction.
    lru: float = 0.0
    lru_discard: float = 0.5
    #: Part of the memory in unmovable pages.
    unmovable: float = 0.0
    seed: int = 1
    #: What starts compactors: "compact_memory", "direct", "proactive" (kcompactd), or "none".
    trigger: str = "compact_memory"
    #: vm.compaction_proactiveness, 0..100; used by "proactive" alone.
    proactiveness: int = 20
    #: A name in `cluster.compaction.kernel_rules.COMPACTION_RULES`.
    kernel: str = "6.18"
    #: "async", "sync-light" or "sync".
    mode: str = "sync"
    #: Each node allocates `attempts` blocks of 2^order pages, during the compaction or after it.
    order: int = 9
    attempts: int = 4
    #: Compactors that work on each node at once; kcompactd is a single one.
    compactors: int = 2
    #: Most pages that a compactor locks or moves in one step; other compactors run between steps.
    batch: int = 32
    #: Pages that a compactor scans before the next compactor has its turn; None: see `turn_pages`.
    turn: int | None = None
    #: Pages that an owner fills before the next one, so that their pages lie mixed; at least a driver's
    #: largest block. None: so many that every pageblock has pages of several owners.
    grain: int | None = None
    cost: MigrationCostSpec = MigrationCostSpec()
    #: Those with the same `when` run one after the other, in this order.
    relocations: tuple[RelocationSpec, ...] = ()
    #: By node: its free memory. Owners then share the other memory, in proportion to their parts of the
    #: memory, and give up none. Empty: they fill the memory, and give up a part.
    start: tuple[StartSpec, ...] = ()
    #: int64[nodes, nodes], SLIT units; needed for relocations.
    distance: Distances | None = field(default=None, compare=False)

    @property
    def turn_pages(self) -> int:
        """`turn`; by default an eighth of the node, so that the number of turns does not grow with it."""
        return max(2048, self.pages_per_node // 8) if self.turn is None else self.turn

    @property
    def packages(self) -> set[str]:
        """The packages that the drivers of users come from."""
        modules = [driver.kind.partition(":")[0] for driver in self.drivers if ":" in driver.kind]
        return {module.partition(".")[0] for module in modules}

    @property
    def workers(self) -> int:
        """The number of compactors of a node."""
        return {"none": 0, "proactive": 1}.get(self.trigger, self.compactors)
