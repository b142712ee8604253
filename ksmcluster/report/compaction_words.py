"""The words for compaction in reports, pages and pictures."""

from __future__ import annotations

from collections.abc import Container

from ksmcluster.config.compaction import TriggeredMigrationConfig
from ksmcluster.report import text

#: The counts reported for each driver, and their headings.
COUNTS = {
    "moved": "moved",
    "retried": "retried",
    "failed": "failed",
    "put_back": "put back",
    "refused": "refused",
}
#: The states of memory of `node_reports.STATES`, for pictures and pages.
STATE_WORDS = {
    "before": "before",
    "movable_off": "after, pages unmovable",
    "movable_on": "after, pages movable",
}


def state_words(present: Container[str]) -> dict[str, str]:
    """Return the states of memory among these, with their words; without drivers, nothing is unmovable."""
    if "movable_off" in present:
        return STATE_WORDS
    return {"before": "before", "movable_on": "after"}


def who(migration: TriggeredMigrationConfig) -> tuple[str, ...]:
    """Return what compacts, and how, as parts of a list."""
    match migration.trigger:
        case "proactive":
            return (f"kcompactd, proactiveness {migration.proactiveness}",)
        case "direct":
            modes = "async" if migration.mode == "async" else "async, then sync-light"
            allocators = text.counted(migration.compactors, "allocator")
            return f"direct compaction, {modes}", f"{allocators} per node"
        case _:
            return f"mode {migration.mode}", f"{text.counted(migration.compactors, 'compactor')} per node"
