"""What moves pages within a zone: compaction, allocation of ranges, offlining (mm/compaction.c).

`compact_zone` is one run of compaction, `compact_steps` its single steps; `migrate_scanner` finds its pages,
`free_scanner` their targets; `direct_compact` starts runs. It imports the packages `movable` and `pages`, and
changes the state of pages by the methods of `PageMap`, `Zone` and `Memory` alone.
"""
