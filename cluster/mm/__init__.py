"""The memory of one node."""
