"""The tables [migration] and [[driver]] in scenarios of `ksmcluster simulate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from cluster.compaction.movable.movable_frames import ANON_PAGES, KSM_PAGES
from cluster.spec.compaction import CompactionSpec
from ksmcluster.config.compaction import (
    COST,
    SPEC,
    DriverConfig,
    MigrationConfig,
    MigrationCostConfig,
    cost_spec,
    driver_problems,
    driver_specs,
    not_pageblocks,
    page_type_problems,
)
from ksmcluster.config.machine import MachineConfig
from ksmcluster.config.relocation import FrameRelocations, relocation_problems
from ksmcluster.config.tables import Costs, Part, key

#: Name of the owner "processes" among the drivers.
PROCESSES = (ANON_PAGES, KSM_PAGES)


class KsmMigrationCostConfig(MigrationCostConfig):
    """Simulated time of compactors and transfers, with KSM frames."""

    mapping_ns: Costs = key(COST.mapping, "For each mapping of a KSM frame that moves.", "ns")


class KsmMigrationConfig(MigrationConfig):
    """Compaction of the memory that ksmd scans."""

    trigger: Literal["compact_memory", "proactive", "none"] = key(
        SPEC["trigger"],
        "When compactors work. `compact_memory`: after each full pass of ksmd, as if 1 were written to "
        "/proc/sys/vm/compact_memory. `proactive`: kcompactd, after each full pass. `none`: never; the buddy "
        "allocator is still simulated.",
    )
    unmovable: Part = key(SPEC["unmovable"], "Share of each node's memory in kernel pages, which never move.")
    relocate: FrameRelocations = key((), "Moves of frames between nodes.")
    cost: KsmMigrationCostConfig = Field(
        default_factory=lambda: KsmMigrationCostConfig(), description="Simulated costs."
    )


def migration_problems(
    machine: MachineConfig, migration: KsmMigrationConfig | None, drivers: Sequence[DriverConfig]
) -> Iterator[tuple[str, str]]:
    """Yield settings that do not fit together."""
    if migration is None:
        if drivers:
            yield "driver", "has no meaning without a table [migration]"
        return
    if wrong := not_pageblocks(machine.memory_per_node):
        yield "machine.memory_per_node", f"{wrong}: there is a table [migration]"
    for i, driver in enumerate(drivers):
        if driver.name in PROCESSES:
            yield f"driver[{i}].name", f'"{driver.name}" is reserved for pages of processes'
    yield from driver_problems(drivers, {"migration.unmovable": migration.unmovable})
    yield from page_type_problems(drivers, migration.kernel)
    if kept(migration, drivers) >= 1:
        yield "driver", "no memory is left for the processes"
    if 1 << migration.order > machine.memory_per_node:
        yield "migration.order", "a block of this order is larger than the memory of a node"
    yield from relocation_problems(migration.relocate, machine.nodes)


def kept(migration: KsmMigrationConfig | None, drivers: Sequence[DriverConfig]) -> float:
    """Return the smallest share of each node's memory that processes cannot use."""
    if migration is None:
        return 0.0
    return migration.unmovable + sum(driver.share * (1 - driver.discard) for driver in drivers)


def to_migration_spec(
    machine: MachineConfig, migration: KsmMigrationConfig, drivers: Sequence[DriverConfig], seed: int
) -> CompactionSpec:
    """Return the spec of the compaction, which the simulation takes."""
    return CompactionSpec(
        nodes=machine.nodes,
        pages_per_node=machine.memory_per_node,
        drivers=driver_specs(drivers),
        seed=seed,
        cost=cost_spec(migration.cost),
        grain=migration.grain,
        **migration.model_dump(exclude={"cost", "grain", "relocate"}),
    )
