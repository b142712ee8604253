"""Which rule of KSM begins with which kernel: a few named switches.

There is one simulator. A `Profile` says which of the rules that changed over the years apply. Each profile
below names only what changed since the one before it. (The rules of page migration and compaction have their
own table: `cluster.compaction.zone.compact_control.RULES`.)

Sources: `mm/ksm.c`, `mm/vma.c` and `fs/proc/base.c` of the releases named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

_COUNTERS_4_8 = ("full_scans", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
_COUNTERS_6_1 = (*_COUNTERS_4_8, "stable_node_chains", "stable_node_dups")
_COUNTERS_6_12 = (*_COUNTERS_6_1, "general_profit", "ksm_zero_pages", "pages_scanned", "pages_skipped")

_KNOBS_4_8 = ("merge_across_nodes",)
_KNOBS_6_1 = (
    *_KNOBS_4_8,
    "max_page_sharing",
    "stable_node_chains_prune_millisecs",
    "use_zero_pages",
)
_KNOBS_6_12 = (
    *_KNOBS_6_1,
    "advisor_max_cpu",
    "advisor_max_pages_to_scan",
    "advisor_min_pages_to_scan",
    "advisor_mode",
    "advisor_target_scan_time",
    "smart_scan",
)

_STAT_6_1 = ("ksm_merging_pages", "ksm_rmap_items")
_STAT_6_12 = (*_STAT_6_1, "ksm_zero_pages", "ksm_process_profit")
_STAT_6_18 = (*_STAT_6_12, "ksm_merge_any", "ksm_mergeable")


@dataclass(frozen=True, slots=True)
class Profile:
    """The switches of one kernel release."""

    name: str
    #: The first release that it applies to.
    since: tuple[int, ...]
    #: A visit tests the checksum and the zero page before it searches the stable tree, not after.
    checksum_first: bool
    #: A KSM frame takes at most `max_page_sharing` sharers; more frames of the content form a chain of dups.
    chains: bool
    #: A chain with one dup left becomes an ordinary node in every search, not only when pruning is due.
    collapse_always: bool
    #: The kernel tells zero pages that KSM mapped from those that a read mapped: it counts and unmerges them.
    track_zero_pages: bool
    #: A forked process starts with its parent's counts of merged pages and rmap_items, not with 0.
    fork_copies_counts: bool
    #: prctl(PR_SET_MEMORY_MERGE) exists.
    merge_any: bool
    #: A VMA that has an anon_vma and gets new flags joins a neighbour that has none (since 6.16).
    into_bare: bool
    #: The split of a huge page maps its small pages of zeros to the shared zero page (since 6.12).
    split_maps_zero_page: bool
    #: A write into the huge zero page allocates a whole huge page, not a small one (since 6.13).
    huge_zero_page_cow: bool
    #: MADV_DONTNEED of an aligned 512 pages frees their page table (since 6.14).
    frees_page_tables: bool
    #: MADV_COLLAPSE takes 512 pages none of which is writable (not on 6.12).
    collapse_read_only: bool
    #: A write reuses a page of a huge page that only this process maps any more (since 6.15).
    reuse_of_huge_page: bool
    #: A huge page that several processes map by a PMD is not split: each attempt splits one PMD and fails.
    split_stops_at_pmd: bool
    #: An item that leaves a stable node loses its checksum and its age, and is not skipped (since 7.3).
    leaving_forgets: bool
    #: Counters in /sys/kernel/mm/ksm.
    counters: tuple[str, ...]
    #: Knobs in /sys/kernel/mm/ksm, without run, pages_to_scan and sleep_millisecs, which all kernels have.
    knobs: tuple[str, ...]
    #: Fields of /proc/PID/ksm_stat, and ksm_merging_pages, in the kernel's order.
    process_stats: tuple[str, ...]
    #: Fields of /proc/vmstat that belong to KSM.
    vmstat: tuple[str, ...]


_LINUX_4_8 = Profile(
    name="4.8",
    since=(4, 8),
    checksum_first=False,
    chains=False,
    collapse_always=False,
    track_zero_pages=False,
    fork_copies_counts=False,
    merge_any=False,
    into_bare=False,
    split_maps_zero_page=False,
    huge_zero_page_cow=False,
    frees_page_tables=False,
    collapse_read_only=False,
    reuse_of_huge_page=False,
    split_stops_at_pmd=False,
    leaving_forgets=False,
    counters=_COUNTERS_4_8,
    knobs=_KNOBS_4_8,
    process_stats=(),
    vmstat=(),
)

_LINUX_6_1 = replace(
    _LINUX_4_8,
    name="6.1",
    since=(6, 1),
    chains=True,
    fork_copies_counts=True,
    counters=_COUNTERS_6_1,
    knobs=_KNOBS_6_1,
    process_stats=_STAT_6_1,
    vmstat=("cow_ksm", "ksm_swpin_copy"),
)

_LINUX_6_12 = replace(
    _LINUX_6_1,
    name="6.12",
    since=(6, 12),
    checksum_first=True,
    collapse_always=True,
    track_zero_pages=True,
    fork_copies_counts=False,
    merge_any=True,
    split_maps_zero_page=True,
    counters=_COUNTERS_6_12,
    knobs=_KNOBS_6_12,
    process_stats=_STAT_6_12,
)

#: The early releases of 6.18. Recorded are 6.18.15 and 6.18.44; which release between them repaired the split
#: of shared huge pages is not known.
_LINUX_6_18_15 = replace(
    _LINUX_6_12,
    name="6.18.15",
    since=(6, 18),
    into_bare=True,
    huge_zero_page_cow=True,
    frees_page_tables=True,
    collapse_read_only=True,
    reuse_of_huge_page=True,
    split_stops_at_pmd=True,
    process_stats=_STAT_6_18,
)

_LINUX_6_18 = replace(_LINUX_6_18_15, name="6.18", since=(6, 18, 16), split_stops_at_pmd=False)

_LINUX_7_3 = replace(_LINUX_6_18, name="7.3", since=(7, 3), leaving_forgets=True)

#: By name, oldest first.
PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (_LINUX_4_8, _LINUX_6_1, _LINUX_6_12, _LINUX_6_18_15, _LINUX_6_18, _LINUX_7_3)
}


def profile_of_release(release: str, among: Iterable[str] | None = None) -> Profile:
    """Return the newest profile that is not newer than a `uname -r` such as `6.18.15+deb13-cloud-amd64`.

    `among` has the names of the profiles to choose from; all if it is missing. Raises ValueError if `release`
    is no kernel release, or older than every profile.
    """
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if match is None:
        raise ValueError(f"not a kernel release: {release!r}")
    wanted = tuple(int(part or 0) for part in match.groups())
    names = PROFILES if among is None else among
    fitting = [PROFILES[name] for name in names if PROFILES[name].since <= wanted]
    if not fitting:
        raise ValueError(f"kernel {release} is older than every profile ({', '.join(names)})")
    return max(fitting, key=lambda profile: profile.since)
