"""Compares compaction of this host's memory with what `ksmcluster compact` says of it.

Takes memory and gives parts of it back, so that free memory is in small pieces; waits until the per-CPU lists
are short; copies /proc/buddyinfo and /proc/pagetypeinfo; lets the kernel compact all of it (compact_memory);
and simulates the same from the copies. Needs root, and a kernel whose compaction can be simulated.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from cluster.arrays.words import Bool
from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER
from cluster.compaction.scenario.node_report import blocks_of
from ksmcluster.system.free_memory import free_blocks, managed_pages, waiting_pages
from ksmcluster.system.kernel_files import PROC
from ksmcluster.validate.procfs import vmstat

PAGE = mmap.PAGESIZE
#: The per-CPU lists are short below this part of the memory; the longest wait for it, in seconds.
SHORT, LONGEST_WAIT = 1 / 200, 120


def _half(pages: int, rng: np.random.Generator) -> Bool:
    return rng.random(pages) < 0.5


def _every_second(pages: int, rng: np.random.Generator) -> Bool:
    return np.arange(pages) % 2 == rng.integers(2)


def _runs(pages: int, rng: np.random.Generator) -> Bool:
    return np.repeat(_half(-(-pages // 8), rng), 8)[:pages]


#: Which pages are given back. bool[pages]
PATTERNS = {"half": _half, "every-second": _every_second, "runs-of-8": _runs}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--gib", type=int, default=4, help="memory to take")
    arguments.add_argument("--give-back", choices=sorted(PATTERNS), default="half")
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    with fragmented(given.gib << 30, given.give_back, given.seed), TemporaryDirectory() as folder:
        print(f"waited {wait_for_short_lists()} s for the per-CPU lists")
        options = [word for name in ("buddyinfo", "pagetypeinfo") for word in copied(name, Path(folder))]
        before, moved = free(), migrated()
        (PROC / "sys/vm/compact_memory").write_text("1")
        after, moved = free(), migrated() - moved
        simulated = predicted(options)
    blocks = simulated["free_blocks"]
    print(f"{'order':>5} {'before':>10} {'real':>10} {'simulated':>10}")
    for order, row in enumerate(zip(before, after, blocks["movable_on"], strict=True)):
        print(f"{order:>5}" + "".join(f" {count:>10,}" for count in row))
    gained = huge_pages(after) - huge_pages(before)
    expected = huge_pages(blocks["movable_on"]) - huge_pages(blocks["before"])
    print(f"huge pages gained: {gained:,}, simulated {expected:,}: {expected / gained:.2f}")
    expected = sum(owner["moved"] for owner in simulated["by_driver"].values())
    print(f"pages moved: {moved:,}, simulated {expected:,}: {expected / moved:.2f}")


def fragmented(size: int, pattern: str, seed: int) -> mmap.mmap:
    """Return memory of which pages were given back, so that free memory is in pieces."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for start in range(0, size, PAGE):
        memory[start] = 1
    given_back = PATTERNS[pattern](size // PAGE, np.random.default_rng(seed))
    edges = np.flatnonzero(np.diff(given_back, prepend=False, append=False)).reshape(-1, 2)
    for start, end in edges.tolist():
        memory.madvise(mmap.MADV_DONTNEED, start * PAGE, (end - start) * PAGE)
    return memory


def wait_for_short_lists() -> int:
    """Wait until few pages wait on per-CPU lists, which buddyinfo leaves out; return the seconds."""
    for second in range(LONGEST_WAIT):
        text = (PROC / "zoneinfo").read_text()
        if waiting_pages(text) < SHORT * sum(managed_pages(text).values()):
            return second
        time.sleep(1)
    raise SystemExit("the per-CPU lists stay long; try again on an idle machine")


def copied(name: str, folder: Path) -> tuple[str, str]:
    """Copy a file of /proc; return the option that reads the copy."""
    (folder / name).write_text((PROC / name).read_text())
    return f"--{name}", str(folder / name)


def free() -> list[int]:
    """Return the free blocks of this host by order."""
    return np.sum(list(free_blocks((PROC / "buddyinfo").read_text()).values()), axis=0).tolist()


def migrated() -> int:
    """Return how many pages were migrated since the host started."""
    return vmstat(["pgmigrate_success"])["pgmigrate_success"]


def huge_pages(blocks: list[int]) -> int:
    return blocks_of(np.array(blocks), PAGEBLOCK_ORDER)


def predicted(options: list[str]) -> dict[str, Any]:
    """Return the summary of a compaction that begins with these files."""
    kernel = f"migration.kernel={os.uname().release}"
    command = [sys.executable, "-m", "ksmcluster", "compact", *options, "--set", kernel]
    ran = subprocess.run(
        [*command, "--engine", "inline", "--json", "--quiet"], stdout=subprocess.PIPE, check=True
    )
    summary: dict[str, Any] = json.loads(ran.stdout)
    return summary


if __name__ == "__main__":
    main()
