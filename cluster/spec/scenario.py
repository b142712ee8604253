"""What to simulate: frozen descriptions that travel to the actors.

`ksmcluster/config` validates a TOML scenario and makes one `SimulationSpec` of it; `cluster` and `actors`
read only these classes. Sizes are in pages of 4 KiB, times in seconds unless a name says otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.spec.compaction import CompactionSpec, RelocationSpec
from cluster.spec.plugin import PluginSpec


class PolicyMode(StrEnum):
    """Which nodes new frames come from (MPOL_* of mm/mempolicy.c)."""

    LOCAL = "local"
    BIND = "bind"
    PREFERRED = "preferred"
    INTERLEAVE = "interleave"
    #: No policy of the kernel: a class of the user's (`cluster.plugins.placement_policy`).
    PLUGIN = "plugin"


class ContentModel(StrEnum):
    """What the pages of a region hold when the simulation starts."""

    #: All bytes zero.
    ZERO = "zero"
    #: No other page of the machine has the content, except the `copies` in the same region.
    UNIQUE = "unique"
    #: Page i is the same in every process within `scope`: a shared library, or a table that each rank holds.
    REPLICATED = "replicated"
    #: Each page is drawn from the `distinct` contents of a named pool; `law` gives their popularity.
    POOL = "pool"
    #: Pages of a captured process.
    SNAPSHOT = "snapshot"
    #: Never touched: a page has no frame until the first write.
    UNTOUCHED = "untouched"
    #: What a class of the user's says (`cluster.plugins.workload_model`).
    PLUGIN = "plugin"


class Law(StrEnum):
    """How often each content of a pool is drawn."""

    UNIFORM = "uniform"
    ZIPF = "zipf"


class Scope(StrEnum):
    """Where all copies of a replicated page are equal: on the machine, or on each node."""

    MACHINE = "machine"
    NODE = "node"


class Rewrite(StrEnum):
    """What a write leaves in a page."""

    #: New content that no other page has.
    UNIQUE = "unique"
    #: The content that the region's model gave the page at the start.
    ORIGINAL = "original"
    #: A new draw from the region's pool. With the other models, as `UNIQUE`.
    REDRAW = "redraw"
    #: What the page holds; zeros if it has not been touched.
    SAME = "same"


class Clones(StrEnum):
    """What the clones of captured processes hold, if there are more processes than captured ones."""

    #: All clones share contents that at least two captured processes hold; the rest is private to each clone.
    DISTINCT = "distinct"
    #: The same as the captured process.
    IDENTICAL = "identical"


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """A placement policy, and the nodes that it names (none for `local`)."""

    policy: PolicyMode = PolicyMode.LOCAL
    nodes: tuple[int, ...] = ()
    plugin: PluginSpec | None = None


@dataclass(frozen=True, slots=True)
class WriteSpec:
    """Writes to a region: a Poisson process with the same rate for every page of the hot part."""

    #: Expected writes per hot page and simulated second.
    rate: float
    #: The hot part: this share of the region's pages, from its start; in (0, 1]. No other page is written.
    hot_fraction: float = 1.0
    #: Simulated seconds at which writes begin and end.
    start: float = 0.0
    stop: float = math.inf
    #: On/off phases within that time: length of a cycle in seconds, and the share of it that is on. Period 0:
    #: always on.
    period: float = 0.0
    duty: float = 1.0
    content: Rewrite = Rewrite.UNIQUE

    @property
    def may_merge_again(self) -> bool:
        """Return whether other pages may hold the content that is written."""
        return self.content is not Rewrite.UNIQUE

    def within(self, start: float, stop: float) -> bool:
        """Return whether there are writes in an interval of simulated seconds."""
        return self.start < stop and self.stop > start


@dataclass(frozen=True, slots=True)
class RegionSpec:
    """One VMA of every process of a kind."""

    name: str
    pages: int
    model: ContentModel
    mergeable: bool = True
    #: Whether its frames are pinned: they neither merge nor move.
    pinned: bool = False
    #: None: the policy of the process applies.
    policy: PolicySpec | None = None
    #: Share of its aligned HUGE_SIZE pages that are huge pages at the start.
    huge_pages: float = 0.0
    #: `unique`: the number of pages of the region that hold each content.
    copies: int = 1
    scope: Scope = Scope.MACHINE
    #: `pool`: name, size and law. Regions that name the same pool share contents.
    pool: str = ""
    distinct: int = 0
    law: Law = Law.UNIFORM
    #: Exponent s of the Zipf law: the k-th content (k = 1, 2, ...) has weight k**-s.
    exponent: float = 1.0
    writes: tuple[WriteSpec, ...] = ()
    plugin: PluginSpec | None = None
    #: `plugin`: `WorkloadModel.merging_rate` of its class; known when a run has made it.
    merging_rate: float = 0.0


class Advice(StrEnum):
    """Which memory of captured processes ksmd scans."""

    #: The mappings that it scans on the captured host.
    AS_CAPTURED = "as-captured"
    #: All that KSM can merge.
    ALL = "all"


class CapturedLayout(NamedTuple):
    """The captured processes of a snapshot, one element each."""

    #: Index of the first process of each one's family, with which it shares frames.
    families: tuple[int, ...]
    #: Whether ksmd scans any memory of the process.
    mergeable: tuple[bool, ...]
    #: Simulated seconds at which moments are replayed; one element a moment.
    times: tuple[float, ...]
    #: When it begins, in simulated seconds.
    begins: tuple[float, ...]
    #: Whether pages of any of them are pinned.
    pins: bool = False
    #: Whether any of them begins with huge pages.
    huge: bool = False


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A kind of process: `count` of them in all, spread over the nodes in blocks (rank order)."""

    name: str
    count: int
    regions: tuple[RegionSpec, ...]
    #: Children that each of them forks at the start, on its node.
    workers: int = 0
    policy: PolicySpec = PolicySpec()
    #: Snapshot file that the processes and their regions come from. Process i of the kind is captured process
    #: i modulo the number of captured processes.
    snapshot: str | None = None
    #: Simulated seconds between two moments of the snapshot; None: as captured.
    replay_interval: float | None = None
    clones: Clones = Clones.DISTINCT
    #: None: as captured if ksmd scans any of the captured memory on its host, else all.
    advice: Advice | None = None
    #: Whether huge pages of the snapshot are huge pages here; else they are small ones.
    huge_pages: bool = True
    #: What the snapshot tells of its processes; None until it is loaded, and without one.
    layout: CapturedLayout | None = None

    @property
    def total(self) -> int:
        """Return the number of processes, children included; each process is followed by its own."""
        return self.count * (1 + self.workers)

    def placed(self, nodes: int) -> NDArray[np.int64]:
        """Return the nodes of the processes, without workers, in blocks whose sizes differ by one at most.

        int64[count]
        """
        return np.arange(self.count) * nodes // max(self.count, 1)

    @property
    def policies(self) -> tuple[PolicySpec, ...]:
        """Return the policies of its regions and, first, its own."""
        return (self.policy, *(region.policy for region in self.regions if region.policy))

    @property
    def pins(self) -> bool:
        """Return whether any pages of the processes are pinned."""
        return any(region.pinned for region in self.regions) or (self.layout is not None and self.layout.pins)

    @property
    def huge(self) -> bool:
        """Return whether the processes may begin with huge pages."""
        return any(region.huge_pages for region in self.regions) or (
            self.layout is not None and self.layout.huge
        )

    @property
    def may_merge_again(self) -> bool:
        """Return whether the processes write content that other pages may hold."""
        if self.layout:
            return len(self.layout.times) > 1
        writes = (write for region in self.regions for write in region.writes)
        return any(w.may_merge_again for w in writes) or any(r.merging_rate for r in self.regions)

    def writes_within(self, start: float, stop: float) -> float:
        """Return how often a page is written in an interval, at most, with content that may merge again."""
        times = self.layout.times[1:] if self.layout else ()
        moments = sum(start < time <= stop for time in times)
        writes = (write for region in self.regions for write in region.writes)
        rates = [w.rate for w in writes if w.may_merge_again and w.within(start, stop)]
        rates += (region.merging_rate for region in self.regions)
        return max(moments, (stop - start) * max(rates, default=0.0))


