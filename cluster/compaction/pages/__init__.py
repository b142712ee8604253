"""Compaction: pages."""
