"""Compaction: scenario."""