@dataclass(frozen=True, slots=True, eq=False)
class MachineSpec:
    """The NUMA machine."""

    nodes: int
    #: Physical frames of each node.
    frames_per_node: int
    #: int64[nodes, nodes], SLIT units: 10 on the diagonal, larger is farther.
    distance: NDArray[np.int64]
    #: "symbolic" or "bytes".
    content: str = "symbolic"
    #: Whether trees have the kernel's shape, so that results that depend on it are exact. For small machines
    #: with symbolic contents; with merge_across_nodes=1 one node keeps all trees.
    tree_shape: bool = False


@dataclass(frozen=True, slots=True)
class KsmSpec:
    """The knobs of /sys/kernel/mm/ksm, and the kernel whose rules apply (`cluster.spec.profile`)."""

    kernel: str = "6.18"
    run: int = 1
    pages_to_scan: int = 100
    sleep_millisecs: int = 20
    merge_across_nodes: int = 1
    max_page_sharing: int = 256
    use_zero_pages: int = 0
    smart_scan: int = 1
    stable_node_chains_prune_millisecs: int = 2000
    #: "none" or "scan-time"; with the latter the advisor sets pages_to_scan (`cluster.ksm.advisor`).
    advisor_mode: str = "none"
    advisor_max_cpu: int = 70
    advisor_max_pages_to_scan: int = 30000
    advisor_min_pages_to_scan: int = 500
    #: Seconds.
    advisor_target_scan_time: int = 200
    #: Jiffies in a second (CONFIG_HZ): ksmd sleeps in jiffies.
    hz: int = 250
    #: "fresh": ksmd is switched on at the start. "steady": it has done `history_passes` passes before, over
    #: which the pages came evenly; None: so many that no page is young.
    history: str = "fresh"
    history_passes: int | None = None
    #: "one", or "per-node": a ksmd for each node. No kernel has that; it needs trees per node and no advisor.
    threads: str = "one"


