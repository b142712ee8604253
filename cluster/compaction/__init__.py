"""Physical memory of a node, pages that can move, and compaction (mm/compaction.c, mm/migrate.c).

From the bottom up: `pages` holds the state of pages and free blocks, `movable` migrates pages, `drivers` own
them, `zone` compacts, `internode` moves pages between nodes, `scenario` runs and reports all this,
`replay` compares it with records of kernels. Imports `cluster.arrays`, `cluster.spec`,
`cluster.script` (the form of records), and of `cluster.mm` only `frames`. Changes memories, by the methods of
`PageMap`, `Zone` and `Memory` alone.
"""
