"""Compaction: internode."""
