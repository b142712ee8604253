"""migrate_pages(): moving a list of isolated pages (mm/migrate.c)."""

from __future__ import annotations

from collections.abc import Callable

from cluster.arrays.words import Pfns
from cluster.compaction.kernel_rules import CompactionRules
from cluster.compaction.movable.migrate_batches import BatchMigration
from cluster.compaction.movable.migrate_one_by_one import OneByOneMigration
from cluster.compaction.movable.page_migration import PageMigration
from cluster.compaction.movable.targets import Targets
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode


def migrate_pages(
    memory: Memory,
    pfns: Pfns,
    targets: Targets,
    mode: MigrateMode,
    rules: CompactionRules,
    grain: int | None = None,
    free: Callable[[Pfns], None] | None = None,
) -> PageMigration:
    """Begin to migrate isolated pages, in this order, as the kernel of the rules does. int64[n]."""
    migration = BatchMigration if rules.targets_first else OneByOneMigration
    return migration(memory, pfns, targets, mode, rules, grain, free)
