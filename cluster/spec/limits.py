"""The limits of what users give, checked before work begins. docs/reference/limits.md has the comments."""

from __future__ import annotations

from typing import Final

#: Bytes of a scenario, topology, table of costs, script, points of a sweep, or copy of a file in /proc.
MOST_TEXT: Final = 16 << 20
#: Bytes of a file of JSON (record, baseline, summary, manifest), unpacked, too, and of a run of a sweep.
MOST_JSON: Final = 256 << 20
#: Tables and lists of a scenario in each other, and parts of a key.
MOST_DEPTH: Final = 64
#: Whole numbers of a scenario, in both directions.
MOST_INTEGER: Final = 2**63 - 1
#: Characters of a name in a scenario.
MOST_NAME: Final = 255
#: Characters of a title.
MOST_TITLE: Final = 1000
#: Characters of a line that tells of a mistake; what is more is left out of its middle.
MOST_MESSAGE: Final = 1000
#: Nodes of a machine, in scenarios and in scripts; Linux takes as many (MAX_NUMNODES).
MOST_NODES: Final = 1024
#: Pages of anything that has a size: 4 PiB, the most that x86-64 can address.
MOST_PAGES: Final = 1 << 40
#: Pages of memory of a node of `simulate`, 8 TiB: page frame numbers have 31 bits.
MOST_MEMORY: Final = 1 << 31
#: Passes of a run, and windows of a pass.
MOST_PASSES: Final = 1_000_000
#: Simulated seconds of a run, and of what is given in seconds.
MOST_SECONDS: Final = 1e9
#: The shortest period, interval or run, in simulated seconds.
LEAST_PERIOD: Final = 1e-9
#: Writes to a page in a simulated second.
MOST_RATE: Final = 1e9
#: What anything costs, in nanoseconds.
MOST_COST: Final = 1e12
#: Exponent of Zipf's law.
MOST_EXPONENT: Final = 100.0
#: Distance of two nodes; sums over all page table entries then stay below 2^63.
MOST_DISTANCE: Final = 1_000_000
#: `migration.attempts` and `migration.batch`.
MOST_ATTEMPTS: Final = 1_000_000
#: Pages that all processes of a script have at any time.
MOST_SCRIPT_PAGES: Final = 1 << 20
#: Bytes of the plan of a sweep, which has the scenario of each point.
MOST_PLAN: Final = 1 << 30
#: Points of a sweep, and its runs.
MOST_POINTS: Final = 100_000
#: Bytes of a table of results, unpacked, and of all runs of a sweep.
MOST_TABLE: Final = 8 << 30
#: Processes of a snapshot times its moments.
MOST_CAPTURES: Final = 1 << 26
#: Time of the last moment of a snapshot, in intervals.
MOST_STEPS: Final = 1_000_000
#: Bytes of the metadata of a snapshot.
MOST_METADATA: Final = 256 << 20
#: Rows of a row group of a snapshot.
MOST_GROUP_ROWS: Final = 1 << 22
#: Bytes of a row of a snapshot, unpacked.
MOST_ROW: Final = 64
#: Bytes of a row group besides its rows, unpacked.
MOST_GROUP: Final = 1 << 20
#: Program headers of a core file.
MOST_SEGMENTS: Final = 1 << 18
#: Bytes of the notes of a core file.
MOST_NOTES: Final = 16 << 20
#: Seconds of a time limit.
MOST_TIMEOUT: Final = 1_000_000
