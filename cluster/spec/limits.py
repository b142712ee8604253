"""The limits of what users give, checked before work begins (docs/reference/limits.md is made of them)."""

from __future__ import annotations

from typing import Final

#: Bytes of a scenario, a topology, a table of costs or a script.
MOST_TEXT: Final = 16 << 20
#: Bytes of JSON: records, baselines, summaries and manifests; of compressed records, also when unpacked.
MOST_JSON: Final = 256 << 20
#: Tables and lists inside each other.
MOST_DEPTH: Final = 64
#: Every whole number lies between minus this and this.
MOST_INTEGER: Final = 2**63 - 1
MOST_NAME: Final = 255
MOST_TITLE: Final = 1000
#: Characters of a line on the terminal that tells of a mistake.
MOST_MESSAGE: Final = 1000
MOST_PASSES: Final = 1_000_000
#: Simulated time, in seconds.
MOST_SECONDS: Final = 1e9
LEAST_PERIOD: Final = 1e-9
#: Writes to a page in a simulated second.
MOST_RATE: Final = 1e9
#: Nanoseconds, or pages of a cache.
MOST_COST: Final = 1e12
MOST_EXPONENT: Final = 100.0
#: SLIT units; sums of them over all page table entries stay below 2^63.
MOST_DISTANCE: Final = 1_000_000
#: Points of a sweep.
MOST_POINTS: Final = 100_000
#: Blocks that compaction is asked for, and pages that it has in hand.
MOST_ATTEMPTS: Final = 1_000_000
#: Bytes of a table of results when unpacked.
MOST_TABLE: Final = 8 << 30
#: Processes of a snapshot times its moments.
MOST_CAPTURES: Final = 1 << 26
#: Bytes of a snapshot's metadata, a JSON text.
MOST_METADATA: Final = 1 << 28
#: Rows of a row group of a snapshot, and bytes of one of them when unpacked.
MOST_GROUP_ROWS: Final = 1 << 22
MOST_ROW: Final = 64
#: Bytes of a row group besides.
MOST_GROUP: Final = 1 << 20
#: PT_LOAD and other headers of a core file, and bytes of its notes.
MOST_SEGMENTS: Final = 1 << 18
MOST_NOTES: Final = 16 << 20
