"""Moving pages from one node to another: who sends how many to whom, and the two sides of each transfer.

Imports `pages`, `movable`, `drivers` and `zone`. Changes the memory of a node only in the steps of a transfer
(`transfer`), on a command to all nodes (`node_transfers`, `drain`), or when a page's driver frees it.
"""
