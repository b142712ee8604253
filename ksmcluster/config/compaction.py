"""The scenarios of `ksmcluster compact`: memory full of driver pages, and its compaction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from cluster.compaction.drivers.registry import make_checked_driver
from cluster.compaction.kernel_rules import COMPACTION_RULES, KERNELS
from cluster.compaction.movable.counting import GUESTS
from cluster.compaction.movable.lru_pages import LRU
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import MAX_BLOCK_PAGES, MAX_ORDER, PAGEBLOCK_PAGES, PageMap
from cluster.compaction.scenario.start_state import misfit
from cluster.plugins.loading import PluginError
from cluster.spec.compaction import CompactionSpec, DriverSpec, MigrationCostSpec, StartSpec
from cluster.spec.limits import MOST_ATTEMPTS, MOST_NODES, MOST_PAGES
from ksmcluster.config.machine import TopologyConfig, fit
from ksmcluster.config.problems import not_a_class, refusal
from ksmcluster.config.processes import repeated
from ksmcluster.config.relocation import Relocations, relocation_problems
from ksmcluster.config.sizes import Pages, format_size
from ksmcluster.config.tables import (
    ConfigTable,
    Costs,
    Count,
    Name,
    Part,
    Seed,
    Settings,
    Share,
    Title,
    as_known_kernel,
    key,
)
from ksmcluster.report.text import counted

ZSMALLOC = "zram"  #: kind of the driver whose pages have the page type of zsmalloc
#: Kinds of drivers that need no page type of zsmalloc, or have it.
WITHOUT_OWN_TYPE = (ZSMALLOC, "balloon", "pinned")
SPEC: dict[str, Any] = {field.name: field.default for field in fields(CompactionSpec)}
DRIVER: dict[str, Any] = {field.name: field.default for field in fields(DriverSpec)}
COST = MigrationCostSpec()

CompactionKernel = Literal["4.8", "6.1", "6.12", "6.18", "7.2"]
Order = Annotated[int, Field(ge=0, le=MAX_ORDER)]
Compactors = Annotated[int, Field(ge=1, le=64)]
Attempts = Annotated[int, Field(ge=1, le=MOST_ATTEMPTS)]
Blocks = Annotated[int, Field(ge=0, le=MOST_PAGES)]
#: Numbers of blocks, a list for each node.
FreeBlocks = Annotated[tuple[Annotated[tuple[Blocks, ...], Field(strict=False)], ...], Field(strict=False)]
#: Keys of [machine] for a start state, in the order of `StartSpec`, and how many numbers each node has.
_START = {
    "free_blocks": MAX_ORDER + 1,
    "pageblocks": 3,
    "free_unmovable": MAX_ORDER + 1,
    "free_reclaimable": MAX_ORDER + 1,
}


class CompactionRunConfig(ConfigTable):
    """The run."""

    title: Title = key("", "Heading of the report.")
    seed: Seed = key(SPEC["seed"], "The same seed and scenario give the same result, byte for byte.")


class CompactionMachineConfig(ConfigTable):
    """The NUMA machine."""

    nodes: int = Field(ge=1, le=MOST_NODES, description="NUMA nodes.")
    memory_per_node: Pages = key(..., "Physical memory of each node, whole pageblocks of 2MiB.", "size")
    lru: Part = key(SPEC["lru"], "Share of it in LRU pages (anonymous memory of processes), which can move.")
    lru_discard: Part = key(SPEC["lru_discard"], "Share of the LRU pages that is freed before compaction.")
    unmovable: Part = key(SPEC["unmovable"], "Share of it in kernel pages, which never move.")
    free_blocks: FreeBlocks | None = key(
        None,
        "Free memory to begin with, as in `/proc/buddyinfo`: for each node a list of its free blocks of "
        "orders 0 to 10. Drivers, LRU pages and the kernel then have the other memory, in proportion to "
        "their shares, and free nothing.",
    )
    pageblocks: FreeBlocks | None = key(
        None,
        "With `free_blocks`: for each node the numbers of unmovable, movable and reclaimable pageblocks, as "
        "in `/proc/pagetypeinfo`. Used pages of the movable ones can move; those of the others are the "
        "kernel's, and so are pageblocks that are not counted. `unmovable` must be 0 then.",
    )
    free_unmovable: FreeBlocks | None = key(
        None, "With `pageblocks`: for each node, which of `free_blocks` are in unmovable pageblocks."
    )
    free_reclaimable: FreeBlocks | None = key(None, "The same for reclaimable pageblocks.")
    topology: TopologyConfig = Field(
        default_factory=lambda: TopologyConfig(), description="Distances between the nodes."
    )

    @field_validator("memory_per_node")
    @classmethod
    def _pageblocks(cls, pages: int) -> int:
        if wrong := not_pageblocks(pages):
            raise ValueError(wrong)
        return pages

    @model_validator(mode="after")
    def _shape(self) -> Self:
        fit(self.topology, self.nodes)
        if problems := list(self._wrong_lists()) or list(self._misfits()):
            raise refusal(problems)
        return self

    def _wrong_lists(self) -> Iterator[tuple[str, str]]:
        """Yield problems of the keys of a start state: `free_blocks` alone, or all of them."""
        given = [name for name in _START if getattr(self, name) is not None]
        for name in given if given == ["free_blocks"] else _START if given else ():
            lists = getattr(self, name)
            if lists is None:
                yield name, f"is missing; machine.{given[-1]} needs it"
            elif len(lists) != self.nodes:
                yield name, f"has {counted(len(lists), 'list')}, but machine.nodes is {self.nodes}"
            for node, numbers in enumerate(lists or ()):
                if len(numbers) != _START[name]:
                    yield f"{name}[{node}]", f"must have {_START[name]} numbers, not {len(numbers)}"

    def _misfits(self) -> Iterator[tuple[str, str]]:
        """Yield why a start state does not fit into the memory of a node."""
        if self.unmovable and self.pageblocks is not None:
            yield "unmovable", "has no meaning with machine.pageblocks, which says what kernel pages fill"
        for node, start in enumerate(self.start()):
            if reason := misfit(start, self.memory_per_node):
                size = format_size(self.memory_per_node)
                yield f"free_blocks[{node}]", f"{reason} in {size} (machine.memory_per_node)"

    def start(self) -> tuple[StartSpec, ...]:
        """Return the free memory with which each node begins; empty if drivers and LRU pages make it."""
        lists = [getattr(self, name) for name in _START]
        return tuple(StartSpec(*node) for node in zip(*filter(None, lists), strict=True))


def not_pageblocks(pages: int) -> str:
    """Return why compaction cannot use this memory of a node; empty if it consists of whole pageblocks."""
    if pages % PAGEBLOCK_PAGES == 0 and pages >= 2 * PAGEBLOCK_PAGES:
        return ""
    least, near = 2 * PAGEBLOCK_PAGES, pages // PAGEBLOCK_PAGES * PAGEBLOCK_PAGES
    return (
        f"must be a multiple of 2MiB, from {format_size(least)}, not {format_size(pages)}; "
        f"give {format_size(max(near, least))}"
    )


class MigrationConfig(ConfigTable):
    """Compaction: its rules, its goal and its compactors."""

    kernel: CompactionKernel = key(
        SPEC["kernel"], "The kernel whose compaction is simulated; a full release is taken as one of these."
    )
    proactiveness: Annotated[int, Field(ge=0, le=100)] = key(
        SPEC["proactiveness"], "`vm.compaction_proactiveness`, for kcompactd; 0 turns it off."
    )
    mode: Literal["async", "sync-light", "sync"] = key(
        SPEC["mode"],
        "Migration mode of `compact_memory`. Allocations stay async or switch to sync-light.",
    )
    order: Order = key(SPEC["order"], "Order of the blocks to allocate; 9: huge pages of 2 MiB.")
    attempts: Attempts = key(SPEC["attempts"], "Number of such blocks to allocate on each node.")
    compactors: Compactors = key(
        SPEC["compactors"], "Compactors that work on each node at the same time; kcompactd is always alone."
    )
    batch: Attempts = key(
        SPEC["batch"], "The most pages that a compactor has locked when it is interrupted.", "pages"
    )
    turn: Count | None = key(
        SPEC["turn"],
        "Memory that a compactor scans before the next compactor's turn; by default 2048 pages or an eighth "
        "of a node, whichever is larger.",
        "pages",
    )
    grain: Pages | None = key(
        SPEC["grain"],
        "How finely the pages of different owners are mixed: memory that one owner fills before the next "
        "owner's turn; at least a driver's largest block. By default 64KiB, or less if an owner's share is "
        "small, so that every pageblock has pages of several owners.",
        "size",
    )

    @field_validator("kernel", mode="before")
    @classmethod
    def _known(cls, kernel: object) -> object:
        return as_known_kernel(kernel, KERNELS)

    @field_validator("trigger", mode="before", check_fields=False)
    @classmethod
    def _by_its_name(cls, trigger: object) -> object:
        if trigger == "kcompactd":
            raise ValueError('kcompactd\'s compaction is called "proactive"')
        return trigger


class TriggeredMigrationConfig(MigrationConfig):
    """Compaction with a trigger."""

    trigger: Literal["compact_memory", "direct", "proactive"] = key(
        SPEC["trigger"], "What starts compaction: `compact_memory`, failing allocations, or kcompactd."
    )
    relocate: Relocations = key((), "Moves of pages between nodes.")


class MigrationCostConfig(ConfigTable):
    """Simulated time of compactors and transfers."""

    scan_ns: Costs = key(COST.scan, "For each page that a scanner looks at.", "ns")
    attempt_ns: Costs = key(COST.attempt, "For each attempt to move a page.", "ns")
    copy_ns: Costs = key(
        COST.copy, "For each page moved within a node; between nodes, multiplied by distance / 10.", "ns"
    )


class DriverConfig(ConfigTable):
    """A driver that fills memory of every node."""

    name: Name = key(..., "Name, unique in the scenario.")
    kind: Name = key(..., "A bundled driver (docs/howto/drivers.md), or PACKAGE.MODULE:CLASS.")
    share: Share = key(..., "Share of the memory that it fills.")
    discard: Part = key(
        DRIVER["discard"], "Share of its units, chosen at random, that it frees before the compaction."
    )
    settings: Settings = Field({}, description="Settings of this kind of driver.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name in (LRU, GUESTS):
            what = {LRU: "LRU pages", GUESTS: "pages of other nodes' drivers"}[self.name]
            raise refusal([("name", f'"{self.name}" is reserved for {what}')])
        if ":" in self.kind:
            if wrong := not_a_class(self.kind):
                raise refusal([("kind", wrong)])
            return self
        try:
            try_driver(self.kind, self.settings)
        except PluginError as error:
            raise refusal([("", str(error))]) from None
        except (ArithmeticError, TypeError, ValueError) as error:
            raise refusal([("settings", str(error))]) from None
        return self


def try_driver(kind: str, settings: Mapping[str, object]) -> None:
    """Create a driver and let it allocate. Raises PluginError, or what a built-in driver raises."""
    pages = PageMap(MAX_BLOCK_PAGES)
    pages.set_free(np.ones(pages.count, np.bool_))
    memory = Memory(pages, [Zone(pages, 0, pages.count)])
    make_checked_driver(kind, memory, settings).allocate(1)


class CompactionScenario(ConfigTable):
    """A scenario of `ksmcluster compact`. Returned by `ksmcluster.config.load_compaction`."""

    simulation: CompactionRunConfig = Field(
        default_factory=lambda: CompactionRunConfig(), description="The run."
    )
    machine: CompactionMachineConfig = Field(description="The NUMA machine.")
    migration: TriggeredMigrationConfig = Field(
        default_factory=lambda: TriggeredMigrationConfig(), description="Compaction."
    )
    cost: MigrationCostConfig = Field(
        default_factory=lambda: MigrationCostConfig(), description="Simulated costs."
    )
    driver: Annotated[tuple[DriverConfig, ...], Field(strict=False)] = key((), "Drivers that fill memory.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problems := list(self._problems()):
            raise refusal(problems)
        return self

    def start_notes(self) -> Iterator[str]:
        """Yield what was drawn of a start state, and what is assumed."""
        machine = self.machine
        if machine.pageblocks is not None:
            yield (
                "free blocks and pageblocks of each type are as given; their places are drawn with the seed; "
                "used pages of movable pageblocks can move, others cannot"
            )
        elif machine.free_blocks is not None:
            shares = [*(driver.share for driver in self.driver), machine.lru]
            movable = sum(shares) / (sum(shares) + machine.unmovable)
            yield (
                "free blocks are as given; their places are drawn with the seed, and so is which used pages "
                f"can move: {movable:.0%} of them, by the shares of drivers and kernel (machine.unmovable)"
            )

    def _problems(self) -> Iterator[tuple[str, str]]:
        machine = self.machine
        if not self.driver and not machine.lru:
            yield "machine.lru", "is 0, and there is no [[driver]], so no page can move; give one of them"
        others = {"machine.lru": machine.lru, "machine.unmovable": machine.unmovable}
        yield from driver_problems(self.driver, others)
        yield from page_type_problems(self.driver, self.migration.kernel)
        if 1 << self.migration.order > self.machine.memory_per_node:
            yield "migration.order", "a block of this order is larger than the memory of a node"
        yield from relocation_problems(self.migration.relocate, self.machine.nodes)


def driver_problems(
    drivers: Sequence[DriverConfig], others: Mapping[str, float]
) -> Iterator[tuple[str, str]]:
    """Yield problems: repeated names, and shares that add up to more than 1 with those of `others`."""
    for i, text in repeated([driver.name for driver in drivers]):
        yield f"driver[{i}].name", text
    total = math.fsum([*(driver.share for driver in drivers), *others.values()])
    if total > 1:
        names = " and ".join(", ".join(["shares", *others]).rsplit(", ", 1))
        yield "driver", f"{names} add up to {total:g} of the memory; the most is 1"


def page_type_problems(
    drivers: Sequence[DriverConfig], kernel: CompactionKernel
) -> Iterator[tuple[str, str]]:
    """Drivers that cannot register in this kernel, because others have the only page types that there are."""
    if not COMPACTION_RULES[kernel].page_types:
        return
    taken: str | None = next((driver.name for driver in drivers if driver.kind == ZSMALLOC), None)
    for i, driver in enumerate(drivers):
        if driver.kind in WITHOUT_OWN_TYPE:
            continue
        if taken is not None:
            yield (
                f"driver[{i}].kind",
                f'"{driver.kind}" cannot register: since 6.17 movable pages have a page type, and "{taken}" '
                'has that of zsmalloc, the only one to be had; choose migration.kernel = "6.12"',
            )
        taken = driver.name


def driver_specs(drivers: Sequence[DriverConfig]) -> tuple[DriverSpec, ...]:
    """Return the specs of the drivers."""
    return tuple(DriverSpec(d.name, d.kind, d.share, d.discard, tuple(d.settings.items())) for d in drivers)


def cost_spec(cost: MigrationCostConfig) -> MigrationCostSpec:
    """Return the spec of the costs."""
    return MigrationCostSpec(**{name.removesuffix("_ns"): ns for name, ns in cost.model_dump().items()})


def to_compaction_spec(scenario: CompactionScenario) -> CompactionSpec:
    """Return the spec of a scenario, which the simulation takes."""
    machine = scenario.machine
    return CompactionSpec(
        nodes=machine.nodes,
        pages_per_node=machine.memory_per_node,
        drivers=driver_specs(scenario.driver),
        lru=machine.lru,
        lru_discard=machine.lru_discard,
        unmovable=machine.unmovable,
        seed=scenario.simulation.seed,
        cost=cost_spec(scenario.cost),
        relocations=tuple(relocation.to_spec() for relocation in scenario.migration.relocate),
        distance=machine.topology.build(machine.nodes),
        grain=scenario.migration.grain,
        start=machine.start(),
        **scenario.migration.model_dump(exclude={"grain", "relocate"}),
    )
