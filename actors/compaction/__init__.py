"""Compaction on Ray: actors that own nodes' memories, and migration actors that drive the compactors.

Imports the rest of `actors` and `cluster`; changes memories only through `cluster.compaction.scenario`.
"""
