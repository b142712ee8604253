"""Which rule of KSM begins and ends with which kernel.

There is one simulator. `RULES` says of each rule that changed over the years in which of the known kernels it
holds; a `Profile` is what holds in one of them. (The rules of page migration and compaction have their own
table, of the same form: `cluster.compaction.kernel_rules`.)

Sources: records of the releases that `KERNELS` names, and `mm/ksm.c`, `mm/vma.c` and `fs/proc/base.c`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple


class UnknownKernelError(ValueError):
    """A text is no kernel release, or that of a kernel older than all known ones."""


class Kernel(NamedTuple):
    """A kernel whose rules are known."""

    name: str
    #: The first release that is taken as this kernel.
    since: tuple[int, ...]
    #: What is known of it.
    source: str

    @property
    def recorded(self) -> bool:
        """Return whether a real kernel was observed."""
        return self.source.startswith("records")


#: Oldest first. A release is taken as the newest of these that is not newer, a series such as "6.18" as its
#: newest known release. Which release between 6.18.15 and 6.18.44 repaired the split of shared huge pages is
#: not known.
KERNELS = (
    Kernel("4.8", (4, 8), "source"),
    Kernel("6.1", (6, 1), "records of 6.1.192"),
    Kernel("6.12", (6, 12), "records of 6.12.117"),
    Kernel("6.16", (6, 16), "records of 6.16.12, few with huge pages"),
    Kernel("6.17", (6, 17), "records of 6.17.13, few with huge pages"),
    Kernel("6.18.15", (6, 18), "records of 6.18.15"),
    Kernel("6.18", (6, 18, 16), "records of 6.18.44"),
    Kernel("7.2", (7, 2), "records of 7.2.12 and 7.2.13"),
    Kernel("7.3", (7, 3), "records of 7.3.4"),
)


class KernelRule(NamedTuple):
    """A rule, the kernel with which it begins, and the first one in which it does not hold any more."""

    name: str
    meaning: str
    begins: str
    ends: str | None = None
    #: The kernel between two known ones with which it begins, as read from source.
    read: str = ""

    def observed(self, kernels: tuple[Kernel, ...]) -> bool:
        """Return whether records show it begin and end: there are some of the kernels on both sides."""
        names = [kernel.name for kernel in kernels]
        changes = [names.index(kernel) for kernel in (self.begins, self.ends) if kernel is not None]
        return all(kernels[i].recorded for change in changes for i in (change - 1, change) if i >= 0)


#: A rule that ended and came back has two rows. Its name is a field of `Profile`.
RULES = (
    KernelRule("checksum_first", "A visit compares checksums before it searches the stable tree.", "6.12"),
    KernelRule(
        "chains",
        "A KSM frame takes `max_page_sharing` sharers; more frames of the content form a chain of dups.",
        "6.1",
    ),
    KernelRule(
        "collapse_always",
        "A chain with one dup left becomes an ordinary node in every search, not only with pruning.",
        "6.12",
    ),
    KernelRule(
        "track_zero_pages",
        "KSM's zero pages are distinguished from those mapped by a read: they are counted and unmerged.",
        "6.12",
    ),
    KernelRule(
        "fork_copies_counts",
        "A forked process starts with its parent's counts of merged pages and rmap_items, not with 0.",
        "6.1",
        "6.12",
    ),
    KernelRule(
        "fork_copies_counts", "Again: a forked process starts with its parent's counts.", "6.16", "6.17"
    ),
    KernelRule(
        "fork_misses_zero_pages",
        "`ksm_zero_pages` of the machine leaves out copies by fork, but falls with each that goes.",
        "6.16",
        "6.17",
    ),
    KernelRule("merge_any", "prctl(PR_SET_MEMORY_MERGE) exists.", "6.12"),
    KernelRule(
        "idle_loses_merge_any",
        "A process that the scan finds without mergeable memory loses PR_SET_MEMORY_MERGE.",
        "6.16",
        "6.18.15",
    ),
    KernelRule(
        "memory_failure",
        "MADV_HWPOISON and MADV_SOFT_OFFLINE exist; 6.1 was recorded without CONFIG_MEMORY_FAILURE.",
        "6.12",
    ),
    KernelRule(
        "refuses_huge_zero_page",
        "MADV_HWPOISON of the huge zero page gives EBUSY, not EHWPOISON.",
        "7.2",
    ),
    KernelRule(
        "refuses_zero_page",
        "MADV_SOFT_OFFLINE of the shared zero page gives ENOTRECOVERABLE, not EIO.",
        "7.3",
    ),
    KernelRule(
        "into_bare", "A VMA that has an anon_vma and gets new flags joins a neighbour that has none.", "6.16"
    ),
    KernelRule(
        "split_maps_zero_page",
        "The split of a huge page maps its small pages of zeros to the shared zero page.",
        "6.12",
    ),
    KernelRule(
        "huge_zero_page_cow",
        "A write into the huge zero page allocates a whole huge page, not a small one.",
        "6.16",
    ),
    KernelRule("frees_page_tables", "MADV_DONTNEED of an aligned 512 pages frees their page table.", "6.16"),
    KernelRule("collapse_read_only", "MADV_COLLAPSE takes 512 pages none of which is writable.", "6.18.15"),
    KernelRule(
        "reuse_of_huge_page",
        "A write reuses a page of a huge page that only this process maps any more.",
        "6.16",
    ),
    KernelRule(
        "split_stops_at_pmd",
        "Several PMDs that map a huge page keep it whole: each attempt splits one of them and fails.",
        "6.16",
        "6.18",
    ),
    KernelRule(
        "leaving_forgets",
        "An item that leaves a stable node loses checksum and age; until then it does not age.",
        "7.3",
    ),
)

#: Counters in /sys/kernel/mm/ksm, by the kernel with which they begin; so are the others.
_COUNTERS = {
    "4.8": ("full_scans", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile"),
    "6.1": ("stable_node_chains", "stable_node_dups"),
    "6.12": ("general_profit", "ksm_zero_pages", "pages_scanned", "pages_skipped"),
}
#: Knobs in /sys/kernel/mm/ksm, without run, pages_to_scan and sleep_millisecs, which all kernels have.
_KNOBS = {
    "4.8": ("merge_across_nodes",),
    "6.1": ("max_page_sharing", "stable_node_chains_prune_millisecs", "use_zero_pages"),
    "6.12": (
        "advisor_max_cpu",
        "advisor_max_pages_to_scan",
        "advisor_min_pages_to_scan",
        "advisor_mode",
        "advisor_target_scan_time",
        "smart_scan",
    ),
}
#: Fields of /proc/PID/ksm_stat, and ksm_merging_pages, in the kernel's order.
_PROCESS_STATS = {
    "6.1": ("ksm_merging_pages", "ksm_rmap_items"),
    "6.12": ("ksm_zero_pages", "ksm_process_profit"),
    "6.16": ("ksm_merge_any", "ksm_mergeable"),
}
#: Fields of /proc/vmstat that belong to KSM.
_VMSTAT = {"6.1": ("cow_ksm", "ksm_swpin_copy")}


@dataclass(frozen=True, slots=True)
class Profile:
    """What holds in one kernel: `RULES` says what each switch means."""

    name: str
    checksum_first: bool
    chains: bool
    collapse_always: bool
    track_zero_pages: bool
    fork_copies_counts: bool
    fork_misses_zero_pages: bool
    merge_any: bool
    idle_loses_merge_any: bool
    memory_failure: bool
    refuses_huge_zero_page: bool
    refuses_zero_page: bool
    into_bare: bool
    split_maps_zero_page: bool
    huge_zero_page_cow: bool
    frees_page_tables: bool
    collapse_read_only: bool
    reuse_of_huge_page: bool
    split_stops_at_pmd: bool
    leaving_forgets: bool
    counters: tuple[str, ...]
    knobs: tuple[str, ...]
    process_stats: tuple[str, ...]
    vmstat: tuple[str, ...]


def switches(kernel: str, rules: tuple[KernelRule, ...], kernels: tuple[Kernel, ...]) -> dict[str, bool]:
    """Return which rules hold in a known kernel."""
    order = {known.name: number for number, known in enumerate(kernels)}
    now = order[kernel]
    holds: dict[str, bool] = {}
    for rule in rules:
        ended = rule.ends is not None and now >= order[rule.ends]
        holds[rule.name] = holds.get(rule.name, False) or (now >= order[rule.begins] and not ended)
    return holds


_ORDER = {kernel.name: number for number, kernel in enumerate(KERNELS)}


def _files(since: Mapping[str, tuple[str, ...]], kernel: str) -> tuple[str, ...]:
    begun = (names for begins, names in since.items() if _ORDER[begins] <= _ORDER[kernel])
    return tuple(name for names in begun for name in names)


def _profile(kernel: str) -> Profile:
    return Profile(
        name=kernel,
        **switches(kernel, RULES, KERNELS),
        counters=_files(_COUNTERS, kernel),
        knobs=_files(_KNOBS, kernel),
        process_stats=_files(_PROCESS_STATS, kernel),
        vmstat=_files(_VMSTAT, kernel),
    )


#: By name, oldest first.
PROFILES: dict[str, Profile] = {kernel.name: _profile(kernel.name) for kernel in KERNELS}


@cache
def kernel_of_release(release: str, kernels: tuple[Kernel, ...] = KERNELS) -> str:
    """Return the known kernel as which a release is taken.

    A release is a series such as `6.18`, or a `uname -r` such as `6.18.15+deb13-cloud-amd64`. Raises
    UnknownKernelError.
    """
    names = [kernel.name for kernel in kernels]
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(?!\d)", release)
    if match is None:
        raise UnknownKernelError(f"not a kernel release: {release!r}")
    major, minor, patch = match.groups()
    if patch is None and f"{major}.{minor}" in names:
        return f"{major}.{minor}"
    wanted = int(major), int(minor), int(patch or 0)
    fitting = [kernel for kernel in kernels if kernel.since <= wanted]
    if not fitting:
        raise UnknownKernelError(f"kernel {release} is older than every profile ({', '.join(names)})")
    return fitting[-1].name


def profile_of_release(release: str) -> Profile:
    """Return what holds in the known kernel as which a release is taken; see `kernel_of_release`."""
    return PROFILES[kernel_of_release(release)]


def note_of_release(release: str, kernels: tuple[Kernel, ...] = KERNELS) -> str | None:
    """Return what to say of a release of a series that is not known; None for others."""
    kernel = kernel_of_release(release, kernels)
    if _series(release) == _series(kernel):
        return None
    which = "the newest known one" if kernel == kernels[-1].name else "the last known one before it"
    return f"kernel {release} is not known; it is taken as {kernel}, {which}"


def _series(release: str) -> list[str]:
    return re.findall(r"\d+", release)[:2]