@dataclass(frozen=True, slots=True)
class CostSpec:
    """CPU time that ksmd takes, in nanoseconds.

    docs/explanation/model.md says of what, and how it was measured.
    """

    #: Each page that ksmd comes to, and what the first time takes more: a new rmap_item.
    visit: float = 340.0
    first_visit: float = 135.0
    #: Each page that smart_scan skips.
    skip: float = 265.0
    checksum: float = 700.0
    #: What each page of a huge page takes less: the next one lies beside it in memory.
    huge_saves: float = 870.0
    #: Each level of a tree descended, and what it takes more where the tree is not in the cache.
    stable_level: float = 27.0
    unstable_level: float = 215.0
    uncached_level: float = 255.0
    #: Pages of a tree that are in the cache.
    cached_tree: float = 2048.0
    #: Each merge, and what it takes more to make a KSM frame of the page that it merges with.
    merge: float = 1800.0
    stable_node: float = 4800.0
    #: Each huge page split, and each of its pages of zeros, which gives way to the shared zero page.
    split: float = 226000.0
    split_zero: float = 470.0
    wakeup: float = 9600.0
    #: As the caches are cold after a sleep: what a visit takes more, by how few there are between two sleeps,
    #: and a comparison that is the first of its page since ksmd woke up.
    cold_visit: float = 50.0
    cold_level: float = 300.0
    #: Each checksum of a page in the memory of another node, for each 10 units of distance more than local.
    remote: float = 0.0
    #: A program's time for a write to a KSM page: the fault, a new frame and the copy.
    cow_fault: float = 1800.0
    #: How long ksmd waits for a CPU when it wakes up. Depends on the load of the machine.
    cpu_wait: float = 0.0


@dataclass(frozen=True, slots=True)
class SimulationSpec:
    """Everything that a simulation needs to know."""

    machine: MachineSpec
    ksm: KsmSpec
    processes: tuple[ProcessSpec, ...]
    seed: int = 1
    #: The run ends with the first pass that meets any of these: so many full passes of ksmd, a simulated time
    #: reached, or figures that stand still, within this part of the mapped pages (`cluster.machine.run_end`).
    passes: int | None = 6
    seconds: float | None = None
    tolerance: float | None = None
    #: Windows in a pass, between which processes write; None: as many as the writes need.
    windows_per_pass: int | None = None
    cost: CostSpec = field(default_factory=CostSpec)
    #: Frames come from a buddy allocator that drivers use as well, and are compacted after each pass. None: a
    #: plain list of free frames, no compaction.
    migration: CompactionSpec | None = None
    #: Moves of frames of processes between nodes, after passes; only with `migration`.
    relocations: tuple[RelocationSpec, ...] = ()
    #: Contents below this are in the order of memcmp (`CapturedPages.ordered`).
    ordered_contents: int = 0

    @property
    def writes(self) -> bool:
        """Return whether processes write after the start."""
        regions = (region for kind in self.processes for region in kind.regions)
        return any(kind.snapshot for kind in self.processes) or any(r.writes or r.plugin for r in regions)

    @property
    def packages(self) -> set[str]:
        """The packages that classes of users come from: workload models, placement policies and drivers."""
        plugins = [policy.plugin for kind in self.processes for policy in kind.policies]
        plugins += [region.plugin for kind in self.processes for region in kind.regions]
        names = {plugin.name.partition(".")[0].partition(":")[0] for plugin in plugins if plugin}
        return names | (self.migration.packages if self.migration else set())
