"""Every statistic of the simulation: its name, unit and meaning.

A statistic of `NODE` has a value for each node and pass; the machine's value is the sum over the nodes. If
the kernel has the counter (/sys/kernel/mm/ksm, /proc/vmstat), name and meaning are the kernel's.
"""

from __future__ import annotations

from typing import NamedTuple

SCHEMA_VERSION = 3


class Statistic(NamedTuple):
    """One column of the results."""

    name: str
    unit: str
    meaning: str


#: Values at the end of a pass.
GAUGES = (
    Statistic("pages_mapped", "pages", "page table entries of the node's processes that map a frame"),
    Statistic("frames_used", "pages", "physical frames of the node in use"),
    Statistic(
        "frames_without_ksm",
        "pages",
        "physical frames that would be in use if ksmd had merged nothing and split no huge page; what is "
        "merged counts for the node of its process",
    ),
    Statistic("frames_free", "pages", "physical frames of the node that are free"),
    Statistic("pages_shared", "pages", "stable nodes in use: KSM frames of this node"),
    Statistic(
        "pages_sharing",
        "pages",
        "further pages merged into the KSM frames of this node: what is saved, as far as ksmd knows by now",
    ),
    Statistic("pages_unshared", "pages", "pages of the node's processes waiting in the unstable tree"),
    Statistic("pages_volatile", "pages", "tracked pages of the node's processes in neither tree"),
    Statistic("rmap_items", "pages", "pages of the node's processes that ksmd keeps track of"),
    Statistic("ksm_merging_pages", "pages", "pages of the node's processes that hang on a stable node"),
    Statistic("ksm_zero_pages", "pages", "pages of the node's processes that ksmd mapped to the zero page"),
    Statistic("ksm_frames", "pages", "KSM frames of this node in use"),
    Statistic("ksm_mappings", "pages", "page table entries of the node's processes that map a KSM frame"),
    Statistic("ksm_mappings_remote", "pages", "... of them, those whose KSM frame is on another node"),
    Statistic(
        "ksm_mappings_distance", "SLIT units", "sum over ksm_mappings of the distance to the frame's node"
    ),
    Statistic(
        "stable_node_chains", "contents", "contents with more than one stable node, by home of the content"
    ),
    Statistic("stable_node_dups", "pages", "stable nodes of those contents, by home of the content"),
    Statistic("huge_pages", "huge pages", "huge pages that processes of the node map by a PMD"),
)

#: Counts of what happened during a pass.
COUNTERS = (
    Statistic("pages_scanned", "pages", "pages of the node's processes visited by ksmd"),
    Statistic("pages_skipped", "pages", "pages of the node's processes passed over by smart_scan"),
    Statistic("pages_merged", "pages", "frames of private pages given up for a KSM frame"),
    Statistic("pages_merged_remote", "pages", "... of them, those whose KSM frame is on another node"),
    Statistic("pages_written", "pages", "pages written by the workload"),
    Statistic("cow_ksm", "pages", "copies made because a process wrote to a KSM page"),
    Statistic(
        "thp_fault_alloc",
        "huge pages",
        "huge pages that the node's processes got, at the start or by a page fault",
    ),
    Statistic("thp_split_page", "huge pages", "huge pages of the node's processes that were split"),
    Statistic("thp_split_page_failed", "huge pages", "attempts to split a huge page that failed"),
    Statistic("thp_split_pmd", "huge pages", "PMDs of the node's processes that were split into page tables"),
    Statistic(
        "thp_zero_pages", "pages", "pages of the node's processes that splits mapped to the shared zero page"
    ),
    Statistic("bytes_sent", "bytes", "payload of the messages that the node sent to other nodes"),
    Statistic("ksmd_cpu_ns", "ns", "simulated CPU time of ksmd for this node's pages"),
)

#: Of a process, or of the mappings of one name, at the end of a run.
OF_PROCESS = (
    Statistic("pages_mapped", "pages", "page table entries that map a frame"),
    Statistic("ksm_rmap_items", "pages", "pages that ksmd keeps track of"),
    Statistic("ksm_merging_pages", "pages", "pages that hang on a stable node"),
    Statistic("ksm_zero_pages", "pages", "pages that ksmd mapped to the zero page"),
    Statistic("pages_unshared", "pages", "pages waiting in the unstable tree"),
    Statistic("pages_volatile", "pages", "tracked pages in neither tree"),
    Statistic(
        "ksm_process_profit",
        "bytes",
        "ksm_merging_pages + ksm_zero_pages, minus 64 bytes for each of ksm_rmap_items, as in the kernel",
    ),
    Statistic("huge_pages_before", "huge pages", "huge pages that a PMD mapped at the start"),
    Statistic("huge_pages", "huge pages", "huge pages that a PMD maps"),
)

#: Of a pair of nodes, at the end of a run.
OF_PAIR = (
    Statistic("node", "", "node of the processes"),
    Statistic("frame_node", "", "node of the KSM frames"),
    Statistic("distance", "SLIT units", "distance between the two"),
    Statistic("ksm_mappings", "pages", "page table entries of these processes that map such a frame"),
)

NODE = GAUGES + COUNTERS
NODE_NAMES = tuple(s.name for s in NODE)
UNITS = {s.name: s.unit for s in NODE}
