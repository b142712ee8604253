"""Whether a run fits into the memory of this host: asked before anything starts."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from ksmcluster.report import text
from ksmcluster.system.errors import UserError

#: What a page takes at least, for the run not to be refused when it would fit: less than what stays resident
#: (docs/explanation/performance.md), and far less than peaks.
PAGE = 50
#: The same for a page table entry that maps a frame which another one maps, too.
MAPPING = 20
#: The same for a page of `ksmcluster compact`, which has each memory twice.
COMPACTED_PAGE = 80
#: What loading a row of a snapshot takes at least, and what stays of it, which Ray has once more.
LOADED_ROW, KEPT_ROW = 30, 18
#: What an actor's process has to itself at least.
ACTOR = 30 << 20

#: Smaller than it is asked for, elsewhere, or anyhow.
REMEDY = (
    "give fewer --nodes or {less}, a Ray cluster with --address, or --no-memory-check to try all the same"
)

_MEMORY = Path("/sys/fs/cgroup/memory")
_UNIFIED = Path("/sys/fs/cgroup")


def check(pages: int, of_pages: int, actors: int, less: str) -> None:
    """UserError if so many pages in so many actors (0: in this process) do not fit into this host.

    The pages take `of_pages` bytes.
    """
    need = of_pages + actors * ACTOR
    if actors and _ray_is_there():
        return
    have = available() if actors else min(available(), _address_space())
    if need > have:
        raise UserError(
            f"{pages:,} pages take {text.size(need)} of memory at least, and this host has "
            f"{text.size(have)}: " + REMEDY.format(less=less)
        )


def available() -> int:
    """Bytes that programs can have without swapping, nor going beyond the limits of their control groups."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return min([int(fields["MemAvailable"].split()[0]) << 10, *_left_in_groups()])


def _left_in_groups() -> Iterator[int]:
    """What is left of the limits of this process's group and of those that it is in, for both versions."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = _UNIFIED, ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            root, names = _MEMORY, ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield from _left(folder, *names)


def _left(folder: Path, limit: str, usage: str, prefix: str) -> Iterator[int]:
    """What is left of a limit, if there is one; a container sees no more than its own group."""
    if not (folder / limit).is_file() or (most := (folder / limit).read_text().strip()) == "max":
        return
    counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    cached = int(counts[f"{prefix}active_file"]) + int(counts[f"{prefix}inactive_file"])  # goes if need be
    yield max(0, int(most) - int((folder / usage).read_text()) + cached)


def _address_space() -> int:
    """What `ulimit -v` leaves to this process."""
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(0, most - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())


def _ray_is_there() -> bool:
    """Whether this program has joined a Ray already, which may be on other machines."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()
