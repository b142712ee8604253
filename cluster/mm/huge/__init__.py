"""Transparent huge pages (mm/huge_memory.c): how they are mapped, faulted in, collapsed and split."""
