"""A compaction scenario: each node's memory is filled, compacted and reported on, in one process or many.

Imports `internode`, `zone`, `drivers`, `movable` and `pages`. `NodeMemory` owns everything on its node;
compactors and transfers change it in turns and steps (`compactor_pool`), in the order that `rounds` gives.
"""
