"""What to simulate: frozen inputs that travel to the actors, and the names of what comes out.

May import: `cluster.arrays`. Changes nothing, except that `knobs.KnobValues`, `knobs.Counters` and
`digest.Contents` are mutable objects, which their owners in other packages change.

- `scenario`, `compaction`: what a scenario asks for. `ksmcluster.config.conversion` makes these objects of a
  checked TOML file: of the key `max_page_sharing` the field `KsmSpec.max_page_sharing`, for example.
- `topology`: distances between nodes, and how many nodes a machine may have.
- `content`, `digest`: what pages hold, and the digests that stand for it. PAGE_SIZE is defined here.
- `captured_pages`: pages of captured processes.
- `profile`: which rules begin with which kernel.
- `knobs`: files of /sys/kernel/mm/ksm, and how the kernel reads numbers.
- `statistics`: every statistic with unit and meaning.
- `errors`: errors that a user can cause.
"""
