"""The files of /sys/kernel/mm/ksm of a simulated machine: counters to read, knobs to read and write.

Source of the rules: the `*_show` and `*_store` functions of `mm/ksm.c`.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.spec.content import PAGE_SIZE
from cluster.spec.knobs import (
    INT_MAX,
    INT_MIN,
    RMAP_ITEM_SIZE,
    UINT_MAX,
    ULONG_MAX,
    Counters,
    KnobValues,
    overflows,
    parse_bool,
    parse_number,
)
from cluster.spec.profile import Profile

_ADVISOR_MODES = {"none": "[none] scan-time", "scan-time": "none [scan-time]"}
#: lowest and highest value of the knobs that hold a number
_RANGES = {
    "merge_across_nodes": (0, 1),
    "max_page_sharing": (2, INT_MAX),
    "stable_node_chains_prune_millisecs": (0, UINT_MAX),
    "advisor_max_cpu": (0, ULONG_MAX),
    "advisor_max_pages_to_scan": (0, ULONG_MAX),
    "advisor_min_pages_to_scan": (0, ULONG_MAX),
    "advisor_target_scan_time": (1, ULONG_MAX),
}
#: files that drive ksmd, in every kernel: scripts use steps in their place, so values are only checked
_DRIVERS = ("pages_to_scan", "sleep_millisecs")
#: knobs that cannot change while stable nodes exist
_NEEDS_EMPTY_TREES = ("merge_across_nodes", "max_page_sharing")
#: the C types of these two: numbers beyond them give ERANGE; all other knobs give EINVAL for every mistake
_TYPES = {"merge_across_nodes": (0, ULONG_MAX), "max_page_sharing": (INT_MIN, INT_MAX)}


class Sysfs:
    """The files, for one kernel profile.

    `remove_stable` removes the stable nodes whose frames are not mapped, and returns whether none is left.
    """

    def __init__(self, profile: Profile, knobs: KnobValues, remove_stable: Callable[[], bool]) -> None:
        self._profile = profile
        self._knobs = knobs
        self._remove_stable = remove_stable

    def counters(self, count: Counters, full_scans: int) -> dict[str, int]:
        """Return the counters by name."""
        placed = count.pages_shared + count.pages_sharing + count.pages_unshared
        saved = count.pages_sharing + count.ksm_zero_pages
        values = {
            "full_scans": full_scans,
            "general_profit": saved * PAGE_SIZE - count.rmap_items * RMAP_ITEM_SIZE,
            "ksm_zero_pages": count.ksm_zero_pages,
            "pages_scanned": count.pages_scanned,
            "pages_shared": count.pages_shared,
            "pages_sharing": count.pages_sharing,
            "pages_skipped": count.pages_skipped,
            "pages_unshared": count.pages_unshared,
            "pages_volatile": max(count.rmap_items - placed, 0),
            "stable_node_chains": count.stable_node_chains,
            "stable_node_dups": count.stable_node_dups,
        }
        return {name: value for name, value in values.items() if name in self._profile.counters}

    def knobs(self) -> dict[str, int | str]:
        """Return the knobs by name, as their files read."""
        values: dict[str, int | str] = {
            name: getattr(self._knobs, name) for name in sorted(self._profile.knobs)
        }
        if "advisor_mode" in values:
            values["advisor_mode"] = _ADVISOR_MODES[self._knobs.advisor_mode]
        return values

    def write(self, name: str, text: str, count: Counters) -> str:
        """Set a knob; return the name of the error, or an empty string."""
        if name in self._profile.counters:
            return "EACCES"
        if name == "pages_to_scan" and self._knobs.advisor_mode != "none":
            return "EINVAL"  # the advisor sets it
        if name in _DRIVERS:
            return "" if parse_number(text, 0, UINT_MAX) is not None else "EINVAL"
        if name not in self._profile.knobs:
            return "ENOENT"
        value = _parse(name, text)
        if value is None:
            return "ERANGE" if name in _TYPES and overflows(text, *_TYPES[name]) else "EINVAL"
        if name in _NEEDS_EMPTY_TREES and value != getattr(self._knobs, name) and self._trees_in_use(count):
            return "EBUSY"
        setattr(self._knobs, name, value)
        return ""

    def _trees_in_use(self, count: Counters) -> bool:
        return bool(count.pages_shared) or not self._remove_stable()


def _parse(name: str, text: str) -> int | str | None:
    """Return the value of a knob; None if the kernel does not take the text."""
    if name == "advisor_mode":
        return text if text in _ADVISOR_MODES else None
    if name in _RANGES:
        number = parse_number(text, *_RANGES[name])
        # The kernel reads an unsigned long into an unsigned int.
        return number & UINT_MAX if name == "advisor_max_cpu" and number is not None else number
    return parse_bool(text)
