"""Compaction: zone."""
