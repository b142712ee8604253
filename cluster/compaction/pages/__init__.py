"""What one node's memory consists of: pages, free blocks, zones, and the contract with the owners of pages.

`page_map` holds the state of every page and is the only module that changes it, `buddy` the free blocks of a
zone, `memory` zones and owners together, `movable_operations` what the VM asks of a driver. It imports
`cluster.arrays`, `cluster.spec` and the tags of mapping words from `cluster.mm`; no other package of
compaction.
"""
