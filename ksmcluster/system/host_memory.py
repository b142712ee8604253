"""Checks before a run whether it fits into the memory of this host."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from ksmcluster.report import text
from ksmcluster.system.errors import UserError

#: Bytes that a page takes at least. This is below the resident memory (docs/explanation/performance.md) and
#: far below the peak, so that no run that would fit is refused.
PAGE = 44
#: The same for a page table entry that maps an already mapped frame.
MAPPING = 20
#: The same for a page of `ksmcluster compact`, which holds each memory twice.
COMPACTED_PAGE = 80
#: Bytes that loading a row of a snapshot takes at least, and bytes that stay; Ray holds these again.
LOADED_ROW, KEPT_ROW = 30, 18
#: Bytes of the result of a node and pass, at least.
RESULT_ROW = 200
#: Bytes of a content of a pool under Zipf's law.
ZIPF_CONTENT = 8
#: Bytes of private memory of an actor's process, at least.
ACTOR = 30 << 20

#: Ways out: a smaller run, another machine, or no check.
REMEDY = "use fewer --nodes or {less}, a Ray cluster with --address, or --no-memory-check to try anyway"

_MEMORY = Path("/sys/fs/cgroup/memory")
_UNIFIED = Path("/sys/fs/cgroup")


def check(pages: int, of_pages: int, actors: int, less: str) -> None:
    """Raise UserError if `pages` pages in `actors` actors (0: in this process) do not fit into this host.

    The pages take `of_pages` bytes.
    """
    need = of_pages + actors * ACTOR
    if actors and _ray_is_there():
        return
    have = available() if actors else min(available(), _address_space())
    if need > have:
        raise UserError(
            f"{pages:,} pages need at least {text.size(need)} of memory, but this host has "
            f"{text.size(have)}: " + REMEDY.format(less=less)
        )


def available() -> int:
    """Return the bytes available without swapping and within the limits of the control groups."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return min([int(fields["MemAvailable"].split()[0]) << 10, *_left_in_groups()])


def _left_in_groups() -> Iterator[int]:
    """Yield the remaining memory of this process's control groups and their parents, for both versions."""
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
    """Yield the remaining memory below a limit, if there is one; a container sees only its own group."""
    if not (folder / limit).is_file() or (most := (folder / limit).read_text().strip()) == "max":
        return
    counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    cached = int(counts[f"{prefix}active_file"]) + int(counts[f"{prefix}inactive_file"])  # can be reclaimed
    yield max(0, int(most) - int((folder / usage).read_text()) + cached)


def _address_space() -> int:
    """Return the address space that `ulimit -v` leaves to this process."""
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(0, most - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())


def _ray_is_there() -> bool:
    """Return whether this program has joined a Ray cluster, which may be on other machines."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()
