"""Default sizes of the benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

from ksmcluster.system.errors import UserError


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes by command; pages are per node."""

    repeat: int
    pass_pages: int
    scaling_nodes: tuple[int, ...]
    scaling_pages: int
    startup_repeat: int
    startup_nodes: int
    startup_packed: tuple[int, ...]
    compaction_nodes: int
    compaction_pages: int
    memory_nodes: int
    memory_pages: tuple[int, ...]


#: For a laptop.
FULL = Sizes(
    repeat=5,
    pass_pages=1 << 18,
    scaling_nodes=(1, 2, 4, 8, 16, 32, 64),
    scaling_pages=1 << 18,
    startup_repeat=3,
    startup_nodes=64,
    startup_packed=(1, 8),
    compaction_nodes=2,
    compaction_pages=1 << 18,
    memory_nodes=8,
    memory_pages=(1 << 15, 1 << 16, 1 << 17, 1 << 18),
)

#: For continuous integration: all five commands together take less than a minute.
SHORT = Sizes(
    repeat=2,
    pass_pages=1 << 15,
    scaling_nodes=(1, 4),
    scaling_pages=1 << 13,
    startup_repeat=1,
    startup_nodes=4,
    startup_packed=(1,),
    compaction_nodes=2,
    compaction_pages=1 << 14,
    memory_nodes=4,
    memory_pages=(1 << 13, 1 << 15, 1 << 16),
)


def parse_numbers(option: str, text: str, most: int) -> tuple[int, ...]:
    """Parse numbers such as `1,2,4`. Raises UserError unless all are integers from 1 to `most`."""
    try:
        found = tuple(int(number) for number in text.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1 or max(found) > most:
        raise UserError(f"{option}: give numbers from 1 to {most:,}, separated by commas, as in 1,2,4")
    return found
