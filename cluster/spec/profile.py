"""How the KSM of one kernel release differs from another's: a few named switches.

There is one simulator; a :class:`Profile` tells it which of the rules that changed over the years apply.
Sources: `mm/ksm.c` and `fs/proc/base.c` of the releases named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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
    #: The checksum and the zero page are tested before the stable tree is searched, not after.
    checksum_first: bool
    #: A stable page takes at most `max_page_sharing` sharers; more of them make a chain of dups.
    chains: bool
    #: A chain with one dup left becomes an ordinary node in every search, not only when pruning is due.
    collapse_always: bool
    #: Zero pages that KSM mapped are told from those that a read mapped: counted, and unmerged on demand.
    track_zero_pages: bool
    #: A forked process starts with its parent's counts of merged pages and rmap_items, not with 0.
    fork_copies_counts: bool
    #: prctl(PR_SET_MEMORY_MERGE) exists.
    merge_any: bool
    #: A VMA that gets new flags joins a neighbour even if it alone has an anon_vma (since 6.16).
    into_bare: bool
    #: Files of /sys/kernel/mm/ksm that count.
    counters: tuple[str, ...]
    #: Files of /sys/kernel/mm/ksm that can be set, other than run, pages_to_scan and sleep_millisecs.
    knobs: tuple[str, ...]
    #: Fields of /proc/PID/ksm_stat, and ksm_merging_pages, in their order.
    process_stats: tuple[str, ...]
    #: Fields of /proc/vmstat that belong to KSM.
    vmstat: tuple[str, ...]


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="4.8",
            checksum_first=False,
            chains=False,
            collapse_always=False,
            track_zero_pages=False,
            fork_copies_counts=False,
            merge_any=False,
            into_bare=False,
            counters=_COUNTERS_4_8,
            knobs=_KNOBS_4_8,
            process_stats=(),
            vmstat=(),
        ),
        Profile(
            name="6.1",
            checksum_first=False,
            chains=True,
            collapse_always=False,
            track_zero_pages=False,
            fork_copies_counts=True,
            merge_any=False,
            into_bare=False,
            counters=_COUNTERS_6_1,
            knobs=_KNOBS_6_1,
            process_stats=_STAT_6_1,
            vmstat=("cow_ksm", "ksm_swpin_copy"),
        ),
        Profile(
            name="6.12",
            checksum_first=True,
            chains=True,
            collapse_always=True,
            track_zero_pages=True,
            fork_copies_counts=False,
            merge_any=True,
            into_bare=False,
            counters=_COUNTERS_6_12,
            knobs=_KNOBS_6_12,
            process_stats=_STAT_6_12,
            vmstat=("cow_ksm", "ksm_swpin_copy"),
        ),
        Profile(
            name="6.18",
            checksum_first=True,
            chains=True,
            collapse_always=True,
            track_zero_pages=True,
            fork_copies_counts=False,
            merge_any=True,
            into_bare=True,
            counters=_COUNTERS_6_12,
            knobs=_KNOBS_6_12,
            process_stats=_STAT_6_18,
            vmstat=("cow_ksm", "ksm_swpin_copy"),
        ),
    )
}


def profile_of_release(release: str) -> Profile:
    """The newest profile that is not newer than a `uname -r` such as ``6.18.15+deb13-cloud-amd64``.

    Raises ValueError if the release is unreadable or older than every profile.
    """
    match = re.match(r"(\d+)\.(\d+)", release)
    if match is None:
        raise ValueError(f"not a kernel release: {release!r}")
    wanted = (int(match[1]), int(match[2]))
    fitting = [profile for profile in PROFILES.values() if _version(profile.name) <= wanted]
    if not fitting:
        raise ValueError(f"kernel {release} is older than every profile ({', '.join(PROFILES)})")
    return max(fitting, key=lambda profile: _version(profile.name))


def _version(name: str) -> tuple[int, int]:
    major, minor = name.split(".")
    return int(major), int(minor)
