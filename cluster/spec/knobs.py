"""Knobs and counters of KSM as scripts see them, and how the kernel reads numbers from text.

Sources: the sysfs part of `mm/ksm.c`, `lib/kstrtox.c`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

RMAP_ITEM_SIZE = 64  #: bytes, sizeof(struct ksm_rmap_item)

UINT_MAX = 2**32 - 1
INT_MIN, INT_MAX = -(2**31), 2**31 - 1
ULONG_MAX = 2**64 - 1


@dataclass(slots=True)
class KnobValues:
    """The values of the knobs, at first those that a script starts with."""

    max_page_sharing: int = 256
    merge_across_nodes: int = 1
    use_zero_pages: int = 0
    smart_scan: int = 0
    stable_node_chains_prune_millisecs: int = 2000
    advisor_mode: str = "none"
    advisor_max_cpu: int = 70
    advisor_max_pages_to_scan: int = 30000
    advisor_min_pages_to_scan: int = 500
    advisor_target_scan_time: int = 200


@dataclass(slots=True)
class Counters:
    """The counters of KSM, for the whole machine."""

    pages_shared: int = 0
    pages_sharing: int = 0
    pages_unshared: int = 0
    rmap_items: int = 0
    pages_scanned: int = 0
    pages_skipped: int = 0
    stable_node_chains: int = 0
    stable_node_dups: int = 0
    ksm_zero_pages: int = 0
    cow_ksm: int = 0
    ksm_swpin_copy: int = 0


@dataclass(slots=True)
class ThpCounters:
    """The counters of /proc/vmstat that belong to huge pages, under their names."""

    thp_fault_alloc: int = 0
    thp_fault_fallback: int = 0
    thp_collapse_alloc: int = 0
    thp_collapse_alloc_failed: int = 0
    thp_split_page: int = 0
    thp_split_page_failed: int = 0
    thp_deferred_split_page: int = 0
    thp_underused_split_page: int = 0
    thp_split_pmd: int = 0
    thp_zero_page_alloc: int = 0


def parse_number(text: str, low: int, high: int) -> int | None:
    """Return a decimal number as the kernel's kstrto* functions read it; None if they fail."""
    value = _decimal(text)
    return value if value is not None and not text.startswith("-") and low <= value <= high else None


def overflows(text: str, low: int, high: int) -> bool:
    """Return whether kstrto* fails with ERANGE: `text` is a number, but not in `low` .. `high`."""
    value = _decimal(text)
    return value is not None and (low < 0 or not text.startswith("-")) and not low <= value <= high


def _decimal(text: str) -> int | None:
    """Return the number, or None. Keeps 21 digits: more are too large for any type anyway."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        return None
    value = int(text.lstrip("+-0")[:21] or "0")
    return -value if text.startswith("-") else value


def parse_bool(text: str) -> int | None:
    """Return a truth value, 0 or 1, as kstrtobool reads it; None if it fails."""
    if re.match(r"[yYtT1]|[oO][nN]", text):
        return 1
    if re.match(r"[nNfF0]|[oO][fF]", text):
        return 0
    return None
