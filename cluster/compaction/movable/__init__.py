"""Compaction: movable."""
