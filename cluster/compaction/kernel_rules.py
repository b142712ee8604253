"""Which rule of page migration and compaction begins and ends with which kernel.

There is one simulator. `RULES` says of each rule that changed over the years in which of the known kernels it
holds; `CompactionRules` is what holds in one of them. `cluster.spec.profile` has the same for KSM.

Sources: records of the releases that `KERNELS` names, and `mm/migrate.c` and `mm/compaction.c`.
"""

from __future__ import annotations

from typing import NamedTuple

from cluster.spec.profile import Kernel, KernelRule, kernel_of_release, note_of_release, switches

#: Oldest first; a release is taken as one of these as `cluster.spec.profile.kernel_of_release` says.
KERNELS = (
    Kernel("4.8", (4, 8), "source"),
    Kernel("6.1", (6, 1), "records of 6.1.192"),
    Kernel("6.12", (6, 12), "records of 6.12.117"),
    Kernel("6.18", (6, 18), "records of 6.18.15"),
    Kernel("7.2", (7, 2), "records of 7.2.13"),
)

#: The name is a field of `CompactionRules`.
RULES = (
    KernelRule(
        "putback_at_once",
        "A page with an error other than -EAGAIN is put back at once, not after the whole list.",
        "4.8",
        "6.1",
    ),
    KernelRule(
        "in_batches",
        "A list of pages is migrated 512 pages at a time: retries of a batch come before the next batch.",
        "6.1",
    ),
    KernelRule(
        "rest_of_pageblock",
        "After the first 32 pages of a pageblock, its rest goes in one batch of any size.",
        "6.1",
        read="5.1",
    ),
    KernelRule(
        "growing_stride",
        "The free scanner doubles its step, up to 32 pages, after each pageblock without free pages.",
        "6.1",
        read="5.1",
    ),
    KernelRule(
        "fast_search",
        "Searches of the free lists spare the scanners work for large orders.",
        "6.1",
        read="5.1",
    ),
    KernelRule(
        "targets_first",
        "All pages of a batch are locked and get their targets, then drivers are called: 3 attempts in async "
        "mode, then page by page 7 more in the mode of the run. -ENOMEM of a driver is an error like others.",
        "6.12",
    ),
    KernelRule(
        "targets_by_order",
        "Targets of a compaction are kept by order: small blocks before large ones, else the first one "
        "fetched. As many are fetched as pages of the batch still need one.",
        "6.12",
        read="6.9",
    ),
    KernelRule(
        "splits_from_the_end",
        "A large folio without a target becomes single pages, which are tried from the last to the first. "
        "Later: from the second to the last, then the first.",
        "6.12",
        "6.18",
    ),
    KernelRule(
        "offline_highest_first",
        "Memory that goes offline is emptied from its highest page down, not upwards.",
        "6.12",
    ),
    KernelRule(
        "movable_until_freed",
        "A page is movable by its type until it is freed: the VM asks the driver to move a page that it has "
        "given up meanwhile. A driver cannot make a page unmovable and keep it.",
        "6.18",
        read="6.17",
    ),
    KernelRule(
        "page_types",
        "A driver registers for a page type, and there are only those of zsmalloc and of balloons: a driver "
        "of one's own can take the place of zsmalloc.",
        "6.18",
        read="6.17",
    ),
    KernelRule(
        "isolation_keeps_type",
        "A pageblock that is emptied has its own type afterwards. Before, it becomes MOVABLE.",
        "6.18",
    ),
    # direct compaction and kcompactd
    KernelRule(
        "hints_found_block",
        "A pageblock that a search of the free lists finds gets a hint at once, so it is not scanned.",
        "6.1",
        "6.12",
    ),
    KernelRule(
        "rest_after_failure",
        "After a page failed in async or sync-light mode, the rest of its pageblock goes in one batch. "
        "Before, async direct compaction leaves the aligned block.",
        "6.12",
    ),
    KernelRule(
        "captured_before_drain",
        "A block that became free when the per-cpu list was drained ends a run after the next batch only.",
        "6.12",
    ),
    KernelRule(
        "starts_below",
        "The free scanner remembers as its start the pageblock below the one that it went through.",
        "6.12",
        read="6.6",
    ),
    KernelRule("pcp_grows", "A per-cpu list that is full often grows.", "6.12", read="6.7"),
    KernelRule(
        "kswapd_at_once",
        "kswapd runs as soon as it is woken. Later it runs once a batch of pages has moved.",
        "4.8",
        "6.12",
    ),
    KernelRule(
        "counts_every_page",
        "`compact_migrate_scanned` counts every page of a free block, not one, and none of a huge page.",
        "6.12",
        read="6.6",
    ),
    KernelRule(
        "movable_sources",
        "Async direct compaction for a whole pageblock empties MOVABLE ones, whatever type is asked for.",
        "7.2",
    ),
    KernelRule(
        "uses_reserve",
        "Direct compaction takes place in a zone whose free pages are kept for requests of lower zones.",
        "7.2",
    ),
    KernelRule("proactive_to_zero", "Proactiveness 100 stops at fragmentation score 0, not 5.", "7.2"),
)


class CompactionRules(NamedTuple):
    """What holds in one kernel: `RULES` says what each switch means."""

    name: str
    putback_at_once: bool
    in_batches: bool
    rest_of_pageblock: bool
    growing_stride: bool
    fast_search: bool
    targets_first: bool
    targets_by_order: bool
    splits_from_the_end: bool
    offline_highest_first: bool
    movable_until_freed: bool
    page_types: bool
    isolation_keeps_type: bool
    # direct compaction and kcompactd
    hints_found_block: bool
    rest_after_failure: bool
    captured_before_drain: bool
    starts_below: bool
    pcp_grows: bool
    kswapd_at_once: bool
    counts_every_page: bool
    movable_sources: bool
    uses_reserve: bool
    proactive_to_zero: bool

    @property
    def largest_stride(self) -> int:
        """Return the largest step of the free scanner, in pages."""
        return 32 if self.growing_stride else 1


#: By name, oldest first.
COMPACTION_RULES = {
    kernel.name: CompactionRules(kernel.name, **switches(kernel.name, RULES, KERNELS)) for kernel in KERNELS
}
#: For callers that name no kernel; scenarios have a default of their own (`CompactionSpec.kernel`).
DEFAULT_RULES = COMPACTION_RULES["6.1"]


def rules_of_release(release: str) -> CompactionRules:
    """Return what holds in the known kernel as which a release is taken. Raises UnknownKernelError."""
    return COMPACTION_RULES[kernel_of_release(release, KERNELS)]


def note_of_compaction(release: str) -> str | None:
    """Return what to say of a release of a series whose compaction is not known; None for others."""
    return note_of_release(release, KERNELS)
