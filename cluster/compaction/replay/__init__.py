"""Compaction: replay."""
