"""Simulate kernel samepage merging and movable-page migration on large NUMA machines."""

from importlib.metadata import version

__version__ = version("ksmcluster")
