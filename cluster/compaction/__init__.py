"""Physical memory of a node, pages that can move, and compaction (mm/compaction.c, mm/migrate.c)."""
