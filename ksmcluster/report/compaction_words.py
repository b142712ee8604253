"""How reports, pages and pictures call what compaction did."""

from __future__ import annotations

from ksmcluster.config.compaction import TriggeredMigrationConfig
from ksmcluster.report import text

#: What is reported of each driver, and its heading.
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
    "movable_off": "after, pages cannot move",
    "movable_on": "after, pages can move",
}


def who(migration: TriggeredMigrationConfig) -> tuple[str, ...]:
    """Say who compacts, and how: the parts of a list."""
    match migration.trigger:
        case "proactive":
            return (f"kcompactd, proactiveness {migration.proactiveness}",)
        case "direct":
            modes = "async" if migration.mode == "async" else "async, then sync-light"
            return f"direct compaction, {modes}", f"{text.counted(migration.compactors, 'allocator')} a node"
        case _:
            return f"mode {migration.mode}", f"{text.counted(migration.compactors, 'compactor')} a node"
